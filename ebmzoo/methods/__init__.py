"""The shelf: one method per file, all through one contract."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .base import BoundsLikelihood as BoundsLikelihood
    from .base import Decodes as Decodes
    from .base import Encodes as Encodes
    from .base import HasEnergy as HasEnergy
    from .base import Method as Method
    from .base import Reconstructs as Reconstructs
    from .base import Samples as Samples
    from .base import Scores as Scores
    from .bidvl import BiDVL as BiDVL
    from .denoising_ebm import DenoisingEBM as DenoisingEBM
    from .dual_mcmc import DualMCMC as DualMCMC
    from .ebm import EBM as EBM
    from .ecflow import ECFlow as ECFlow
    from .ecvae import ECVAE as ECVAE
    from .ecvae_posterior import CalibratedPosterior as CalibratedPosterior
    from .flow import Flow as Flow
    from .gan import GAN as GAN
    from .vae import VAE as VAE
    from .vaebm import VAEBM as VAEBM
    from .wgan import WGAN as WGAN
else:
    attach(__name__)
