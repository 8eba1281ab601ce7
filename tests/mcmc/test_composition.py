"""Potentials made of potentials: sums, powers and conditionals against closed forms, and recorded like any other."""

import math

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import HMC, MALA, Given, Potential, Scaled, Sum, as_potential

from .examples import Spread, assert_backends_agree, kept, linear
from .test_laws import assert_covariance, correlated, gaussian

NAN = float("nan")


class Normal(Potential):
    """½ (x − m)ᵀ P (x − m)."""

    def __init__(self, mean, precision):
        super().__init__()
        self.mean, self.precision = mean, precision

    def forward(self, x):
        return 0.5 * ((x - self.mean) @ self.precision * (x - self.mean)).sum(1)


def test_operators_are_sums_and_multiples():
    x = torch.randn(5, 2)
    a, b = Normal(torch.zeros(2), torch.eye(2)), Normal(torch.ones(2), 3 * torch.eye(2))
    net = linear()
    torch.testing.assert_close((a + b)(x), a(x) + b(x))
    torch.testing.assert_close((2 * a)(x), 2 * a(x))
    torch.testing.assert_close((a * 0.5 + b / 4)(x), a(x) / 2 + b(x) / 4)
    torch.testing.assert_close((a + net + b)(x), a(x) + net(x)[:, 0] + b(x))  # a network's (B, 1) as well
    torch.testing.assert_close((net.forward + as_potential(net))(x), 2 * net(x)[:, 0])
    assert isinstance(a + b + net, Sum) and len((a + (b + net)).potentials) == 3 and isinstance(a / 2, Scaled)


def test_the_product_of_two_gaussians_is_theirs():
    p, q, m = correlated(3), torch.diag(torch.tensor([2.0, 0.5, 1.0]).double()), torch.tensor([1.0, -1.0, 0.5]).double()
    temperature = 0.8
    total = (Normal(torch.zeros(3).double(), p) + 2 * Normal(m, q)) / temperature
    chain = HMC(30, 0.4, leapfrogs=4)(total, torch.zeros(4000, 3).double(), noise=1)
    precision = p + 2 * q
    covariance = torch.linalg.inv(precision)
    assert_covariance(chain.x - covariance @ (2 * q @ m), temperature * covariance)


@pytest.mark.parametrize("rows", [1, 4000])
def test_a_conditional_gaussian_is_that_of_the_closed_form(rows):
    precision = correlated(4)
    observed = torch.linspace(-1, 1, rows).double()
    observation = torch.full((rows, 2, 2), NAN).double()
    observation[:, 0, 1], observation[:, 1, 1] = 0.7, observed
    given = Given(lambda x: gaussian(precision)(x.flatten(1)), observation)
    chain = MALA(100, 0.6)(given, torch.zeros(4000, 2).double(), noise=2)
    free, held = [0, 2], [1, 3]
    inside = precision[free][:, free]
    known = torch.stack([torch.full_like(observed, 0.7), observed], 1)
    mean = -known @ precision[held][:, free] @ torch.linalg.inv(inside)
    assert_covariance(chain.x - mean, torch.linalg.inv(inside))
    whole = given.whole(chain.x)
    assert whole.shape == (4000, 2, 2) and (whole[:, 0, 1] == 0.7).all()
    assert torch.equal(given.unobserved(whole), chain.x)
    torch.testing.assert_close(whole[:, 1, 1], observed.expand(4000))


def test_what_is_composed_is_frozen_and_recorded():
    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Dropout(), nn.Linear(8, 1)) for _ in range(2))
    total = (as_potential(one) + 2 * as_potential(other)) / 3
    for potential, x in (
        (total, torch.randn(4, 3)),
        (Given(total, torch.tensor([[0.5, NAN, NAN]])), torch.randn(4, 2)),
    ):
        chain = assert_backends_agree(MALA(5, 0.1), potential, x)
        assert torch.equal(chain.x, MALA(5, 0.1)(potential, x, noise=1).x)
    assert len(kept()) == 2 and one.training and one[0].weight.requires_grad


def test_what_cannot_be_composed_is_refused():
    normal, redraws = Normal(torch.zeros(2), torch.eye(2)), Spread(linear())
    for make in (lambda: normal + redraws, lambda: 2 * redraws, lambda: Given(redraws, torch.tensor([[0.0, NAN]]))):
        with pytest.raises(ValueError, match="Spread redraws: chains on it cannot be"):
            make()
    for temperature in (0, -1.0, NAN):
        with pytest.raises(ValueError, match="a temperature is positive"):
            normal / temperature
    for make in (lambda: normal + 1, lambda: normal * None, lambda: normal / normal):
        with pytest.raises(TypeError, match="unsupported operand"):
            make()
    for observation, words in (
        ([[0.0, NAN], [NAN, 0.0]], "the same coordinates"),
        ([[0.0, 1.0]], "not none"),
        ([[NAN, NAN]], "not all"),
    ):
        with pytest.raises(ValueError, match=words):
            Given(normal, torch.tensor(observation))


def test_a_state_of_another_width_is_refused():
    conditional = Given(lambda x: x.sum(1), torch.tensor([[3.0, math.nan, math.nan]]))
    with pytest.raises(ValueError, match=r"is \(B, 2\), not \(4, 3\)"):
        conditional(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"is \(2, 1\), not \(4, 1\)"):
        Given(lambda x: x.sum(1), torch.tensor([[3.0, math.nan]] * 2))(torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"not \(2,\)"):
        Given(lambda x: x.sum(1), torch.tensor([3.0, math.nan]))
