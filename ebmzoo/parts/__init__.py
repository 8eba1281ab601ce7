"""What methods are made of: energies, VAEs, flows, calibration. Modules of their own, which know no method."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .calibration import Calibration as Calibration
    from .calibration import Dual as Dual
    from .energy import Energy as Energy
    from .flow import ImageFlow as ImageFlow
    from .gaussian_vae import GaussianVAE as GaussianVAE
    from .hierarchical_vae import HierarchicalVAE as HierarchicalVAE
    from .latent_vae import Bound as Bound
    from .latent_vae import Latents as Latents
    from .latent_vae import LatentVAE as LatentVAE
    from .pairs import Pairs as Pairs
    from .posterior import CalibratedPosterior as CalibratedPosterior
    from .potentials import Joint as Joint
    from .potentials import Posterior as Posterior
    from .spaces import InData as InData
    from .spaces import InNoise as InNoise
    from .spaces import InX as InX
    from .textures import Semantic as Semantic
    from .textures import Texture as Texture
    from .textures import chain_std as chain_std
else:
    attach(__name__)
