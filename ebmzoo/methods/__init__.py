"""The shelf: one method per file, all through one contract."""

from .base import BoundsLikelihood, Decodes, Encodes, HasEnergy, Method, Reconstructs, Samples, Scores
from .bidvl import BiDVL
from .denoising_ebm import DenoisingEBM
from .dual_mcmc import DualMCMC
from .ebm import EBM
from .ecflow import ECFlow
from .ecvae import ECVAE
from .ecvae_posterior import CalibratedPosterior
from .flow import Flow
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
    "Decodes",
    "DualMCMC",
    "DenoisingEBM",
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
