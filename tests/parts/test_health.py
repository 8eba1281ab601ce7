"""What is logged of a chain, by hand."""

import pytest
import torch

from ebmzoo.mcmc import Chain
from ebmzoo.parts.health import health

START = torch.tensor([[2.0, 0.5, -0.3]])
CHAIN = Chain(torch.zeros(1, 3), torch.zeros(1), torch.tensor([[3.0, 0.0, 4.0]]))


def test_movement_is_that_of_values_which_no_bound_moves():
    still = health(START, START.clamp(-1.2, 1.2), CHAIN)
    assert still["mcmc/movement"] == 0 and still["mcmc/displacement"] == pytest.approx(0.8)
    moved = health(START, torch.tensor([[1.2, 0.6, -0.3]]), CHAIN)
    assert moved["mcmc/movement"].item() == pytest.approx(0.1 / 2**0.5)
    assert moved["mcmc/displacement"].item() == pytest.approx((0.8**2 + 0.1**2) ** 0.5)
    assert set(moved) == {f"mcmc/{name}" for name in ("displacement", "movement", "grad_norm", "saturation")}
    outside = health(START, torch.full_like(START, 2.0), CHAIN)
    assert outside["mcmc/movement"] == 0  # and no division by nothing


def test_saturation_gradients_and_acceptances():
    chain = CHAIN._replace(acceptance=torch.tensor([0.25]), proposal_acceptance=torch.tensor([0.5]))
    found = health(START, torch.tensor([[1.0, -1.0, 0.9]]), chain)
    assert found["mcmc/saturation"].tolist() == [[1.0, 1.0, 0.0]] and found["mcmc/grad_norm"].item() == 5
    assert found["mcmc/acceptance"].item() == 0.25 and found["mcmc/proposal_acceptance"].item() == 0.5
