"""A small VAE of each kind, in float64 and at rest, and a batch for them."""

from functools import partial

import torch

from ebmzoo.mcmc import as_noise
from ebmzoo.networks import MLPDecoder, MLPEncoder
from ebmzoo.parts import GaussianVAE, HierarchicalVAE

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


KINDS = {"hierarchical": hierarchical, "gaussian": gaussian}
