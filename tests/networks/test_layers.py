"""Pieces shared by networks: the folded convolution and weight normalisation."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from ebmzoo.networks import ConvMeanPool, DualMCMCEnergy, MultiScaleResNetEnergy, SNGANDecoder, VAEBMEnergy
from ebmzoo.networks.layers import doubled, doubled_by_products, is_set, order_for_gpu, spectral_norms, weight_norm
from ebmzoo.networks.nvae_cells import conv, plain
from ebmzoo.report.dispatches import Dispatches


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 9)])
def test_conv_mean_pool_is_convolution_then_mean_pooling(dtype, tolerance, kernel_size, size):
    torch.manual_seed(0)
    layer = ConvMeanPool(3, 5, kernel_size).to(dtype)
    plain = nn.Conv2d(3, 5, kernel_size, padding=kernel_size // 2).to(dtype)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, *size, dtype=dtype, requires_grad=True)
    folded, expected = layer(x), F.avg_pool2d(plain(x), 2)
    assert folded.shape == expected.shape
    assert (folded - expected).abs().max() < tolerance
    towards = torch.randn_like(expected)
    grads = torch.autograd.grad(folded, [x, *layer.parameters()], towards)
    wanted = torch.autograd.grad(expected, [x, *plain.parameters()], towards)
    for grad, want in zip(grads, wanted, strict=True):
        assert (grad - want).abs().max() < 20 * tolerance


def test_conv_mean_pool_keeps_the_original_kernel_in_its_state_dict():
    layer = ConvMeanPool(3, 5)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "weight": (5, 3, 3, 3),
        "bias": (5,),
    }
    parametrizations.spectral_norm(layer)
    assert layer.state_dict()["parametrizations.weight.original"].shape == (5, 3, 3, 3)


def test_conv_mean_pool_needs_fewer_products():
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(1, 64, 32, 32)
    flops = {}
    for name, layer in {"folded": ConvMeanPool(64, 64), "plain": nn.Conv2d(64, 64, 3, padding=1)}.items():
        with FlopCounterMode(display=False) as counter:
            layer(x)
        flops[name] = counter.get_flop_counts()["Global"]
    assert {op.__name__: n for op, n in flops["plain"].items()} == {"convolution": 2 * 64 * 64 * 9 * 1024}
    by_name = {op.__name__: n for op, n in flops["folded"].items()}
    assert by_name["convolution"] == 2 * 64 * 64 * 16 * 256


def test_weight_norm_starts_from_the_weight_and_is_blind_to_the_scale_of_v():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3).double()
    before = conv.weight.detach().clone()
    norm = weight_norm(conv)
    torch.testing.assert_close(conv.weight, before, rtol=1e-14, atol=0)
    with torch.no_grad():
        conv.parametrizations.weight.original.mul_(7)
        norm.log_gain.fill_(0.5)
    lengths = conv.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.5).exp(), rtol=1e-14, atol=0)
    direction = before / before.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(conv.weight / lengths.view(-1, 1, 1, 1), direction, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("bias", [True, False])
def test_fit_gives_the_output_its_deviation_and_mean(bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, 3, padding=1, bias=bias).double()
    norm = weight_norm(conv)
    x = 1 + 2 * torch.randn(8, 3, 8, 8, dtype=torch.float64)
    y = conv(x).detach()
    norm.fit(conv, x)
    std = conv(x).std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(std, torch.full_like(std, 0.2), rtol=1e-12, atol=0)
    mean = conv(x).mean(dim=(0, 2, 3))
    # A filter without bias is scaled only, so mean over deviation stays what it was.
    kept = 0.2 * y.mean(dim=(0, 2, 3)) / y.std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean) if bias else kept, rtol=1e-10, atol=1e-14)


def test_fit_on_a_constant_input_stays_finite():
    conv = nn.Conv2d(3, 6, 1).double()
    norm = weight_norm(conv)
    norm.fit(conv, torch.ones(4, 3, 8, 8, dtype=torch.float64))
    assert conv.weight.isfinite().all()
    assert conv.weight.abs().max() < 1e4


def test_spectral_norms_of_many_kernels_and_their_gradient():
    torch.manual_seed(0)
    shapes = [(6, 4, 3), (6, 4, 3), (5, 2, 1)]
    layers = [conv(inputs, outputs, size).double() for outputs, inputs, size in shapes]
    layers.append(plain(8, 8, 5, groups=8).double())
    free = [layer.parametrizations.weight.original if i < 3 else layer.weight for i, layer in enumerate(layers)]
    with torch.no_grad():  # one large singular value each, so that few iterations find it
        for weight in free:
            weight.add_(torch.outer(torch.randn(len(weight)), torch.randn(weight[0].numel())).view_as(weight), alpha=2)
    for _ in range(30):
        norms = spectral_norms(layers, 4, move=True)
    exact = torch.stack([torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in layers])
    torch.testing.assert_close(norms, exact, rtol=1e-10, atol=0)
    expected = torch.autograd.grad((exact**2).sum(), free)
    for actual, gradient in zip(torch.autograd.grad((norms**2).sum(), free), expected, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=1e-8, atol=1e-10)


def test_spectral_norm_moves_its_vector_only_when_asked():
    conv = nn.Conv2d(3, 6, 3)
    norm = weight_norm(conv)
    before = copy.deepcopy(norm.u)
    spectral_norms([conv], iterations=4, move=False)
    assert torch.equal(norm.u, before)
    spectral_norms([conv], iterations=4, move=True)
    assert not torch.equal(norm.u, before)
    assert norm.u.norm().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_doubling_by_products_is_torchs_in_its_own_order(align_corners, order):
    x = torch.randn(3, 4, 4, 8, dtype=torch.float64).to(memory_format=order).requires_grad_(True)
    ours, torchs = doubled_by_products(x, align_corners), doubled(x, align_corners)
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)
    assert ours.is_contiguous(memory_format=order)
    upwards = torch.randn_like(ours)
    for one, other in zip(torch.autograd.grad(ours, x, upwards), torch.autograd.grad(torchs, x, upwards), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_flag_is_asked_again_only_after_a_change():
    flag = torch.tensor(False)
    assert not is_set(flag) and is_set(flag.fill_(True)) and is_set(flag)
    with Dispatches() as counted:
        assert is_set(flag)
    assert not counted.found.operations
    assert not is_set(flag.fill_(False))


@pytest.mark.parametrize("kind", [VAEBMEnergy, MultiScaleResNetEnergy, SNGANDecoder, DualMCMCEnergy])
def test_an_order_for_gpus_changes_no_value(kind):
    torch.manual_seed(0)
    net = kind((3, 32, 32), 4, width=4) if kind is SNGANDecoder else kind((3, 32, 32), width=4)
    x = torch.randn(2, *((4,) if kind is SNGANDecoder else (3, 32, 32)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        plain = net.eval()(x)
        order_for_gpu(net)
        torch.testing.assert_close(net(x), plain, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    kernels = [value for value in net.parameters() if value.dim() == 4]
    assert kernels and all(value.is_contiguous(memory_format=torch.channels_last) for value in kernels)
