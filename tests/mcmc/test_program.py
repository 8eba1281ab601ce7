"""A recorded chain is autograd's to the last bit, of the tensors as they are now, or it is refused."""

import gc
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch

from ebmzoo.mcmc import MALA, AnnealedLangevin, Langevin, Potential, Tethered
from ebmzoo.mcmc.backend import PAYS_AFTER
from ebmzoo.mcmc.program import Program
from ebmzoo.networks import MLPDecoder, MLPDenoiser, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE, InData, InNoise
from ebmzoo.parts.textures import Semantic, Texture

from .examples import (
    IMAGE,
    NETWORKS,
    SAMPLERS,
    Held,
    Spread,
    assert_backends_agree,
    assert_same,
    kept,
    linear,
    made,
)

TRACE = Langevin(2, 0.1, backend="trace")


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_recorded_chain_is_the_eager_one_to_the_last_bit(name, sampler):
    net, x = made(name)
    assert not torch.equal(assert_backends_agree(sampler, net, x).x, x)
    assert all(part.training for part in net.modules())


@pytest.mark.parametrize("name", ["mlp", "multiscale"])
def test_so_it_is_under_autocast(name):
    net, x = made(name)
    plain = Langevin(3, 0.1, backend="trace")(net, x, noise=1)
    with torch.autocast("cpu", torch.bfloat16):
        traced = assert_backends_agree(Langevin(3, 0.1), net, x)
    assert traced.x.dtype == torch.float32 and not torch.equal(traced.x, plain.x)
    assert_same(Langevin(3, 0.1, backend="trace")(net, x, noise=1), plain)
    assert len(kept()) == 2


def test_so_it_is_in_channels_last_with_the_kernels_reordered_once():
    net, x = made("multiscale")
    net.to(memory_format=torch.channels_last)
    assert_backends_agree(Langevin(3, 0.1), net, x.to(memory_format=torch.channels_last))


@pytest.mark.parametrize("space", [InNoise, InData])
def test_a_row_its_white_noise_and_its_proposals(space):
    torch.manual_seed(0)
    vae, energy = GaussianVAE(IMAGE, MLPEncoder, MLPDecoder, latent_dim=4), MLPEnergy(IMAGE, width=16)
    potential = space(energy, vae)
    state = potential.row.pack(torch.randn(3, *IMAGE), torch.randn(3, 4))
    assert_backends_agree(MALA(3, 0.01, proposals=2 if space is InNoise else 0), potential, state)
    with torch.no_grad():
        vae.decoder.net[0].weight.add_(0.1)
        vae.log_sigma.add_(0.1)
    assert_backends_agree(MALA(3, 0.01), space(energy, vae), state)
    assert len(kept()) == 1


@pytest.mark.parametrize("end", [None, 0.1])
@pytest.mark.parametrize("kind", [partial(Texture), partial(Texture, kernel="residual"), Semantic])
def test_a_potential_that_redraws_is_recorded(kind, end):
    torch.manual_seed(0)
    denoiser = MLPDenoiser(IMAGE, 4, width=16, depth=1)
    decoder = MLPDecoder(IMAGE, 4, width=16, depth=1)
    semantic = kind is Semantic
    x = torch.randn(3, 4) if semantic else torch.randn(3, *IMAGE)
    sampler = AnnealedLangevin(6, 0.1, sigma=0.5, sigma_end=end)
    for _ in range(2):
        assert_backends_agree(sampler, kind(denoiser, decoder) if semantic else kind(denoiser), x)
        with torch.no_grad():
            next(denoiser.parameters()).add_(0.1)
    assert [type(program) for program in kept()] == [Program]


class Stepping(Spread):
    """Counts its steps in a tensor, in place, in a new one, or in a buffer."""

    def __init__(self, network, how):
        super().__init__(network)
        self.how = how
        if how == "buffer":
            self.register_buffer("count", torch.zeros(()))
        else:
            self.count = torch.zeros(())

    def refresh(self, x, noise, level=None):
        super().refresh(x, noise, level)
        if self.how == "in place":
            self.count += 1
        else:
            self.count = self.count + 1

    def forward(self, x):
        return self.count * super().forward(x).squeeze(1)


@pytest.mark.parametrize("how", ["in place", "new", "buffer"])
def test_what_refresh_changes_is_an_input_of_every_step(how):
    x = torch.randn(3, 2)
    chains, counts = [], []
    for backend in ("eager", "trace", "trace"):
        potential = Stepping(linear(), how)
        chains.append(Langevin(4, 0.1, backend=backend)(potential, x, noise=1))
        counts.append(potential.count.item())
    assert_same(chains[0], chains[1])
    assert_same(chains[0], chains[2])
    assert counts == [4, 4, 4]  # asked once a step, whoever evaluates
    assert len(kept()) == 1


@pytest.mark.parametrize("level", [False, True])
def test_a_refresh_that_changes_a_number_is_refused_and_auto_goes_on(level):
    class Climbing(Potential):
        redraws = True

        def __init__(self):
            super().__init__()
            self.k = 0.0

        def refresh(self, x, noise, level=None):
            self.k = self.k + 1 if level is None else level

        def forward(self, x):
            return self.k * x.square().sum(1)

    steps = {"steps": PAYS_AFTER + 10, "step_size": 1e-4}
    sampler = AnnealedLangevin(**steps, sigma=2.0, sigma_end=1.0) if level else Langevin(**steps)
    with pytest.raises(ValueError, match="Climbing.refresh changes a number: make it a tensor"):
        replace(sampler, backend="trace")(Climbing(), torch.ones(3, 2), noise=0)
    eager = replace(sampler, backend="eager")(Climbing(), torch.ones(3, 2), noise=0)
    for _ in range(2):
        assert_same(sampler(Climbing(), torch.ones(3, 2), noise=0), eager)


def test_a_kept_program_keeps_no_model_alive():
    net, x = made("mlp_sn")
    potential = Tethered(net, x, 0.1)
    TRACE(potential, x)
    references = [weakref.ref(one) for one in (potential, net, net.net[0].bias)]
    (program,) = kept()
    assert isinstance(program, Program)
    del net, potential
    gc.collect()
    assert all(reference() is None for reference in references)


def test_energies_of_steps_that_nobody_looks_at_are_not_computed():
    seen = []

    class Looking(Langevin):
        def step(self, potential, state, noise):
            after = super().step(potential, state, noise)
            seen.append(after.energy)
            return after

    net, x = made("mlp")
    sampler = Looking(3, 0.1, backend="trace")
    chain = sampler(net, x, noise=1)
    assert [bool(energy.isnan().all()) for energy in seen] == [True, True, False]
    assert torch.equal(seen[2], chain.energy)
    assert_same(chain, Langevin(3, 0.1, backend="eager")(net, x, noise=1))
    sampler(net, x, noise=1, watch=lambda step, state: None)
    assert not any(energy.isnan().any() for energy in seen[3:])


@pytest.mark.parametrize("name", ["eager", "trace"])
def test_gradients_are_tensors_of_their_own(name):
    x, weight = torch.randn(4, 2), torch.randn(4, 2)
    kept_weight = weight.clone()

    class Slope(Potential):
        def __init__(self):
            super().__init__()
            self.weight = weight

        def forward(self, x):
            return (self.weight * x).sum(1)

    class First(Potential):
        def forward(self, x):
            return x[:, 0]

    chain = Langevin(2, 2.0, 0.0, grad_clamp=0.5, max_drift=0.25, backend=name)(Slope(), x)
    chain.grad.zero_()
    assert torch.equal(weight, kept_weight)
    seen = []
    Langevin(2, 1.0, 0.0, backend=name)(First(), x, watch=lambda step, state: seen.append(state.energy))
    torch.testing.assert_close(seen[0], x[:, 0])  # not a view of a state that moves


def looks(calls):
    def hook(module, inputs, output=None, times=1):
        length = None if output is None else len(output)
        calls.append((module, length, None if output is None else output.requires_grad, times))

    hook.observes = True
    return hook


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_hooks_that_only_look_are_told_of_all_steps(sampler):
    net, x = made("mlp")
    counts = {}
    for backend in ("eager", "trace", "trace"):
        calls = []
        handles = [
            handle
            for part in net.modules()
            for handle in (part.register_forward_pre_hook(looks(calls)), part.register_forward_hook(looks(calls)))
        ]
        replace(sampler, backend=backend)(net, x, noise=1)
        for handle in handles:
            handle.remove()
        tally = {}
        for module, *what, times in calls:
            tally[module, *what] = tally.get((module, *what), 0) + times
        assert counts.setdefault("eager", tally) == tally
        assert backend == "eager" or len(calls) == 2 * len(list(net.modules()))  # one call for all steps
    assert len(kept()) == 1
    replace(sampler, backend="trace")(net, x, noise=1)  # nobody looks any more: nothing is told
    assert len(calls) == 2 * len(list(net.modules()))


def test_hooks_that_do_more_forbid_a_program():
    net = linear()
    net.register_forward_hook(lambda module, inputs, output: 2 * output)
    x = torch.randn(3, 2)
    with pytest.raises(ValueError, match="backend trace cannot run this potential: Linear has hooks; take auto or"):
        TRACE(net, x)
    steps = PAYS_AFTER
    auto, eager = (Langevin(steps, 0.01, backend=backend)(net, x, noise=1) for backend in ("auto", "eager"))
    assert_same(auto, eager)


def test_whole_modules_that_a_potential_only_holds_do_not_matter():
    net, x = made("mlp")
    held = Held(net, [1, "two", (3.0, None), {"four": torch.zeros(3)}])
    assert_same(assert_backends_agree(TRACE, held, x), TRACE(net, x, noise=1))
