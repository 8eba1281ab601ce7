"""Energy-based generative models that train, resume and can be compared.

The names below are loaded when they are first used, so that ``import ebmzoo`` alone costs nothing.

Example:
    >>> import ebmzoo
    >>> ebmzoo.Langevin(steps=15).steps
    15
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebmzoo.callbacks import EMA, Diverged, Evaluate, Guard, NetworkEvaluations, Pictures, Progress
    from ebmzoo.checkpoints import export, load
    from ebmzoo.data import (
        CIFAR10,
        CIFAR100,
        MNIST,
        STL10,
        SVHN,
        CelebA,
        CelebAHQ,
        DataModule,
        Digits,
        Gaussians25,
        Glyphs,
        ImageFolder,
        ImageNet32,
        LSUNChurch,
        StackedDigits,
        StackedMNIST,
        Toy2D,
    )
    from ebmzoo.mcmc import HMC, MALA, Langevin
    from ebmzoo.methods import EBM, ECVAE, GAN, VAE, VAEBM, WGAN, BiDVL, DenoisingEBM, DualMCMC, ECFlow, Flow, Method

__version__ = "0.2.0"

# Each room and the names of it that the package offers.
_ROOMS = {
    "callbacks": ("EMA", "Diverged", "Evaluate", "Guard", "NetworkEvaluations", "Pictures", "Progress"),
    "checkpoints": ("export", "load"),
    "data": (
        "CIFAR10",
        "CIFAR100",
        "CelebA",
        "CelebAHQ",
        "DataModule",
        "Digits",
        "Gaussians25",
        "Glyphs",
        "ImageFolder",
        "ImageNet32",
        "LSUNChurch",
        "MNIST",
        "STL10",
        "SVHN",
        "StackedDigits",
        "StackedMNIST",
        "Toy2D",
    ),
    "mcmc": ("HMC", "MALA", "Langevin"),
    "methods": (
        "BiDVL",
        "DenoisingEBM",
        "DualMCMC",
        "EBM",
        "ECFlow",
        "ECVAE",
        "Flow",
        "GAN",
        "Method",
        "VAE",
        "VAEBM",
        "WGAN",
    ),
}

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EBM",
    "ECVAE",
    "EMA",
    "GAN",
    "HMC",
    "MALA",
    "MNIST",
    "STL10",
    "SVHN",
    "VAE",
    "VAEBM",
    "WGAN",
    "BiDVL",
    "CelebA",
    "CelebAHQ",
    "DataModule",
    "DenoisingEBM",
    "Digits",
    "Diverged",
    "DualMCMC",
    "ECFlow",
    "Evaluate",
    "Flow",
    "Gaussians25",
    "Glyphs",
    "Guard",
    "ImageFolder",
    "ImageNet32",
    "LSUNChurch",
    "Langevin",
    "Method",
    "NetworkEvaluations",
    "Pictures",
    "Progress",
    "StackedDigits",
    "StackedMNIST",
    "Toy2D",
    "export",
    "load",
]


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            value = getattr(import_module(f"ebmzoo.{room}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'ebmzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
