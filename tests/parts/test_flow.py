"""A flow of images with grey levels: what dequantisation costs, to which levels samples go, its bounds."""

import math
from functools import partial

import pytest
import torch

from ebmzoo.mcmc import as_noise
from ebmzoo.networks import Glow
from ebmzoo.parts import ImageFlow

SHAPE, LEVELS = (1, 8, 8), 17
X = (torch.randint(LEVELS, (5, *SHAPE), generator=torch.Generator().manual_seed(0)) / 8 - 1).double()


class Uniform(torch.nn.Module):
    """The density of pixels that are uniform over levels·step."""

    def log_prob(self, x):
        return x.new_full((len(x),), -64 * math.log(LEVELS * 2 / (LEVELS - 1)))


def test_bits_per_dimension_of_a_flow_that_is_right_about_uniform_levels():
    # Images whose pixels are independent and uniform over the levels have log2(levels) bits a dimension. A flow with
    # the density of the dequantised pixels, uniform over levels·step, is right about them.
    flow = ImageFlow(SHAPE, lambda shape: Uniform(), LEVELS)
    bits = flow.bits_per_dim(flow.log_likelihood_bound(X, 3, as_noise(0)))
    torch.testing.assert_close(bits, torch.full((5,), math.log2(LEVELS)).double())
    torch.testing.assert_close(flow.validate(X, as_noise(0))["bits_per_dim"], bits)


def test_noise_is_half_a_level_either_way_and_samples_go_to_the_nearest():
    flow = ImageFlow(SHAPE, lambda shape: Uniform(), LEVELS)
    assert flow.step == 0.125
    noisy = flow.dequantise(X, as_noise(3))
    torch.testing.assert_close(noisy, X + 0.125 * (as_noise(3).uniform(X.shape, X) - 0.5))
    assert (noisy - X).abs().max() <= 1 / 16 and (noisy - X).abs().max() > 0.06
    torch.testing.assert_close(flow.quantise(noisy), X, rtol=0, atol=1e-12)
    ends = flow.quantise(torch.tensor([-3.0, -1.05, -0.95, 0.06, 0.065, 1.3]))
    assert ends.tolist() == [-1, -1, -1, 0, 0.125, 1]


def test_the_bound_averages_densities_over_the_level():
    torch.manual_seed(0)
    flow = ImageFlow(SHAPE, partial(Glow, levels=2, steps=1, width=4), LEVELS).double()
    flow.network.initialised.fill_(True)
    noise = as_noise(2)
    draws = torch.stack([flow.network.log_prob(flow.dequantise(X, noise)) for _ in range(3)])
    expected = torch.logsumexp(draws, 0) - math.log(3)
    torch.testing.assert_close(flow.log_likelihood_bound(X, 3, as_noise(2)), expected, rtol=1e-12, atol=0)
    generated = flow.generate(4, as_noise(5), X)
    torch.testing.assert_close(generated, flow.network.sample(as_noise(5).normal((4, 64), X)))
    assert generated.requires_grad and generated.shape == (4, *SHAPE)


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="at least 2 grey levels, not 1"):
        ImageFlow(SHAPE, lambda shape: Uniform(), levels=1)
