"""The flow as a method: its update, what it scores by, and at which levels it samples."""

import copy
import math

import pytest
import torch
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import Flow
from ebmzoo.networks import Glow

from .by_hand import gradients, log_normal, made, moved

GLOW, LEVELS = spec(Glow, levels=2, steps=1, width=5), 17


def stirred(network, seed=1):
    """The flow with every parameter moved: couplings begin as constants, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    network.initialised.fill_(True)


def assert_close_to_scale(actual, expected):
    """Equal to 1e-10 of the largest gradient: those of a flow are large."""
    largest = max(gradient.abs().max() for gradient in expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a / largest, e / largest, rtol=1e-10, atol=1e-10)


def flow(**settings):
    method = made(Flow, GLOW, **{"levels": LEVELS, "optimizer": spec(SGD, lr=1.0), **settings})
    stirred(method.flow.network)
    return method


def test_an_update_is_that_of_the_dequantised_density(fit, digits):
    method = flow()
    before = copy.deepcopy(method.flow.network)
    trainer = fit(method, [digits])
    x = digits + 0.125 * (as_noise(5).uniform(digits.shape, digits) - 0.5)
    z, log_det = before(x)
    log_density = log_normal(z, 0.0, 1.0) + log_det
    loss = -log_density.mean()
    assert_close_to_scale(moved(before, method.flow.network), gradients(loss, before))
    bits = (loss / 64 - math.log(0.125)) / math.log(2)
    torch.testing.assert_close(
        trainer.callback_metrics["train/bits_per_dim"].double(), bits.detach(), rtol=1e-6, atol=0
    )


def test_what_it_answers(digits):
    method = flow().eval()
    z, log_det = method.flow.network(digits)
    torch.testing.assert_close(method(digits), (log_normal(z, 0.0, 1.0) + log_det).detach())
    shared = digits + 0.125 * (as_noise(0).uniform((1, 1, 8, 8), digits) - 0.5)
    torch.testing.assert_close(method.score(digits), method(shared))
    single = flow().float().eval()
    start = single.flow.network.sample(as_noise(0).normal((4, 64))).detach()
    levels = 8 * (single.sample(4, noise=0) + 1)
    torch.testing.assert_close(levels, (8 * (start.clamp(-1, 1) + 1)).round(), rtol=0, atol=1e-4)


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="at least 2 grey levels, not 1"):
        flow(levels=1)
