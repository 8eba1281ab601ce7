"""Optimisers and schedules of our own, by hand."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from ebmzoo.optim import ThreeSigmaAdam, WarmupCosine


def test_three_sigma_clip_by_hand():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]).double())
    settings = {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-8, "weight_decay": 0.01}
    optimizer = ThreeSigmaAdam([weight], **settings)
    m, v, w = torch.zeros(2).double(), torch.zeros(2).double(), weight.detach().clone()
    for t, raw in enumerate([[0.2, -0.1], [5.0, 0.1], [-9.0, 0.4], [0.0, 2.0]], start=1):
        gradient = torch.tensor(raw).double()
        weight.grad = gradient.clone()
        optimizer.step()
        if t > 1:
            bound = 3 * (v / (1 - 0.75 ** (t - 1))).sqrt() + 0.1
            gradient = torch.maximum(torch.minimum(gradient, bound), -bound)
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-10, atol=0)
        gradient = gradient + 0.01 * w
        m, v = 0.5 * m + 0.5 * gradient, 0.75 * v + 0.25 * gradient**2
        w = w - 0.1 * (m / (1 - 0.5**t)) / ((v / (1 - 0.75**t)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), w, rtol=1e-10, atol=0)
    assert weight.grad[1] < 2.0  # the last was clipped


def test_three_sigma_adam_resumes_from_its_state():
    def run(optimizer, weight, rows):
        for row in rows:
            weight.grad = row.clone()
            optimizer.step()

    rows = 3 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    one, two = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    whole = ThreeSigmaAdam([one], lr=0.1, sigmas=1.0, floor=0.01)
    run(whole, one, rows)
    part = ThreeSigmaAdam([two], lr=0.1, sigmas=1.0, floor=0.01)
    run(part, two, rows[:3])
    rest = ThreeSigmaAdam([two], lr=0.5)
    rest.load_state_dict(part.state_dict())
    run(rest, two, rows[3:])
    assert torch.equal(one, two)
    plain = nn.Parameter(torch.zeros(2))
    run(Adam([plain], lr=0.1), plain, rows)
    assert not torch.equal(one, plain)


def test_the_schedule_must_fit():
    with pytest.raises(ValueError, match="a rise of 9 iterations does not fit into 8"):
        WarmupCosine(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), total=8, warmup=9)
