"""Injectable networks: encoders, decoders and energies, plain modules built from an image shape."""

from ebmzoo.networks.dcgan import ConvDecoder, ConvEncoder, ConvEnergy
from ebmzoo.networks.dual_mcmc import DualMCMCEncoder, DualMCMCEnergy
from ebmzoo.networks.fastgan import FastGANDecoder
from ebmzoo.networks.gaussian_vae import GaussianVAE
from ebmzoo.networks.hierarchical_vae import HierarchicalVAE
from ebmzoo.networks.latent_vae import Latents, LatentVAE
from ebmzoo.networks.layers import ConvMeanPool
from ebmzoo.networks.mlp import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.networks.resnet_encoder import ResNetEncoder
from ebmzoo.networks.resnet_energy import MultiScaleResNetEnergy, VAEBMEnergy
from ebmzoo.networks.sngan import SNGANDecoder, SNGANEncoder, SNGANEnergy

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "ConvEnergy",
    "ConvMeanPool",
    "DualMCMCEncoder",
    "DualMCMCEnergy",
    "FastGANDecoder",
    "GaussianVAE",
    "HierarchicalVAE",
    "LatentVAE",
    "Latents",
    "MLPDecoder",
    "MLPEncoder",
    "MLPEnergy",
    "MultiScaleResNetEnergy",
    "ResNetEncoder",
    "SNGANDecoder",
    "SNGANEncoder",
    "SNGANEnergy",
    "VAEBMEnergy",
]
