"""The mathematics that methods share, by hand, in float64."""

import pytest
import torch

from ebmzoo.mcmc import as_noise
from ebmzoo.networks import MLPEnergy
from ebmzoo.parts import objectives
from ebmzoo.parts.objectives import (
    Contrasted,
    EnergyL2,
    GradientPenalty,
    LipschitzPenalty,
    Penalty,
    SpectralPenalty,
    balanced_kl,
    contrastive_gap,
    denoising_loss,
    hinge,
    lipschitz_penalty,
    squared_error,
)

X = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
Y = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()


def energy(x):
    """½·3·‖x‖², whose slope at x is 3‖x‖."""
    return 1.5 * x.flatten(1).square().sum(1)


def test_the_gap_pushes_data_down_and_samples_up():
    data, model = torch.tensor([1.0, 4.0]).requires_grad_(), torch.tensor([2.0, 3.0, 7.0]).requires_grad_()
    gap = contrastive_gap(data, model)
    gap.backward()
    assert gap == -1.5 and data.grad.tolist() == [0.5, 0.5]
    torch.testing.assert_close(model.grad, torch.full((3,), -1 / 3))


def test_the_hinge_is_still_where_both_are_beyond_their_margins():
    data, model = torch.tensor([-2.0, 0.5]).requires_grad_(), torch.tensor([-1.0, 3.0]).requires_grad_()
    loss = hinge(data, model)
    loss.backward()
    assert loss == (0 + 1.5 + 2 + 0) / 2
    assert data.grad.tolist() == [0, 0.5] and model.grad.tolist() == [-0.5, 0]


def test_squared_errors_are_sums_over_all_values_of_an_example():
    expected = torch.stack([(x - y).flatten() @ (x - y).flatten() for x, y in zip(X, Y, strict=True)])
    torch.testing.assert_close(squared_error(X, Y), expected)


def test_denoising_weights_are_those_of_edm():
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0]).double()
    expected = torch.stack(
        [(s**2 + 0.49) / (0.7 * s) ** 2 * ((x - y) ** 2).sum() for s, x, y in zip(sigma, X, Y, strict=True)]
    )
    torch.testing.assert_close(denoising_loss(X, Y, sigma, 0.7), expected, rtol=1e-12, atol=0)


def test_balanced_kl_by_hand():
    kl = torch.tensor([[1.0, 3.0], [8.0, 8.0]]).double().requires_grad_()
    value = balanced_kl(kl, [1, 2])  # per dimension 2.01 and 4.005: weights 2.01 and 4.005 over 3.0075
    expected = (2.01 * kl[0] + 4.005 * kl[1]) / 3.0075
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    weights = torch.tensor([2.01, 4.005], dtype=torch.float64)[:, None].expand(2, 2) / 3.0075
    torch.testing.assert_close(torch.autograd.grad(value.sum(), kl)[0], weights, rtol=1e-10, atol=0)


def test_a_slope_of_one_costs_nothing_and_the_penalty_trains_the_energy():
    assert lipschitz_penalty(lambda x: (3 * x).flatten(1).sum(1), X).item() == pytest.approx((6 - 1) ** 2)
    assert lipschitz_penalty(lambda x: (x / 2).flatten(1).sum(1), X).item() == pytest.approx(0)
    slope = torch.tensor(3.0).double().requires_grad_()
    lipschitz_penalty(lambda x: (slope * x).flatten(1).sum(1), X).backward()
    torch.testing.assert_close(slope.grad, torch.tensor(2 * (6 - 1) * 2.0).double())


def test_penalties_by_hand():
    of_data, of_model = energy(X), energy(Y)
    given = energy, Contrasted(X, Y, of_data, of_model)
    expected = 0.2 * (of_data**2 + of_model**2).sum() / 5
    torch.testing.assert_close(EnergyL2(0.2)(*given, None), expected)
    # The slope's square, 9‖x‖², on data alone.
    torch.testing.assert_close(GradientPenalty(0.3)(*given, None), 0.3 * 9 * X.square().sum() / 5, rtol=1e-12, atol=0)
    u = as_noise(3).uniform((5, 1, 1, 1), X)
    between = u * X + (1 - u) * Y
    expected = 0.5 * ((3 * between.flatten(1).norm(dim=1) - 1) ** 2).mean()
    torch.testing.assert_close(LipschitzPenalty(0.5)(*given, as_noise(3)), expected, rtol=1e-12, atol=0)


def test_the_spectral_penalty_asks_the_network():
    class Normed(torch.nn.Module):
        def spectral_penalty(self):
            return torch.tensor(7.0)

    assert SpectralPenalty(0.5)(Normed(), Contrasted(X, Y, X, Y), None) == 3.5 and SpectralPenalty().weight == 0.2
    with pytest.raises(ValueError, match="MLPEnergy has no spectral_penalty"):
        SpectralPenalty()(MLPEnergy((1, 2, 2)), Contrasted(X, Y, X, Y), None)


def test_every_penalty_is_one_and_the_base_is_none():
    kinds = [value for value in vars(objectives).values() if isinstance(value, type) and issubclass(value, Penalty)]
    assert set(kinds) == {Penalty, EnergyL2, GradientPenalty, SpectralPenalty, LipschitzPenalty}
    with pytest.raises(TypeError, match="base of the penalties"):
        Penalty()(energy, Contrasted(X, Y, energy(X), energy(Y)), as_noise(0))
