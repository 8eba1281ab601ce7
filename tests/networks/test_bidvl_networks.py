"""BiDVL's convolutional and residual networks against their layer lists, written out with plain functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks import ConvDecoder, ConvEncoder, ConvEnergy, SNGANDecoder, SNGANEncoder, SNGANEnergy

CONVOLUTIONS = nn.Conv2d | nn.ConvTranspose2d


def images(size: int) -> Tensor:
    return torch.randn(4, 3, size, size, dtype=torch.float64)


def moved(network: nn.Module, x: Tensor) -> nn.Module:
    """The network in float64 and eval mode, its statistics and spectral vectors moved from their start."""
    network = network.double()
    for _ in range(3):
        network(x)
    return network.eval()


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


def same(conv: nn.Conv2d, h: Tensor) -> Tensor:
    return F.conv2d(h, conv.weight, conv.bias, padding=conv.weight.shape[-1] // 2)


def sngan_features(blocks: nn.Sequential, x: Tensor, plan: list[tuple[int, bool]]) -> Tensor:
    h = x
    for index, (block, (width, down)) in enumerate(zip(blocks, plan, strict=True)):
        branch = same(block.conv1, torch.relu(h) if index else h)
        branch = same(block.conv2, torch.relu(branch))
        skip = h if isinstance(block.skip, nn.Identity) else same(block.skip, h)
        assert isinstance(block.skip, nn.Identity) == (not down)
        h = branch + skip
        h = F.avg_pool2d(h, 2) if down else h
        assert h.shape[1] == width
    return torch.relu(h).sum(dim=(2, 3))


@pytest.mark.parametrize(
    ("size", "width", "plan"),
    [
        (16, 4, [(4, True), (4, True), (4, False), (4, False)]),
        (64, 1, [(1, True), (2, True), (4, True), (8, True), (8, False)]),
        (256, 1, [(1, True), (2, True), (4, True), (8, True), (16, True), (16, True), (16, False)]),
    ],
)
def test_sngan_encoder_and_energy_are_their_layer_lists(size, width, plan):
    torch.manual_seed(0)
    x = images(size)
    encoder = moved(SNGANEncoder((3, size, size), 5, width), x)
    energy = moved(SNGANEnergy((3, size, size), width), x)
    features = sngan_features(energy.features.blocks, x, plan)
    expected = features @ energy.linear.weight[0] + energy.linear.bias
    torch.testing.assert_close(energy(x), expected, rtol=1e-10, atol=1e-12)
    features = sngan_features(encoder.features.blocks, x, plan)
    mean, log_variance = encoder(x)
    expected = features @ encoder.mean.weight.T + encoder.mean.bias
    torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-12)
    raw = features @ encoder.log_variance.weight.T + encoder.log_variance.bias
    torch.testing.assert_close(log_variance, -torch.log1p(raw.exp()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "width", "widths"), [(8, 3, [3, 3]), (32, 2, [2] * 4), (128, 1, [16, 16, 8, 4, 2, 1])]
)
def test_sngan_decoder_is_its_layer_list(size, width, widths):
    torch.manual_seed(0)
    z = torch.randn(4, 5, dtype=torch.float64)
    decoder = moved(SNGANDecoder((3, size, size), 5, width), z)

    def double(h: Tensor) -> Tensor:
        return F.interpolate(h, size=[2 * side for side in h.shape[2:]], mode="bilinear", align_corners=False)

    h = (z @ decoder.linear.weight.T + decoder.linear.bias).reshape(4, widths[0], 4, 4)
    for block, outputs in zip(decoder.blocks, widths[1:], strict=True):
        branch = same(block.conv1, double(torch.relu(block.norm1(h))))
        branch = same(block.conv2, torch.relu(block.norm2(branch)))
        h = branch + same(block.skip, double(h))
        assert h.shape[1] == outputs
    norm, _, last, _ = decoder.last
    expected = torch.tanh(same(last, torch.relu(norm(h))))
    assert expected.shape == (4, 3, size, size)
    torch.testing.assert_close(decoder(z), expected, rtol=1e-10, atol=1e-12)


def test_log_variance_of_the_residual_encoder_is_never_positive():
    torch.manual_seed(0)
    encoder = SNGANEncoder((3, 16, 16), 5, width=4)
    assert (encoder(100 * torch.randn(8, 3, 16, 16))[1] <= 0).all()


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


@pytest.mark.parametrize("kind", [SNGANEncoder, SNGANDecoder, SNGANEnergy])
def test_residual_networks_start_from_xavier(kind):
    torch.manual_seed(0)
    network = kind((3, 16, 16)) if kind is SNGANEnergy else kind((3, 16, 16), 16)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            normed = kind is not SNGANDecoder
            weight = layer.parametrizations.weight.original if normed else layer.weight
            field = weight[0, 0].numel()
            gain = 2**0.5 if name.endswith(("conv1", "conv2")) else 1.0
            bound = gain * (6 / (field * (weight.shape[0] + weight.shape[1]))) ** 0.5
            assert weight.abs().max().item() == pytest.approx(bound, rel=0.02)
            assert not layer.bias.any()
