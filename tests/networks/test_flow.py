"""Flows are invertible, and their log-determinants are those of autograd's Jacobian, in float64."""

import math

import pytest
import torch
from torch.distributions import Normal

from ebmzoo.networks import FlowPrior, Glow

SHAPE = (2, 4, 4)


def disturbed(flow):
    """Away from the start, where couplings are constant: every parameter moved, in float64."""
    flow = flow.double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return flow


def glow():
    torch.manual_seed(0)
    return disturbed(Glow(SHAPE, levels=2, steps=2, width=5)), SHAPE


def prior():
    torch.manual_seed(0)
    return disturbed(FlowPrior(5, steps=3, width=6)), (5,)


@pytest.fixture(params=[glow, prior], ids=["glow", "prior"])
def flow(request):
    return request.param()


def test_the_map_is_its_inverse(flow):
    flow, shape = flow
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    noise, _ = flow(x)
    assert noise.shape == (3, math.prod(shape)) and not torch.allclose(noise, x.flatten(1), atol=0.1)
    torch.testing.assert_close(flow.sample(noise), x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(flow(flow.sample(x.flatten(1)))[0], x.flatten(1), rtol=1e-9, atol=1e-9)


def test_the_log_determinant_is_that_of_the_jacobian(flow):
    flow, shape = flow
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    noise, log_det = flow(x)
    for index in range(2):
        jacobian = torch.autograd.functional.jacobian(lambda one: flow(one[None])[0][0], x[index])
        exact = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet
        torch.testing.assert_close(log_det[index], exact, rtol=1e-10, atol=1e-10)
    expected = Normal(0.0, 1.0).log_prob(noise).sum(1) + log_det
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.thorough
def test_a_2d_prior_integrates_to_one():
    torch.manual_seed(0)
    flow = disturbed(FlowPrior(2, steps=3, width=6))
    axis = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


def test_gradients_reach_every_parameter_in_both_directions(flow):
    flow, shape = flow
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for loss in (flow.log_prob(x).sum(), flow.sample(x.flatten(1)).square().sum()):
        gradients = torch.autograd.grad(loss, list(flow.parameters()))
        assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_the_first_training_batch_initialises_actnorm_and_no_other_does():
    torch.manual_seed(0)
    flow = Glow(SHAPE, levels=2, steps=2, width=5).double()
    x = 3 + 2 * torch.randn(64, *SHAPE, dtype=torch.float64)
    start = {name: value.clone() for name, value in flow.state_dict().items()}
    flow.eval()
    flow.log_prob(x), flow.sample(x.flatten(1))
    assert all(torch.equal(value, start[name]) for name, value in flow.state_dict().items())
    flow.train()
    flow(x)
    assert flow.initialised
    # The first ActNorm sees the data themselves: its shift is their mean, its gain their standard deviation.
    folded = torch.nn.functional.pixel_unshuffle(x, 2)
    first = flow.levels[0][0][0]
    torch.testing.assert_close(first.t, folded.mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(first.s.exp(), folded.std((0, 2, 3), correction=0, keepdim=True))
    # And what leaves each of them has mean zero and variance one.
    now = x
    for level in flow.levels:
        now = torch.nn.functional.pixel_unshuffle(now, 2)
        for norm, mixing, coupling in level:
            now = norm.inverse(now)[0]
            variance, mean = torch.var_mean(now, dim=(0, 2, 3), correction=0)
            torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-9)
            torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-9, atol=0)
            now = coupling.inverse(mixing.inverse(now)[0])[0]
        now = now[:, : now.shape[1] // 2]
    after = {name: value.clone() for name, value in flow.state_dict().items()}
    flow(2 * x)
    assert all(torch.equal(value, after[name]) for name, value in flow.state_dict().items())


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        Glow((3, 28, 28), levels=3, steps=1, width=4)
    with pytest.raises(ValueError, match="at least 2"):
        FlowPrior(1)
    with pytest.raises(ValueError, match="was built for"):
        Glow(SHAPE, levels=1, steps=1, width=4)(torch.zeros(2, 1, 4, 4))
