"""The residual networks after SNGAN against their layer lists, written out with plain functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmzoo.networks import SNGANDecoder, SNGANEncoder, SNGANEnergy

from .plain import images, moved, same


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
