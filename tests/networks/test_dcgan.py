"""BiDVL's convolutional networks against their layer lists, written out with plain functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ebmzoo.networks import ConvDecoder, ConvEncoder, ConvEnergy

from .plain import images, moved

CONVOLUTIONS = nn.Conv2d | nn.ConvTranspose2d


def layers(network: nn.Module, kind: type) -> list:
    return [layer for layer in network.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize(("size", "widths"), [(8, [3, 6]), (32, [3, 6, 12, 24])])
def test_conv_encoder_is_its_layer_list(size, widths):
    torch.manual_seed(0)
    x = images(size)
    encoder = moved(ConvEncoder((3, size, size), 5, width=3), x)
    convs, norms = layers(encoder.body, nn.Conv2d), layers(encoder.body, nn.BatchNorm2d)
    assert [conv.out_channels for conv in convs] == widths
    h = x
    for index, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        assert conv.weight.shape[-1] == (4 if index else 3) and conv.bias is None
        h = F.leaky_relu(norm(F.conv2d(h, conv.weight, stride=2 if index else 1, padding=1)), 0.2)
    assert h.shape == (4, widths[-1], 4, 4)
    for head, part in zip((encoder.mean, encoder.log_variance), encoder(x), strict=True):
        expected = torch.einsum("bcij,ocij->bo", h, head.weight) + head.bias
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("size", "widths"), [(8, [6, 6]), (32, [24, 24, 12, 6])])
def test_conv_decoder_is_its_layer_list(size, widths):
    torch.manual_seed(0)
    z = torch.randn(4, 5, dtype=torch.float64)
    decoder = moved(ConvDecoder((3, size, size), 5, width=3), z)
    *convs, last = layers(decoder, nn.ConvTranspose2d)
    assert [conv.out_channels for conv in convs] == widths
    h = z[:, :, None, None]
    for index, (conv, norm) in enumerate(zip(convs, layers(decoder, nn.BatchNorm2d), strict=True)):
        stride, padding = (2, 1) if index else (1, 0)
        assert conv.weight.shape[-1] == 4 and conv.bias is None
        h = torch.relu(norm(F.conv_transpose2d(h, conv.weight, stride=stride, padding=padding)))
    expected = torch.tanh(F.conv_transpose2d(h, last.weight, last.bias, padding=1))
    assert expected.shape == (4, 3, size, size)
    torch.testing.assert_close(decoder(z), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("output", ["softplus", "linear"])
@pytest.mark.parametrize(
    ("size", "rows"),
    [
        (8, [(3, 3, 1), (3, 4, 2), (6, 3, 1), (6, 4, 0), (6, 1, 0), (1, 1, 0)]),
        (32, [(3, 3, 1), (3, 4, 2), (6, 3, 1), (6, 4, 2), (12, 3, 1), (12, 4, 2), (24, 3, 1), (24, 4, 0)]
            + [(24, 1, 0), (1, 1, 0)]),
    ],
)  # fmt: skip
def test_conv_energy_is_its_layer_list(size, rows, output):
    """Rows: channels, kernel, and stride with a padding of 1, or 0 for none of either."""
    torch.manual_seed(0)
    x = images(size)
    energy = moved(ConvEnergy((3, size, size), width=3, output=output), x)
    h = x
    for index, (conv, (width, kernel, stride)) in enumerate(zip(layers(energy, nn.Conv2d), rows, strict=True)):
        assert conv.weight.shape[0] == width and conv.weight.shape[-1] == kernel
        h = F.leaky_relu(h, 0.1) if index else h
        h = F.conv2d(h, conv.weight, conv.bias, stride=stride or 1, padding=1 if stride else 0)
    expected = h.flatten()
    if output == "softplus":
        expected = torch.log1p(torch.exp(expected))
    torch.testing.assert_close(energy(x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [ConvEncoder, ConvDecoder, ConvEnergy])
def test_convolutional_networks_start_from_small_normal_weights(kind):
    torch.manual_seed(0)
    network = kind((3, 16, 16), width=32) if kind is ConvEnergy else kind((3, 16, 16), 16, width=32)
    found = layers(network, CONVOLUTIONS)
    assert len(found) >= 4
    for layer in found:
        weight = layer.parametrizations.weight.original if kind is ConvEnergy else layer.weight
        tolerance = 0.1 if weight.numel() > 500 else 0.4
        assert weight.std().item() == pytest.approx(0.02, rel=tolerance)
        assert layer.bias is None or not layer.bias.any()
