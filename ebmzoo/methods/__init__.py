"""The shelf: one method per file, all through one contract."""

from .base import BoundsLikelihood, Encodes, HasEnergy, Method, Reconstructs, Samples, Scores
from .bidvl import BiDVL
from .dual_mcmc import DualMCMC
from .ebm import EBM
from .ecvae import ECVAE
from .gan import GAN
from .vae import VAE
from .vaebm import VAEBM
from .wgan import WGAN

__all__ = [
    "EBM",
    "ECVAE",
    "GAN",
    "VAE",
    "VAEBM",
    "WGAN",
    "BiDVL",
    "BoundsLikelihood",
    "DualMCMC",
    "Encodes",
    "HasEnergy",
    "Method",
    "Reconstructs",
    "Samples",
    "Scores",
]
