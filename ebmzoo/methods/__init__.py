"""The shelf: one method per file, all through one contract."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .base import Method as Method
    from .bidvl import BiDVL as BiDVL
    from .capabilities import BoundsLikelihood as BoundsLikelihood
    from .capabilities import Decodes as Decodes
    from .capabilities import Encodes as Encodes
    from .capabilities import HasEnergy as HasEnergy
    from .capabilities import Reconstructs as Reconstructs
    from .capabilities import Samples as Samples
    from .capabilities import Scores as Scores
    from .cooperative import CooperativeVAE as CooperativeVAE
    from .denoising_ebm import DenoisingEBM as DenoisingEBM
    from .dual_mcmc import DualMCMC as DualMCMC
    from .ebm import EBM as EBM
    from .ecflow import ECFlow as ECFlow
    from .ecvae import ECVAE as ECVAE
    from .flow import Flow as Flow
    from .gan import GAN as GAN
    from .vae import VAE as VAE
    from .vaebm import VAEBM as VAEBM
    from .wgan import WGAN as WGAN
else:
    attach(__name__)
