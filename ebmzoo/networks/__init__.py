"""Injectable networks: encoders, decoders and energies, plain modules built from an image shape."""

from ebmzoo.networks.fastgan import FastGANDecoder
from ebmzoo.networks.layers import ConvMeanPool
from ebmzoo.networks.mlp import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.networks.resnet_encoder import ResNetEncoder
from ebmzoo.networks.resnet_energy import MultiScaleResNetEnergy, VAEBMEnergy

__all__ = [
    "ConvMeanPool",
    "FastGANDecoder",
    "MLPDecoder",
    "MLPEncoder",
    "MLPEnergy",
    "MultiScaleResNetEnergy",
    "ResNetEncoder",
    "VAEBMEnergy",
]
