"""The VAEs of VAEBM: NVAE's structure at the published sizes, and how white noise, latents and x hang together."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import as_noise
from ebmzoo.networks import GaussianVAE, HierarchicalVAE, MLPDecoder, MLPEncoder
from ebmzoo.networks.nvae_cells import DecoderCell, EncoderCell, conv, plain, spectral_norms

SHAPE = (3, 16, 16)


def hierarchical(**settings):
    torch.manual_seed(0)
    sizes = {"width": 4, "scales": 2, "groups": 2, "latents": 3, "cells": 1}
    network = HierarchicalVAE(SHAPE, **{**sizes, **settings}).double()
    x, draw = batch()
    network.train().infer(x, draw)  # so that the BatchNorms have statistics of their own
    return network.eval()


def gaussian(**settings):
    torch.manual_seed(0)
    parts = {"encoder": partial(MLPEncoder, width=9), "decoder": partial(MLPDecoder, width=9), "latent_dim": 5}
    return GaussianVAE(SHAPE, **{**parts, **settings}).double().eval()


def batch(seed=0):
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    noise = as_noise(seed)
    return x, lambda shape: noise.normal(shape, x)


@pytest.fixture(params=[hierarchical, gaussian], ids=["hierarchical", "gaussian"])
def vae(request):
    return request.param()


def parameters(parts):
    found = [[part] if isinstance(part, nn.Parameter) else list(part.parameters()) for part in parts]
    return [parameter for part in found for parameter in part]


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
    assert round(sum(p.numel() for p in parameters(vae.generator())) / 1e6, 1) == decoder
    assert vae.latent_dim == dims
    if convs:
        assert sum(isinstance(layer, nn.Conv2d) for layer in vae.modules()) == convs


def test_celebahq_has_five_scales_of_four_groups():
    with torch.device("meta"):
        vae = HierarchicalVAE((3, 256, 256), width=32, scales=5, groups=4)
    assert vae.noise_shapes == tuple((20, side, side) for side in (8, 16, 32, 64, 128) for _ in range(4))


def test_white_noise_latents_and_x_are_one_pass(vae):
    x, draw = batch()
    inferred = vae.infer(x, draw)
    for again in (vae.generate(*inferred.noise), vae.evaluate(*inferred.z)):
        for a, b in zip(again.z, inferred.z, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(again.mean, inferred.mean, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(again.log_sigma, inferred.log_sigma, rtol=1e-10, atol=1e-10)
        assert not again.posterior
    assert [tuple(z.shape[1:]) for z in inferred.z] == list(vae.noise_shapes)
    (mean, log_sigma), noise = inferred.posterior[-1], as_noise(0)
    for shape in vae.noise_shapes:  # what the last group was drawn with
        last = noise.normal((6, *shape), x)
    torch.testing.assert_close(inferred.z[-1], mean + log_sigma.exp() * last)


def test_encode_and_decode_are_flat(vae):
    x, _ = batch()
    mean, log_variance = vae.encode(x)
    assert mean.shape == log_variance.shape == (6, vae.latent_dim)
    at_means = vae.infer(x, lambda shape: x.new_zeros(tuple(shape)))
    torch.testing.assert_close(mean, torch.cat([z.flatten(1) for z in at_means.z], 1))
    torch.testing.assert_close(vae.decode(mean), at_means.mean)
    sigmas = torch.cat([log_sigma.flatten(1) for _, log_sigma in at_means.posterior], 1)
    torch.testing.assert_close(log_variance, 2 * sigmas)


def test_the_generator_is_what_generate_needs(vae):
    own = {id(p) for p in parameters(vae.generator())}
    noise = [torch.randn(2, *shape).double() for shape in vae.noise_shapes]
    latents = vae.generate(*noise)
    loss = latents.mean.square().sum() + latents.log_sigma.square().sum()
    grads = torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True)
    reached = {id(p) for p, grad in zip(vae.parameters(), grads, strict=True) if grad is not None}
    assert reached == own


def test_every_parameter_learns_and_examples_do_not_meet(vae):
    x, draw = batch()
    found = vae.infer(x, draw)
    loss = found.mean.square().sum() + found.log_sigma.square().sum() + vae.regularisation()
    for (mean, log_sigma), (other, prior) in zip(found.posterior, found.prior, strict=True):
        loss = loss + (mean - other).square().sum() + (log_sigma - prior).square().sum()
    loss.backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    torch.testing.assert_close(vae.encode(x[2:3])[0], vae.encode(x)[0][2:3], rtol=1e-10, atol=1e-12)


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
    assert (low.generate(*noise).log_sigma == 10).all()
    free = hierarchical(min_log_sigma=-20.0).generate(*noise).log_sigma
    assert free.shape == (2, *SHAPE) and free.unique().numel() == free.numel()


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


def test_spectral_norms_of_many_kernels_and_their_gradient():
    torch.manual_seed(0)
    shapes = [(6, 4, 3), (6, 4, 3), (5, 2, 1)]
    layers = [conv(inputs, outputs, size).double() for outputs, inputs, size in shapes]
    layers.append(plain(8, 8, 5, groups=8).double())
    free = [layer.parametrizations.weight.original if i < 3 else layer.weight for i, layer in enumerate(layers)]
    with torch.no_grad():  # one large singular value each, so that few iterations find it
        for weight in free:
            weight.add_(torch.outer(torch.randn(len(weight)), torch.randn(weight[0].numel())).view_as(weight), alpha=2)
    for _ in range(30):
        norms = spectral_norms(layers, 4, move=True)
    exact = torch.stack([torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in layers])
    torch.testing.assert_close(norms, exact, rtol=1e-10, atol=0)
    expected = torch.autograd.grad((exact**2).sum(), free)
    for actual, gradient in zip(torch.autograd.grad((norms**2).sum(), free), expected, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=1e-8, atol=1e-10)


def test_nothing_moves_in_eval_mode_and_the_state_dict_carries_all():
    vae = hierarchical()
    x, _ = batch()
    before = copy.deepcopy(vae.state_dict())
    first, second = vae.encode(x)[0], vae.encode(x)[0]
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    other = hierarchical(width=4)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.3)
    other.load_state_dict(before)
    assert torch.equal(other.encode(x)[0], first)


def test_readjusted_statistics_are_those_of_the_samples():
    vae = gaussian(decoder=partial(MLPDecoder, width=9, depth=1, norm="batch"))
    kept = copy.deepcopy(vae.state_dict())
    noise, like = as_noise(1), torch.empty(0).double()
    other = vae.readjusted(0.7, lambda shape: noise.normal(shape, like), batch=16, passes=3)
    again = as_noise(1)
    linear = vae.decoder.net[0]
    outputs = [linear(0.7 * again.normal((16, 5), like)) for _ in range(3)]
    norm = other.decoder.net[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([y.mean(0) for y in outputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([y.var(0) for y in outputs]).mean(0))
    assert not other.training and not norm.training
    assert all(torch.equal(value, kept[name]) for name, value in vae.state_dict().items())


def test_the_gaussian_vae_has_the_names_of_a_vae_checkpoint():
    fixed, learned = gaussian(sigma=0.3), gaussian()
    assert {name.partition(".")[0] for name in fixed.state_dict()} == {"encoder", "decoder", "log_sigma"}
    assert fixed.state_dict().keys() == learned.state_dict().keys()
    assert isinstance(learned.log_sigma, nn.Parameter) and not isinstance(fixed.log_sigma, nn.Parameter)
    torch.testing.assert_close(fixed.log_sigma.exp().item(), 0.3)
    data = {"class_path": "ebmzoo.networks.MLPEncoder", "init_args": {"width": 9}}
    assert gaussian(encoder=data).state_dict().keys() == fixed.state_dict().keys()


def test_cells_are_skip_plus_a_tenth_of_the_branch():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    cells = [EncoderCell(4, 4), EncoderCell(4, 8, down=True), DecoderCell(4, 4), DecoderCell(4, 2, up=True)]
    for cell, shape in zip(cells, [(4, 8), (8, 4), (4, 8), (2, 16)], strict=True):
        y = cell.eval()(x)
        assert y.shape == (2, shape[0], shape[1], shape[1])
        torch.testing.assert_close(y, cell.skip(x) + 0.1 * cell.branch(x))
        gate = cell.branch[-1]
        h = cell.branch[:-1](x)
        opened = gate(h) / h
        assert ((opened > 0) & (opened < 1)).all()  # one gate for each channel
        torch.testing.assert_close(opened, opened[:, :, :1, :1].expand_as(opened), rtol=1e-4, atol=1e-4)


def test_a_size_that_does_not_halve_is_one_clear_line():
    with pytest.raises(ValueError, match=r"HierarchicalVAE takes images .*multiples of 8 .*got \(3, 20, 16\)"):
        HierarchicalVAE((3, 20, 16), scales=3)
    with pytest.raises(ValueError, match=r"HierarchicalVAE was built for \(B, 3, 16, 16\)"):
        hierarchical().encode(torch.zeros(2, 3, 8, 8).double())
