"""The shelf: one method per file, all through one contract."""

from .base import BoundsLikelihood, Encodes, HasEnergy, Method, Reconstructs, Samples, Scores
from .ecvae import ECVAE
from .vae import VAE

__all__ = [
    "ECVAE",
    "VAE",
    "BoundsLikelihood",
    "Encodes",
    "HasEnergy",
    "Method",
    "Reconstructs",
    "Samples",
    "Scores",
]
