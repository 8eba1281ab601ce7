"""Parameter counts of the published networks, written out or as published, and what their maps look like."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ebmzoo.networks import (
    ConvDecoder,
    ConvEncoder,
    ConvEnergy,
    DualMCMCEncoder,
    DualMCMCEnergy,
    FastGANDecoder,
    MultiScaleResNetEnergy,
    ResNetEncoder,
    SNGANDecoder,
    SNGANEncoder,
    SNGANEnergy,
    VAEBMEnergy,
)


def millions(network: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1)


@pytest.mark.parametrize(("size", "width", "count"), [(32, 64, 32.5), (256, 64, 24.9), (32, 16, 2.8)])
def test_decoder(size, width, count):
    assert millions(FastGANDecoder((3, size, size), 128, width=width)) == count


@pytest.mark.parametrize("size", [32, 64])
def test_encoder(size):
    with torch.device("meta"):
        assert millions(ResNetEncoder((3, size, size), 128)) == 44.9


def test_multi_scale_energy():
    assert millions(MultiScaleResNetEnergy((3, 32, 32))) == 23.8
    single = MultiScaleResNetEnergy((3, 32, 32), width=256, multipliers=(1, 1, 2, 2), blocks=1, scales=1)
    assert millions(single) == 11.8


@pytest.mark.parametrize(("column", "size", "count"), [("cifar10", 32, 5.1), ("celeba64", 64, 4.3)])
def test_vaebm_energy(column, size, count):
    with torch.device("meta"):
        assert millions(VAEBMEnergy((3, size, size), column)) == count


@pytest.mark.parametrize(("size", "counts"), [(32, (2.8, 4.5, 7.4)), (64, (8.7, 16.9, 29.7))])
def test_convolutional_networks_of_bidvl(size, counts):
    shape = (3, size, size)
    with torch.device("meta"):
        networks = ConvEncoder(shape, 100), ConvDecoder(shape, 100), ConvEnergy(shape)
    assert tuple(map(millions, networks)) == counts


def test_residual_networks_of_bidvl():
    shape = (3, 32, 32)
    with torch.device("meta"):
        networks = SNGANEncoder(shape, 128), SNGANDecoder(shape, 128), SNGANEnergy(shape)
    assert tuple(map(millions, networks)) == (1.1, 4.3, 1.1)


def test_simple_networks_of_dual_mcmc():
    """Table 9: generator 8M, inference 5M, energy 2M."""
    shape = (3, 32, 32)
    with torch.device("meta"):
        networks = ConvDecoder(shape, 128, width=64), ConvEncoder(shape, 128, width=64), ConvEnergy(shape, width=32)
    assert [round(millions(network)) for network in networks] == [8, 5, 2]


@pytest.mark.parametrize(("size", "counts"), [(32, (16.0, 15.2, 16.8)), (64, (12.2, 15.2, 19.5))])
def test_residual_networks_of_dual_mcmc(size, counts):
    """Table 9 at 32 px: generator 16M, inference 15M, energy 16M; the released code's at 64 px."""
    shape = (3, size, size)
    with torch.device("meta"):
        generator = SNGANDecoder(shape, 128, width=512 if size == 32 else None)
        networks = generator, DualMCMCEncoder(shape, 128), DualMCMCEnergy(shape)
    assert tuple(map(millions, networks)) == counts


@pytest.mark.parametrize(("nef", "count"), [(256, 4.2), (512, 16.8), (1024, 67.1)])
def test_energies_of_table_7(nef, count):
    with torch.device("meta"):
        assert millions(DualMCMCEnergy((3, 32, 32), width=nef)) == count


TABLE = {
    # Table 7, one token a block: its width, marked where it halves; in brackets the code's two extra blocks.
    "cifar10": (32, 128, "128d 128 256d 256 256d 256"),
    "celeba64": (64, 64, "64d (64) 128d 128 128d 256 256d 256"),
    "lsun64": (64, 64, "64d 64 128d 128 128 128d 256 256 256d 256"),
    "celebahq256": (256, 64, "64d 64 128d (128) 128d 128 256d 256 256d 256 512d 512"),
}


@pytest.mark.parametrize("column", TABLE)
def test_vaebm_energy_is_table_7_block_by_block(column):
    size, stem, rows = TABLE[column]
    with torch.device("meta"):
        energy = VAEBMEnergy((3, size, size), column)
        h = energy.stem(torch.empty(2, 3, size, size))
        assert h.shape == (2, stem, size, size)
        for block, row in zip(energy.blocks, rows.split(), strict=True):
            width, down = int(row.strip("(d)")), row.endswith("d")
            assert (block.skip.__class__ is nn.Identity) == (not down and width == h.shape[1])
            size = size // 2 if down else size
            h = block(h)
            assert h.shape == (2, width, size, size)
    assert size == 4
    assert energy.linear.in_features == h.shape[1]


def test_decoder_maps_follow_the_width_tables():
    def maps(size: int) -> dict[int, int]:
        decoder = FastGANDecoder((3, size, size), 4, width=2).eval()
        h = decoder.first(torch.zeros(1, 4, 1, 1))
        found = {h.shape[2]: h.shape[1]}
        for block in decoder.blocks.values():
            h = block(h)
            found[h.shape[2]] = h.shape[1]
        return found

    assert maps(16) == {4: 32, 8: 16, 16: 16}
    assert maps(32) == {4: 32, 8: 16, 16: 16, 32: 16}
    assert maps(64) == {4: 32, 8: 16, 16: 16, 32: 16, 64: 16}
    assert maps(256) == {4: 32, 8: 16, 16: 8, 32: 4, 64: 4, 128: 2, 256: 1}
