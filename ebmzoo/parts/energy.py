"""An energy E(x), and how it learns: data held against negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ebmzoo.factories import EnergyFactory, ImageShape, build
from ebmzoo.mcmc import Noise
from ebmzoo.mcmc.potential import Network
from ebmzoo.networks.layers import in_range
from ebmzoo.parts.objectives import Contrasted, Penalty, contrastive_gap, hinge

from .captured_loss import captured_loss

_CONTRASTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"gap": contrastive_gap, "hinge": hinge}


class Energy(Network):
    """E(x), a network, low where likely; it learns by what it says of data and of negatives.

    Args:
        image_shape: shape of one example.
        network: makes the network, ``(B, *image_shape)`` to ``(B,)`` or ``(B, 1)``, from image_shape.
        data_noise: standard deviation of the noise on the data that it sees.
        penalties: what is added to its loss.
        contrast: the loss of the two energies: "gap" is E(data) − E(negatives), whose gradient is that of −log p;
            "hinge" is max(0, 1 + E(data)) + max(0, 1 − E(negatives)).
        clamps: images are clamped to [−1, 1] before the network sees them, data with their noise as well: nothing can
            then be told by values that no image has, and no force acts on a pixel that is outside.

    Raises:
        ValueError: there is no such contrast.

    Example:
        >>> from ebmzoo.mcmc import as_noise
        >>> from ebmzoo.networks import MLPEnergy
        >>> energy, x = Energy((2,), MLPEnergy), torch.zeros(3, 2)
        >>> loss, seen = energy.loss(x, x, as_noise(0))
        >>> abs(loss.item()) < 1e-6, seen["train/energy_data"].shape
        (True, torch.Size([3]))
    """

    def __init__(
        self,
        image_shape: ImageShape,
        network: EnergyFactory,
        data_noise: float = 0.0,
        penalties: Sequence[Penalty] = (),
        contrast: Literal["gap", "hinge"] = "gap",
        clamps: bool = False,
    ):
        if contrast not in _CONTRASTS:
            raise ValueError(f"unknown contrast {contrast!r}: choose one of {', '.join(_CONTRASTS)}")
        super().__init__(build(network, tuple(image_shape)))
        self.data_noise, self.penalties, self.contrast = data_noise, list(penalties), contrast
        self.clamps = clamps

    def forward(self, x: Tensor) -> Tensor:
        """The raw network output, ``(B,)``, at least fp32."""
        return super().forward(self._seen(x))

    def _seen(self, x: Tensor) -> Tensor:
        return in_range(x) if self.clamps else x

    @captured_loss
    def loss(self, data: Tensor, negatives: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The contrast of data and negatives with the penalties, a scalar; and what is logged of it.

        Args:
            data: ``(B, …)``.
            negatives: ``(B, …)``, which no gradient reaches.
            noise: the source of ``data_noise`` and of what penalties draw.
        """
        if self.data_noise:
            data = data + self.data_noise * noise.normal(data.shape, data)
        data, negatives = self._seen(data), self._seen(negatives)
        of_data, of_negatives = self(torch.cat([data, negatives])).chunk(2)
        total = _CONTRASTS[self.contrast](of_data, of_negatives)
        batch = Contrasted(data, negatives, of_data, of_negatives)
        for penalty in self.penalties:
            total = total + penalty(self.network, batch, noise)
        return total, {
            "train/energy_data": of_data,
            "train/energy_model": of_negatives,
            "train/energy_gap": contrastive_gap(of_data, of_negatives),
            "train/loss_energy": total,
        }

    def take_scales(self, data: Tensor, gathered: Callable[[Tensor], Any]) -> None:
        """Let a network that takes its first scales from data do so, once in its life; others are left alone.

        Args:
            data: this process's part of a batch.
            gathered: makes of it that of all processes, so that all take the same.
        """
        network: Any = self.network
        if not getattr(network, "initialised", True):
            network.initialise(gathered(data).reshape(-1, *data.shape[1:]))

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """What is logged of held-out data."""
        return {"energy_data": self(x)}


def energy_of(energy: Any, image_shape: ImageShape) -> Energy:
    """The energy that a maker makes; one that makes a bare network has it without noise and penalties."""
    made: nn.Module = build(energy, tuple(image_shape))
    return made if isinstance(made, Energy) else Energy(image_shape, made)
