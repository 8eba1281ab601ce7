"""What methods are made of: energies, VAEs, flows, calibration. Modules of their own, which know no method."""

from .calibration import Calibration, Dual
from .energy import Energy
from .flow import ImageFlow
from .gaussian_vae import GaussianVAE
from .hierarchical_vae import HierarchicalVAE
from .latent_vae import Bound, Latents, LatentVAE
from .pairs import Pairs
from .posterior import CalibratedPosterior
from .potentials import Joint, Posterior
from .spaces import InData, InNoise, InX
from .textures import Semantic, Texture

__all__ = [
    "Bound",
    "CalibratedPosterior",
    "Calibration",
    "Dual",
    "Energy",
    "GaussianVAE",
    "HierarchicalVAE",
    "ImageFlow",
    "InData",
    "InNoise",
    "InX",
    "Joint",
    "LatentVAE",
    "Latents",
    "Pairs",
    "Posterior",
    "Semantic",
    "Texture",
]
