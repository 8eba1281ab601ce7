"""Small networks and potentials for the tests of recorded programs."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from ebmzoo.mcmc import HMC, MALA, Langevin, Potential
from ebmzoo.mcmc.backend import _programs
from ebmzoo.networks import ConvEnergy, MLPEnergy, MultiScaleResNetEnergy, SNGANEnergy, VAEBMEnergy

IMAGE = (1, 8, 8)
NETWORKS = {
    "mlp": partial(MLPEnergy, IMAGE, width=16, input_scale=2.0),
    "mlp_sn": partial(MLPEnergy, IMAGE, width=16, spectral_norm=True),
    "conv": partial(ConvEnergy, (3, 32, 32), width=4),
    "sngan": partial(SNGANEnergy, (3, 32, 32), width=4),
    "multiscale": partial(MultiScaleResNetEnergy, (1, 16, 16), width=8, multipliers=(1, 2), blocks=1, head=16),
    "vaebm": partial(VAEBMEnergy, IMAGE, column="stacked_mnist", width=8),
}
SAMPLERS = [
    Langevin(3, 0.1, grad_clamp=0.3, max_drift=0.2, bounds=(-1, 1)),
    MALA(3, 1e-3),
    HMC(2, 1e-3, leapfrogs=2),
]


class Again:
    """The function itself in the place of a graph, run as often as a capture would run it; it counts its replays."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, run):
        self.captures += 1
        for _ in range(4):
            run()

        def replay():
            self.replays += 1
            run()

        return replay


def made(name, seed=0):
    torch.manual_seed(seed)
    net = NETWORKS[name]()
    return net, torch.randn(3, *net.image_shape)


def kept():
    """The programs, the reasons why there are none, and the counts of steps that are kept now."""
    return list(_programs.values())


def assert_same(one, other):
    """Equal to the last bit, in all that a sampler returns."""
    for a, b in zip(one, other, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def assert_backends_agree(sampler, potential, x, noise=1):
    """A recorded chain is the eager one to the last bit; it is returned."""
    eager, traced = (replace(sampler, backend=backend)(potential, x, noise=noise) for backend in ("eager", "trace"))
    assert_same(traced, eager)
    return traced


class Two(Potential):
    """(x − a)(x − b), summed."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return ((x - self.a) * (x - self.b)).flatten(1).sum(1)


class Spread(Potential):
    """A network about fresh noise, at a level."""

    redraws = True

    def __init__(self, network):
        super().__init__()
        self.network, self.sigma = network, torch.tensor(0.3)

    def refresh(self, x, noise, level=None):
        self.sigma = self.sigma if level is None else x.new_tensor(level)
        self.eps = noise.normal(x.shape, x)

    def forward(self, x):
        return self.network(x + self.sigma * self.eps) / self.sigma


class Held(Potential):
    """A network, and something else."""

    def __init__(self, network, held):
        super().__init__()
        self.network, self.held = network, held

    def forward(self, x):
        return self.network(x)


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(2, 1)
