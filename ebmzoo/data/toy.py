"""Points in the plane whose density is known exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ebmzoo.data.base import DataModule, Examples, InMemory


class Draws(Protocol):
    """What a density needs of a source of noise; every noise of this package has it."""

    def normal(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Standard normal numbers of ``shape``, with the dtype and device of ``like``."""

    def integers(self, high: int, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Integers uniform in [0, high) of ``shape``, on the device of ``like``."""


class GaussianMixture:
    """A mixture of equally likely, round Gaussians of one width.

    Args:
        means: the modes ``(M, D)``.
        std: standard deviation of each mode, in each direction, in the units of ``means``.

    Raises:
        ValueError: if ``std`` is not positive or ``means`` is not ``(M, D)``.

    Example:
        >>> density = GaussianMixture(torch.zeros(1, 2), std=1.0)
        >>> density.log_prob(torch.zeros(1, 2))  # -log(2 pi)
        tensor([-1.8379])
    """

    def __init__(self, means: Tensor, std: float) -> None:
        if means.ndim != 2 or not std > 0:
            raise ValueError(f"a mixture needs means (M, D) and std > 0, not {tuple(means.shape)} and {std}")
        self.means, self.std = means, std

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats.

        Args:
            x: points ``(B, D)``.

        Returns:
            ``(B,)``, in the dtype of ``x``.
        """
        means = self.means.to(x)
        squared = (x[:, None, :] - means).square().sum(-1)
        count, dim = self.means.shape
        norm = math.log(count) + dim / 2 * math.log(2 * math.pi * self.std**2)
        return torch.logsumexp(-squared / (2 * self.std**2), dim=1) - norm

    def sample(self, n: int, noise: Draws | torch.Generator) -> Tensor:
        """Independent draws.

        Args:
            n: number of points.
            noise: a noise of this package, or a CPU `torch.Generator`.

        Returns:
            Points ``(n, D)``.
        """
        count, dim = self.means.shape
        if isinstance(noise, torch.Generator):
            mode = torch.randint(count, (n,), generator=noise)
            white = torch.randn(n, dim, generator=noise)
        else:
            mode = noise.integers(count, (n,), like=self.means)
            white = noise.normal((n, dim), like=self.means)
        return self.means[mode] + self.std * white


class Gaussians25(DataModule):
    """Twenty-five Gaussians on the grid {-4, -2, 0, 2, 4}^2, with their exact density.

    With the default width the truth scores a mean log-density of -1.10 nats. The points are drawn once, from
    fixed
    seeds: they do not depend on ``seed``, which orders the batches.

    Args:
        spacing: distance between neighbouring modes.
        std: standard deviation of each mode, in the same units.
        n_train: number of training points.
        n_test: number of test points (validation is the test split).
        **kwargs: those of `DataModule`.

    Attributes:
        density: the exact `GaussianMixture`, with ``log_prob``, ``sample``, ``means`` and ``std``.

    Raises:
        ValueError: if a number is not positive, or ``flip`` is given.

    Example:
        >>> data = Gaussians25(batch_size=1000)
        >>> x = next(iter(data.train_dataloader()))
        >>> x.shape, data.density.means.shape
        (torch.Size([1000, 2]), torch.Size([25, 2]))
    """

    kind = "points"

    def __init__(
        self,
        spacing: float = 2.0,
        std: float = 0.0839,
        n_train: int = 50_000,
        n_test: int = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not spacing > 0 or n_train < 1 or n_test < 1 or self.flip:
            raise ValueError(
                "Gaussians25 needs spacing > 0, n_train >= 1, n_test >= 1 and no flip, not "
                f"{spacing}, {n_train}, {n_test} and {self.flip}"
            )
        side = spacing * torch.arange(-2.0, 3.0)
        self.density = GaussianMixture(torch.cartesian_prod(side, side), std)
        self.counts = {"train": n_train, "test": n_test}
        # Another spacing or width is another density, so the name that protocols carry tells them apart.
        own = (spacing, std) != (2.0, 0.0839)
        self.name = f"gaussians25-{spacing:g}-{std:g}" if own else "gaussians25"
        self.image_shape = (2,)

    def load(self, split: str) -> Examples:
        """The points of ``"train"`` or ``"test"``."""
        generator = torch.Generator().manual_seed({"train": 25, "test": 26}[split])
        return InMemory(self.density.sample(self.counts[split], generator))
