"""The shelf: one method per file, all through one contract."""

from .base import BoundsLikelihood, Decodes, Encodes, HasEnergy, Method, Reconstructs, Samples, Scores
from .bidvl import BiDVL
from .ecvae import ECVAE
from .vae import VAE
from .vaebm import VAEBM

__all__ = [
    "ECVAE",
    "VAE",
    "VAEBM",
    "BiDVL",
    "BoundsLikelihood",
    "Decodes",
    "Encodes",
    "HasEnergy",
    "Method",
    "Reconstructs",
    "Samples",
    "Scores",
]
