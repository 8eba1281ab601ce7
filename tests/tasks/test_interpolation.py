"""Arcs between latent codes."""

import math
from functools import partial

import pytest
import torch

from ebmzoo.mcmc import as_noise
from ebmzoo.methods import VAE
from ebmzoo.networks import MLPDecoder, MLPEncoder
from ebmzoo.parts import GaussianVAE
from ebmzoo.tasks import interpolate, slerp


def codes(n=6, d=5):
    noise = as_noise(0)
    return [noise.normal((n, d), torch.empty(0, dtype=torch.float64)) for _ in range(2)]


def test_ends_are_exact_and_the_arc_is_even():
    a, b = codes()
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1.0), b)
    path = torch.stack([slerp(a, b, k / 8) for k in range(9)])
    lengths = path.norm(dim=2)
    even = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(lengths, (1 - even) * lengths[0] + even * lengths[-1])
    units = path / lengths[..., None]
    angles = (units[1:] * units[:-1]).sum(2).acos()
    whole = (units[0] * units[-1]).sum(1).acos()
    torch.testing.assert_close(angles, (whole / 8).expand_as(angles))


def test_parallel_and_opposite_codes_give_a_line():
    a = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    for b in (2 * a, -a, a):
        torch.testing.assert_close(slerp(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_a_right_angle():
    at = slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), 1 / 3)
    torch.testing.assert_close(at, torch.tensor([[2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)]]))


def test_interpolated_images_end_where_the_codes_do():
    torch.manual_seed(0)
    model = VAE((1, 8, 8), partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=5)).eval().double()
    a, b = codes()
    frames = interpolate(model, a, b, frames=4)
    assert frames.shape == (4, 6, 1, 8, 8) and not frames.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(frames[0], model.decode(a))
        torch.testing.assert_close(frames[2], model.decode(slerp(a, b, 2 / 3)))
        torch.testing.assert_close(frames[3], model.decode(b))
    with pytest.raises(ValueError, match="two frames or more, not 1"):
        interpolate(model, a, b, frames=1)
