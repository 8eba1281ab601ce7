"""Points in the plane, with their density where it is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ebmzoo.data.base import DataModule, Examples, InMemory
from ebmzoo.data.densities import Checkerboard, Density, GaussianMixture, Pinwheel, Rings
from ebmzoo.mcmc import Noise, as_noise


class _Points(DataModule):
    """Points of the plane, drawn once, from fixed seeds: they do not depend on ``seed``, which orders the batches."""

    kind = "points"
    draw: Callable[[int, torch.Generator], Tensor]

    def __init__(self, n_train: int, n_test: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if n_train < 1 or n_test < 1 or self.flip:
            kind = type(self).__name__
            raise ValueError(
                f"{kind} needs n_train >= 1, n_test >= 1 and no flip, not {n_train}, {n_test}, {self.flip}"
            )
        self.counts = {"train": n_train, "test": n_test}
        self.image_shape = (2,)

    def load(self, split: str) -> Examples:
        """The points of ``"train"`` or ``"test"``."""
        generator = torch.Generator().manual_seed({"train": 25, "test": 26}[split])
        return InMemory(self.draw(self.counts[split], generator))


class Gaussians25(_Points):
    """Twenty-five Gaussians on the grid {-4, -2, 0, 2, 4}^2, with their exact density.

    With the default width the truth scores a mean log-density of -1.10 nats. The points are drawn once, from fixed
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

    def __init__(
        self, spacing: float = 2.0, std: float = 0.0839, n_train: int = 50_000, n_test: int = 10_000, **kwargs: Any
    ) -> None:
        super().__init__(n_train, n_test, **kwargs)
        if not spacing > 0:
            raise ValueError(f"Gaussians25 needs spacing > 0, not {spacing}")
        side = spacing * torch.arange(-2.0, 3.0)
        self.density = GaussianMixture(torch.cartesian_prod(side, side), std)
        self.draw = self.density.sample
        # Another spacing or width is another density, so the name that protocols carry tells them apart.
        own = (spacing, std) != (2.0, 0.0839)
        self.name = f"gaussians25-{spacing:g}-{std:g}" if own else "gaussians25"


def _ring_of_gaussians() -> GaussianMixture:
    angle = 2 * math.pi / 8 * torch.arange(8, dtype=torch.float64)
    return GaussianMixture(4 * torch.stack([angle.cos(), angle.sin()], dim=1).float(), std=0.2)


def _moons(n: int, noise: Noise | torch.Generator) -> Tensor:
    draws = as_noise(noise)
    lower = draws.integers(2, (n,))
    angle = math.pi * draws.uniform((n,))
    # The upper half circle around (-1/2, -1/4) and the lower one around (1/2, 1/4), in units of their radius.
    sign = 1.0 - 2.0 * lower
    x = torch.stack([sign * (angle.cos() - 0.5), sign * (angle.sin() - 0.25)], dim=1)
    return 2.4 * x + 0.2 * draws.normal((n, 2))


def _spirals(n: int, noise: Noise | torch.Generator) -> Tensor:
    draws = as_noise(noise)
    sign = 1.0 - 2.0 * draws.integers(2, (n,))
    turn = draws.uniform((n,)).sqrt()  # the root spreads the points evenly along the arm
    radius, angle = sign * 4 * turn, 3 * math.pi * turn
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1) + 0.1 * draws.normal((n, 2))


_DENSITIES: dict[str, Callable[[], Density]] = {
    "gaussians8": _ring_of_gaussians,
    "rings": partial(Rings, torch.tensor([1.0, 2.0, 3.0, 4.0]), std=0.1),
    "checkerboard": Checkerboard,
    "pinwheel": Pinwheel,
}
_OTHERS = {"moons": _moons, "spirals": _spirals}


class Toy2D(_Points):
    """The classic toys in the plane, all within about [-4, 4]^2.

    ================  ===========================================================================  =======
    ``gaussians8``    eight round Gaussians of width 0.2 on a circle of radius 4                   density
    ``rings``         four circles of radius 1, 2, 3 and 4, blurred by 0.1                         density
    ``checkerboard``  uniform on eight of sixteen squares of side 2                                density
    ``pinwheel``      five twisted arms                                                            density
    ``moons``         two half circles of radius 2.4 that interlock, blurred by 0.2
    ``spirals``       two arms of one and a half turns each, blurred by 0.1
    ================  ===========================================================================  =======

    The points are drawn once, from fixed seeds: they do not depend on ``seed``, which orders the batches.

    Args:
        name: one of these.
        n_train: number of training points.
        n_test: number of test points (validation is the test split).
        **kwargs: those of `DataModule`.

    Attributes:
        density: the exact density with ``log_prob`` and ``sample``, only where the table says so; that of
            ``gaussians8`` is a `GaussianMixture` and has the modes as ``means`` and their ``std``.

    Raises:
        ValueError: for another name, for a number that is not positive, or if ``flip`` is given.

    Example:
        >>> data = Toy2D("rings", batch_size=100)
        >>> next(iter(data.train_dataloader())).shape, hasattr(data, "density")
        (torch.Size([100, 2]), True)
        >>> hasattr(Toy2D("moons"), "density")
        False
    """

    density: Density

    def __init__(self, name: str = "gaussians8", n_train: int = 50_000, n_test: int = 10_000, **kwargs: Any) -> None:
        super().__init__(n_train, n_test, **kwargs)
        if name not in (*_DENSITIES, *_OTHERS):
            raise ValueError(f"there is no 2-D toy {name!r}: {', '.join((*_DENSITIES, *_OTHERS))}")
        if name in _DENSITIES:
            self.density = _DENSITIES[name]()
            self.draw = self.density.sample
        else:
            self.draw = _OTHERS[name]
        self.name = name
