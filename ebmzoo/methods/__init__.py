"""The shelf: one method per file, all through one contract."""

from .base import BoundsLikelihood, Encodes, HasEnergy, Method, Reconstructs, Samples, Scores
from .bidvl import BiDVL
from .ecflow import ECFlow
from .ecvae import ECVAE
from .ecvae_posterior import CalibratedPosterior
from .flow import Flow
from .vae import VAE
from .vaebm import VAEBM

__all__ = [
    "ECVAE",
    "VAE",
    "VAEBM",
    "BiDVL",
    "BoundsLikelihood",
    "CalibratedPosterior",
    "ECFlow",
    "Encodes",
    "Flow",
    "HasEnergy",
    "Method",
    "Reconstructs",
    "Samples",
    "Scores",
]
