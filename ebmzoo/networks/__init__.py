"""Injectable networks: encoders, decoders and energies, plain modules built from an image shape."""

from ebmzoo.networks.dcgan import ConvDecoder, ConvEncoder, ConvEnergy
from ebmzoo.networks.denoisers import Denoiser, MLPDenoiser, ResNetDecoder, UNetDenoiser
from ebmzoo.networks.dual_mcmc import DualMCMCEncoder, DualMCMCEnergy
from ebmzoo.networks.fastgan import FastGANDecoder
from ebmzoo.networks.flow import FlowPrior, Glow
from ebmzoo.networks.layers import ConvMeanPool
from ebmzoo.networks.mlp import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.networks.perceptual import LPIPS, RandomFeatures
from ebmzoo.networks.resnet_encoder import ResNetEncoder
from ebmzoo.networks.resnet_energy import MultiScaleResNetEnergy, VAEBMEnergy
from ebmzoo.networks.sngan import SNGANDecoder, SNGANEncoder, SNGANEnergy

__all__ = [
    "LPIPS",
    "ConvDecoder",
    "ConvEncoder",
    "ConvEnergy",
    "ConvMeanPool",
    "Denoiser",
    "DualMCMCEncoder",
    "DualMCMCEnergy",
    "FastGANDecoder",
    "FlowPrior",
    "Glow",
    "MLPDecoder",
    "MLPDenoiser",
    "MLPEncoder",
    "MLPEnergy",
    "MultiScaleResNetEnergy",
    "ResNetDecoder",
    "RandomFeatures",
    "ResNetEncoder",
    "SNGANDecoder",
    "SNGANEncoder",
    "SNGANEnergy",
    "UNetDenoiser",
    "VAEBMEnergy",
]
