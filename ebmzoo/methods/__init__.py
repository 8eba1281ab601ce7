"""The shelf: one method per file, all through one contract."""

from .base import Method
from .bidvl import BiDVL
from .capabilities import BoundsLikelihood, Decodes, Encodes, HasEnergy, Reconstructs, Samples, Scores
from .cooperative import CooperativeVAE
from .denoising_ebm import DenoisingEBM
from .dual_mcmc import DualMCMC
from .ebm import EBM
from .ecflow import ECFlow
from .ecvae import ECVAE
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
    "CooperativeVAE",
    "DualMCMC",
    "DenoisingEBM",
    "ECFlow",
    "Encodes",
    "Flow",
    "HasEnergy",
    "Method",
    "Reconstructs",
    "Samples",
    "Scores",
]
