"""EC-VAE's decoder against its layer list, written out with plain functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks import (
    FastGANDecoder,
)

from .plain import same


def reference_decoder(decoder: FastGANDecoder, z: Tensor) -> Tensor:
    def gated(conv: nn.Module, norm: nn.Module, h: Tensor) -> Tensor:
        signal, gate = norm(same(conv, h)).chunk(2, dim=1)
        return signal * torch.sigmoid(gate)

    conv, norm, _ = decoder.first
    signal, gate = norm(F.conv_transpose2d(z[:, :, None, None], conv.weight)).chunk(2, dim=1)
    maps = {4: signal * torch.sigmoid(gate)}
    side, composite = 4, True
    for block in decoder.blocks.values():
        h = maps[side].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        h = gated(block[1], block[2], h)
        if composite:
            h = gated(block[4], block[5], h)
        side, composite = 2 * side, not composite
        if decoder.image_shape[1] > 64 and side in (64, 128, 256):
            _, squeeze, _, open_, _ = decoder.excitations[str(side)]
            small = maps[{64: 4, 128: 8, 256: 16}[side]]
            small = small.unflatten(2, (4, -1)).unflatten(4, (4, -1)).mean(dim=(3, 5))
            g = F.silu(torch.einsum("bcij,ocij->bo", small, squeeze.weight))
            h = h * torch.sigmoid(g @ open_.weight[:, :, 0, 0].T)[:, :, None, None]
        maps[side] = h
    return torch.tanh(torch.einsum("bchw,oc->bohw", h, decoder.last[0].weight[:, :, 0, 0]))


@pytest.mark.parametrize("size", [8, 32, 64, 256])
def test_decoder_is_its_layer_list(size):
    torch.manual_seed(0)
    decoder = FastGANDecoder((3, size, size), 7, width=2).double()
    z = torch.randn(3, 7, dtype=torch.float64)
    decoder(z)  # moves BatchNorm's statistics away from their start
    decoder.eval()
    torch.testing.assert_close(decoder(z), reference_decoder(decoder, z), rtol=1e-10, atol=1e-13)
    assert len(decoder.excitations) == (3 if size == 256 else 0)


def test_no_convolution_of_the_decoder_has_a_bias():
    decoder = FastGANDecoder((3, 128, 128), 7, width=2)
    convs = [m for m in decoder.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    # One transposed, five blocks of which three are composite, two excitations of two, one last.
    assert len(convs) == 1 + 5 + 3 + 4 + 1
    assert all(conv.bias is None for conv in convs)
