"""Injectable networks: encoders, decoders and energies, plain modules built from an image shape."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .dcgan import ConvDecoder as ConvDecoder
    from .dcgan import ConvEncoder as ConvEncoder
    from .dcgan import ConvEnergy as ConvEnergy
    from .denoisers import Denoiser as Denoiser
    from .denoisers import MLPDenoiser as MLPDenoiser
    from .denoisers import ResNetDecoder as ResNetDecoder
    from .denoisers import UNetDenoiser as UNetDenoiser
    from .dual_mcmc import DualMCMCEncoder as DualMCMCEncoder
    from .dual_mcmc import DualMCMCEnergy as DualMCMCEnergy
    from .fastgan import FastGANDecoder as FastGANDecoder
    from .flow import FlowPrior as FlowPrior
    from .flow import Glow as Glow
    from .layers import ConvMeanPool as ConvMeanPool
    from .mlp import MLPDecoder as MLPDecoder
    from .mlp import MLPEncoder as MLPEncoder
    from .mlp import MLPEnergy as MLPEnergy
    from .perceptual import LPIPS as LPIPS
    from .perceptual import RandomFeatures as RandomFeatures
    from .resnet_encoder import ResNetEncoder as ResNetEncoder
    from .resnet_energy import MultiScaleResNetEnergy as MultiScaleResNetEnergy
    from .resnet_energy import VAEBMEnergy as VAEBMEnergy
    from .sngan import SNGANDecoder as SNGANDecoder
    from .sngan import SNGANEncoder as SNGANEncoder
    from .sngan import SNGANEnergy as SNGANEnergy
else:
    attach(__name__)
