"""The VAE of VAEBM: NVAE's structure at the published sizes, its groups, bounds and regularisation."""

import copy
import math

import pytest
import torch
from torch import nn

from ebmzoo.factories import parameters_of
from ebmzoo.parts import HierarchicalVAE

from .vaes import SHAPE, batch, hierarchical


@pytest.mark.parametrize(
    ("settings", "size", "total", "decoder", "dims", "convs"),
    [
        # The published counts, 130.7, 87.2 and 65.0, include posterior flows (180 of 610 convolutions for CIFAR-10);
        # the decoder sides, 51.7, 34.1 and 24.1, do not, nor do the small sizes.
        ({}, 32, 129.1, 51.7, 153_600, 430),
        ({"groups": 20}, 32, 86.1, 34.1, 102_400, None),
        ({"width": 48, "scales": 3, "groups": 5}, 64, 64.2, 24.1, 134_400, None),
        ({"width": 48, "scales": 2, "groups": 4, "latents": 12, "cells": 1}, 32, 7.1, 2.7, 15_360, None),
        ({"width": 64, "groups": 10, "cells": 1}, 32, 6.3, 2.4, 51_200, None),
        ({"width": 32, "scales": 2, "groups": 3, "latents": 8, "cells": 1}, 32, 2.5, 0.9, 7_680, None),
        ({"width": 32, "groups": 6, "latents": 8, "cells": 1}, 32, 1.0, 0.4, 12_288, None),
    ],
)
def test_published_sizes(settings, size, total, decoder, dims, convs):
    with torch.device("meta"):
        vae = HierarchicalVAE((3, size, size), **settings)
    assert round(sum(p.numel() for p in vae.parameters()) / 1e6, 1) == total
    assert round(sum(p.numel() for p in parameters_of(vae.generator())) / 1e6, 1) == decoder
    assert vae.latent_dim == dims
    if convs:
        assert sum(isinstance(layer, nn.Conv2d) for layer in vae.modules()) == convs


def test_celebahq_has_five_scales_of_four_groups():
    with torch.device("meta"):
        vae = HierarchicalVAE((3, 256, 256), width=32, scales=5, groups=4)
    assert vae.noise_shapes == tuple((20, side, side) for side in (8, 16, 32, 64, 128) for _ in range(4))


def test_a_group_depends_on_those_above_alone():
    vae = hierarchical()
    noise = [torch.randn(2, *shape).double() for shape in vae.noise_shapes]
    before = vae.evaluate(*noise)
    for changed in range(len(noise)):
        after = vae.evaluate(*(z + 1 if index == changed else z for index, z in enumerate(noise)))
        for index, (old, new) in enumerate(zip(before.prior, after.prior, strict=True)):
            same = torch.equal(old[0], new[0]) and torch.equal(old[1], new[1])
            assert same == (index <= changed)
        assert not torch.equal(before.mean, after.mean)


def test_the_posterior_is_relative_to_the_prior_and_softly_bounded():
    vae = hierarchical()
    x, draw = batch()
    for head in vae.posteriors:
        nn.init.zeros_(head.bias)
        with torch.no_grad():
            head.parametrizations.weight[0].log_gain.fill_(-torch.inf)
    found = vae.infer(x, draw)
    assert all(not value.any() for value in found.prior[0])  # the top's is N(0, I)
    torch.testing.assert_close(found.posterior[0][1].exp(), torch.full_like(found.z[0], 1.01))
    for q, p in zip(found.posterior[1:], found.prior[1:], strict=True):
        assert torch.equal(q[0], p[0]) and torch.equal(q[1], p[1])
    for head in vae.posteriors:  # by 0.3 in every mean, by 0.5 in every log σ, before they are bounded
        with torch.no_grad():
            head.bias.copy_(torch.tensor([0.3, 0.5], dtype=head.bias.dtype).repeat_interleave(len(head.bias) // 2))
    shifted = vae.infer(x, draw)
    top = shifted.posterior[0]
    torch.testing.assert_close(top.mean, torch.full_like(top.mean, 5 * math.tanh(0.3 / 5)))
    torch.testing.assert_close(top.log_sigma.exp(), torch.full_like(top.mean, math.exp(5 * math.tanh(0.1)) + 0.01))
    for q, p in zip(shifted.posterior[1:], shifted.prior[1:], strict=True):
        mean = 5 * torch.tanh(torch.atanh(p.mean / 5) + 0.3 / 5)
        sigma = (5 * torch.tanh(torch.atanh((p.log_sigma.exp() - 0.01).log() / 5) + 0.5 / 5)).exp() + 0.01
        torch.testing.assert_close(q.mean, mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(q.log_sigma, sigma.log(), rtol=1e-8, atol=1e-8)
    for head in vae.posteriors:
        with torch.no_grad():
            head.parametrizations.weight[0].log_gain.fill_(20.0)
    wild = vae.infer(x, draw)
    for mean, log_sigma in wild.posterior:
        assert mean.abs().max() <= 5 and mean.abs().max() > 4.9
        assert log_sigma.exp().min() >= 0.01 and log_sigma.exp().max() <= math.exp(5) + 0.01 + 1e-9


def test_the_decoder_has_one_floor_for_sigma():
    low = hierarchical(min_log_sigma=10.0)
    noise = [torch.randn(2, *shape).double() for shape in low.noise_shapes]
    assert (low.generate(*noise).x.log_sigma == 10).all()
    free = hierarchical(min_log_sigma=-20.0).generate(*noise).x.log_sigma
    assert free.shape == (2, *SHAPE) and free.unique().numel() == free.numel()


@pytest.mark.thorough
def test_regularisation_is_the_spectral_norms_and_the_batchnorm_gains():
    vae = hierarchical().train()
    layers = list(vae.modules())
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, -2, 2)
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    exact = sum(torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in convs)
    gains = sum(layer.weight.abs().max() for layer in layers if isinstance(layer, nn.BatchNorm2d))
    first = vae.regularisation()
    assert 0.98 < (first - gains) / exact < 1
    for _ in range(60):
        last = vae.regularisation()
    torch.testing.assert_close(last, exact + gains, rtol=1e-4, atol=0)
    kept = copy.deepcopy(vae.eval().state_dict())
    vae.regularisation()
    assert all(torch.equal(value, kept[name]) for name, value in vae.state_dict().items())


def test_a_size_that_does_not_halve_is_one_clear_line():
    with pytest.raises(ValueError, match=r"HierarchicalVAE takes images .*multiples of 8 .*got \(3, 20, 16\)"):
        HierarchicalVAE((3, 20, 16), scales=3)
    with pytest.raises(ValueError, match=r"HierarchicalVAE was built for \(B, 3, 16, 16\)"):
        hierarchical().encode(torch.zeros(2, 3, 8, 8).double())
