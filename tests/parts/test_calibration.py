"""The dual variable's step and the calibration's pull, by hand."""

import pytest
import torch

from ebmzoo.mcmc import Langevin
from ebmzoo.parts import Calibration
from ebmzoo.parts.calibration import Dual

CHAIN = Langevin(steps=3, step_size=0.2, temperature=0.05)  # K·s·T = 0.03 a dimension
DISTANCE = torch.tensor(1.2)


def test_a_dual_step_by_hand():
    dual = Dual(weight=2.5, rate=0.1, margin=1.5)
    floors = dual.ascend(DISTANCE, CHAIN, dimensions=8)
    assert floors.item() == pytest.approx(1.2 / (3 * 0.2 * 0.05 * 8))  # five floors
    assert dual.weight.item() == pytest.approx(2.5 + 0.1 * (5 - 1.5) / 1.5)
    dual.ascend(0 * DISTANCE, CHAIN, dimensions=8)
    assert dual.weight.item() == pytest.approx(2.5 + 0.1 * (5 - 1.5) / 1.5 - 0.1)


def test_a_chain_without_noise_is_held_by_the_distance_itself():
    dual = Dual(weight=2.0, rate=0.1, margin=1.5)
    floors = dual.ascend(DISTANCE, Langevin(steps=3, step_size=0.2, temperature=0.0), dimensions=8)
    assert floors.item() == pytest.approx(1.2) and dual.weight.item() == pytest.approx(2.0 - 0.1 * 0.3 / 1.5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rate": 1e6, "margin": 1e-3, "maximum": 7.0}, 7.0),
        ({"rate": 1e6, "margin": 1e6}, 0.0),
        ({"rate": 0.0}, 2.5),
    ],
)
def test_it_is_clipped_and_fixed_at_rate_zero(settings, expected):
    dual = Dual(weight=2.5, **settings)
    floors = dual.ascend(DISTANCE, CHAIN, dimensions=8)
    assert dual.weight.item() == expected and floors.item() == pytest.approx(5)


def test_it_is_a_buffer_that_no_optimiser_moves():
    dual = Dual(weight=2.5, rate=0.1)
    assert list(dual.state_dict()) == ["weight"] and not list(dual.parameters())
    dual.ascend(DISTANCE.clone().requires_grad_(), CHAIN, dimensions=8)
    assert not dual.weight.requires_grad
    assert (Dual().weight.item(), Dual().rate, Dual().margin, Dual().maximum) == (1.0, 2e-3, 3.0, 100.0)


@pytest.mark.parametrize("margin", [0.0, -1.0])
def test_a_margin_that_is_not_positive_is_refused(margin):
    with pytest.raises(ValueError, match=f"the margin of a dual variable must be positive, not {margin}"):
        Calibration(margin=margin)


def test_the_pull_is_towards_what_was_revised():
    """λ·d/2σ², d the mean of the examples' squared distances; a learned σ is left to the bound."""
    generated = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    revised, log_sigma = torch.tensor([[1.0, 4.0], [3.0, 1.0]]), torch.tensor(-0.5).requires_grad_()
    pull = Calibration(weight=3.0)(generated, revised, log_sigma)
    expected = 3.0 * (4 + 10) / 2 / (2 * torch.tensor(-1.0).exp())
    torch.testing.assert_close(pull, expected)
    pull.backward()
    torch.testing.assert_close(generated.grad, 3.0 * (generated.detach() - revised) / 2 / torch.tensor(-1.0).exp())
    assert log_sigma.grad is None
