"""Denoisers: EDM's preconditioning by known answers, the code, the U-Net's skips, and what the networks cannot take."""

from __future__ import annotations

import copy

import pytest
import torch

from ebmzoo.networks import MLPDenoiser, ResNetDecoder, UNetDenoiser
from ebmzoo.networks.denoisers import Denoiser

DENOISERS = {
    "unet": lambda: UNetDenoiser((1, 8, 8), 6, width=8, multipliers=(1, 2), blocks=1, sigma_data=0.7),
    "unet, deep": lambda: UNetDenoiser((3, 16, 8), 6, width=4, multipliers=(1, 2, 3), blocks=2),
    "unet, one level": lambda: UNetDenoiser((1, 4, 4), 6, width=4, multipliers=(1,), blocks=1),
    "mlp": lambda: MLPDenoiser((2,), 6, width=16, input_scale=3.0, sigma_data=2.8),
    "mlp, waves": lambda: MLPDenoiser((2,), 6, width=16, depth=1, input_scale=3.0, octaves=2, sigma_data=2.8),
}


@pytest.fixture(params=DENOISERS.values(), ids=DENOISERS)
def case(request):
    torch.manual_seed(0)
    network = request.param().double()
    return network, torch.randn(5, *network.image_shape).double(), torch.linspace(0.05, 2, 5).double()


class Raw(Denoiser):
    """F given as a function, which also sees what F is given."""

    def __init__(self, function, sigma_data):
        super().__init__((3,), 2, sigma_data)
        self.function = function

    def down(self, x, log_sigma):
        self.seen = x, log_sigma
        return [], x[:, :2]

    def up(self, features, z, log_sigma):
        return self.function(self.seen[0])


def test_without_its_network_it_is_the_posterior_mean_of_gaussian_data():
    """Data N(0, σ_d²): the best denoiser is σ_d²/(σ_d² + σ²)·x̃, its weighted error is one per dimension."""
    generator = torch.Generator().manual_seed(0)
    x = 0.7 * torch.randn(200_000, 3, generator=generator).double()
    noise = torch.randn(200_000, 3, generator=generator).double()
    for sigma in (0.01, 0.7, 4.0):
        denoiser = Raw(torch.zeros_like, 0.7)
        r, _ = denoiser(x + sigma * noise, torch.full((len(x),), sigma).double())
        torch.testing.assert_close(r, (x + sigma * noise) * 0.49 / (0.49 + sigma**2))
        weight = (sigma**2 + 0.49) / (sigma * 0.7) ** 2
        assert float(weight * (r - x).square().mean()) == pytest.approx(1, rel=0.01)
        assert float(denoiser.seen[0].var()) == pytest.approx(1, rel=0.01)  # and F's input has unit variance
        assert torch.equal(denoiser.seen[1], torch.full((len(x),), sigma).double().log())


def test_what_the_network_adds_is_scaled_by_c_out():
    x, sigma = torch.randn(4, 3).double(), torch.tensor([0.1, 0.5, 1.0, 3.0]).double()
    with_network, without = (Raw(f, 0.5)(x, sigma)[0] for f in (torch.cos, torch.zeros_like))
    total = (sigma**2 + 0.25).sqrt()[:, None]
    torch.testing.assert_close(with_network - without, 0.5 * sigma[:, None] / total * torch.cos(x / total))


def test_it_changes_nothing_without_noise(case):
    network, x, sigma = case
    torch.testing.assert_close(network(x, 0 * sigma + 1e-9)[0], x, rtol=1e-6, atol=1e-6)


def test_the_code_has_unit_scale_and_encode_gives_it_alone(case):
    network, x, sigma = case
    z = network(x, sigma)[1]
    torch.testing.assert_close(z.square().sum(1), torch.full((5,), 6.0).double(), rtol=1e-2, atol=0)
    assert torch.equal(network.encode(x, sigma), z)


def test_code_skips_and_level_all_reach_the_output(case):
    network, x, sigma = case
    features, code = network.down(x, sigma.log())
    z = network._unit(code)
    out = network.up(features, z, sigma.log())
    assert out.shape == x.shape
    assert (network.up(features, z.flip(0), sigma.log()) - out).abs().max() > 1e-3
    others, _ = network.down(x, sigma.flip(0).log())
    assert (network.up(others, z, sigma.flip(0).log()) - out)[:2].abs().max() > 1e-3
    for index in range(len(features)):
        other = [feature.flip(0) if k == index else feature for k, feature in enumerate(features)]
        assert (network.up(other, z, sigma.log()) - out).abs().max() > 1e-4


def test_examples_do_not_meet_and_parameters_learn(case):
    network, x, sigma = case
    r, z = network(x, sigma)
    alone = network(x[2:3], sigma[2:3])
    torch.testing.assert_close(alone[0], r[2:3], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(alone[1], z[2:3], rtol=1e-10, atol=1e-12)
    (r.square().sum() + (z * torch.randn_like(z)).sum()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not silent


def test_the_jacobian_is_the_difference_quotient(case):
    network, x, sigma = case
    direction, weight = torch.randn_like(x), torch.randn_like(x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((network(leaf, sigma)[0] * weight).sum(), leaf)
    with torch.no_grad():
        ahead, behind = (network(x + h * direction, sigma)[0] for h in (1e-6, -1e-6))
    slope = ((ahead - behind) * weight).flatten(1).sum(1) / 2e-6
    torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-7)


def test_a_copy_is_equal_and_meta_has_the_same_shapes(case):
    network, x, sigma = case
    assert torch.equal(copy.deepcopy(network)(x, sigma)[0], network(x, sigma)[0])
    for build in DENOISERS.values():
        with torch.device("meta"):
            ghost = build()
        assert [p.shape for p in ghost.parameters()] == [p.shape for p in build().parameters()]


def test_waves_are_sines_and_cosines_of_doubled_inputs():
    network, x = MLPDenoiser((2,), 6, width=16, input_scale=3.0, octaves=2), torch.randn(5, 2)
    ((inputs,), _) = network.down(x, torch.zeros(5))
    expected = torch.cat([3 * x, (3 * x).sin(), (3 * x).cos(), (6 * x).sin(), (6 * x).cos()], 1)
    torch.testing.assert_close(inputs[:, :10], expected)
    assert inputs.shape == (5, 26)  # and 16 that tell the level


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNetDenoiser((3, 36, 32), 4), r"H and W multiples of 8 .*got \(3, 36, 32\)"),
        (lambda: UNetDenoiser((2,), 4), r"takes images \(C, H, W\)"),
        (lambda: UNetDenoiser((1, 8, 8), 4, width=10), "groups of 4 channels: 10 is no multiple"),
        (lambda: ResNetDecoder((1, 6, 6), 4), r"ResNetDecoder takes images .*got \(1, 6, 6\)"),
        (lambda: MLPDenoiser((2,), 4)(torch.zeros(3, 5), torch.ones(3)), r"was built for \(B, 2\), got \(3, 5\)"),
    ],
)
def test_what_they_cannot_take_is_one_clear_line(build, message):
    with pytest.raises(ValueError, match=message):
        build()
