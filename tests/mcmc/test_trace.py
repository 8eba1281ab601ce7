"""A trace is autograd's computation to the last bit, of the networks as they are now, or it is refused."""

import gc
import weakref
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from ebmzoo.mcmc import HMC, MALA, Langevin, backend
from ebmzoo.mcmc.backend import PAYS_AFTER, Captured
from ebmzoo.mcmc.trace import Trace
from ebmzoo.networks import (
    ConvEnergy,
    GaussianVAE,
    MLPDecoder,
    MLPEncoder,
    MLPEnergy,
    MultiScaleResNetEnergy,
    SNGANEnergy,
    VAEBMEnergy,
)
from ebmzoo.objectives import squared_error

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


@pytest.fixture(autouse=True)
def no_traces():
    backend._traces.clear()


def made(name, seed=0):
    torch.manual_seed(seed)
    net = NETWORKS[name]()
    return net, torch.randn(3, *net.image_shape)


def kept():
    return list(backend._traces.values())


def assert_same(one, other):
    """Equal to the last bit, in all that a sampler returns."""
    for a, b in zip(one, other, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_traced_chain_is_the_eager_one_to_the_last_bit(name, sampler):
    net, x = made(name)
    eager = replace(sampler, backend="eager")(net, x, noise=1)
    traced = replace(sampler, backend="trace")(net, x, noise=1)
    assert not torch.equal(eager.state, x)
    assert_same(traced, eager)
    assert all(part.training for part in net.modules())


@pytest.mark.parametrize("name", ["mlp", "multiscale"])
def test_so_it_is_under_autocast(name):
    net, x = made(name)
    plain = Langevin(3, 0.1, backend="trace")(net, x, noise=1)
    with torch.autocast("cpu", torch.bfloat16):
        eager, traced = (Langevin(3, 0.1, backend=b)(net, x, noise=1) for b in ("eager", "trace"))
    assert_same(traced, eager)
    assert traced.state.dtype == torch.float32 and not torch.equal(traced.state, plain.state)


def test_so_it_is_in_channels_last_with_the_kernels_reordered_once():
    net, x = made("multiscale")
    net.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    assert_same(*(Langevin(3, 0.1, backend=b)(net, x, noise=1) for b in ("trace", "eager")))


@pytest.mark.parametrize("white", [True, False])
def test_a_joint_state_its_prior_and_its_proposals(white):
    torch.manual_seed(0)
    vae, energy = GaussianVAE(IMAGE, MLPEncoder, MLPDecoder, latent_dim=4), MLPEnergy(IMAGE, width=16)
    state = torch.randn(3, *IMAGE), torch.randn(3, 4)

    def potential(x, z):
        return energy(vae.generate(z).mean + 0.1 * x)

    sampler = MALA(3, 0.1, proposals=2 if white else 0)
    chains = [
        replace(sampler, backend=b)(potential, state, noise=1, networks=[vae, energy], white=white)
        for b in ("eager", "trace")
    ]
    for a, b in zip(chains[0].state, chains[1].state, strict=True):
        assert torch.equal(a, b)
    assert_same(chains[0][1:], chains[1][1:])


def in_place(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)


def data_swapped(net):
    for parameter in net.parameters():
        parameter.data = parameter.data + 0.1


def loaded(net):
    net.load_state_dict({key: value + 0.1 for key, value in net.state_dict().items()})


def loaded_by_assignment(net):
    net.load_state_dict({key: value + 0.1 for key, value in net.state_dict().items()}, assign=True)


def moved(net):
    net.double()


def relaid(net):
    net.net[2].weight.data = net.net[2].weight.data.t().contiguous().t()


def rescaled(net):
    net.input_scale = 3.0


def rebuilt(net):
    net.net[1] = nn.Tanh()


def grown(net):
    parametrize.register_parametrization(net.net[0], "weight", nn.Tanh())


@pytest.mark.parametrize(
    "change",
    [in_place, data_swapped, loaded, loaded_by_assignment, moved, relaid, rescaled, rebuilt, grown],
    ids=lambda change: change.__name__,
)
def test_a_kept_trace_follows_what_becomes_of_the_network(change):
    net, x = made("mlp")
    sampler = Langevin(2, 0.1, backend="trace")
    before = sampler(net, x, noise=1)
    sampler(net, x, noise=1)
    assert len(kept()) == 1  # one trace for both
    change(net)
    if change is moved:
        x = x.double()
    after = sampler(net, x, noise=1)
    assert_same(after, replace(sampler, backend="eager")(net, x, noise=1))
    assert change is relaid or not torch.equal(before.state, after.state.float())


@dataclass
class Settings:
    weight: float


class Owner(nn.Module):
    """Stands for a method: in train mode, with a potential made at every call."""

    bias = 0.5

    def __init__(self):
        super().__init__()
        self.net, self.settings, self.numbers = MLPEnergy((2,), width=8), Settings(1.0), [1.0]
        self.register_buffer("offset", torch.zeros(()))
        self.unrelated = np.zeros(3)

    def energy(self, x):
        return self.settings.weight * self.net(x) + self.numbers[0]

    def run(self, sampler, x, origin, weight):
        def potential(x, origin):
            return self.energy(x) + self.bias * (x - self.offset).square().sum(1) + weight * squared_error(x, origin)

        return sampler(potential, x, noise=1, given=[origin], networks=[self.net])


def test_a_potential_made_at_every_call_is_traced_once_and_read_anew():
    owner, x, origin = Owner(), torch.randn(4, 2), torch.randn(4, 2)
    trace, eager = Langevin(2, 0.1, backend="trace"), Langevin(2, 0.1, backend="eager")
    first = owner.run(trace, x, origin, 0.3)
    assert_same(owner.run(trace, x, origin, 0.3), first)
    assert_same(owner.run(trace, x, 2 * origin, 0.3), owner.run(eager, x, 2 * origin, 0.3))
    owner.unrelated = "other"
    owner.run(trace, x, origin, 0.3)
    assert len(kept()) == 1
    owner.settings.weight = 2.0
    states = [first.state]
    for change in (
        lambda: owner.settings.__setattr__("weight", 2.0),
        lambda: owner.numbers.__setitem__(0, 2.0),  # moves the energy alone
        lambda: owner.__setattr__("bias", 0.1),
        lambda: owner.offset.fill_(1.0),
        lambda: owner.__setattr__("energy", lambda x: owner.net(2 * x)),
    ):
        change()
        traced = owner.run(trace, x, origin, 0.3)
        assert_same(traced, owner.run(eager, x, origin, 0.3))
        states.append(traced.state)
    assert len({tuple(state.flatten().tolist()) for state in states}) == 5
    assert_same(owner.run(trace, x, origin, 0.7), owner.run(eager, x, origin, 0.7))


SCALE = 1.0


def scaled(x):
    return SCALE * x.square().sum(1)


def test_a_global_number_is_read_anew(monkeypatch):
    x = torch.randn(4, 2)
    one = Langevin(1, 0.1, 0.0, backend="trace")(scaled, x).state
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    torch.testing.assert_close(Langevin(1, 0.1, 0.0, backend="trace")(scaled, x).x, x - 0.05 * 6 * x)
    torch.testing.assert_close(one, x - 0.05 * 2 * x)


class Noisy(nn.Module):
    def forward(self, x):
        return (x + torch.randn_like(x)).square().sum(1)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("flag", torch.tensor(True))

    def forward(self, x):
        return x.square().sum(1) if self.flag else x.abs().sum(1)


class Writing(nn.Module):
    def forward(self, x):
        return (2 * x).square_().sum(1)


class Coded:
    def __getattr__(self, name):
        return 1.0


def holding(value, energy):
    return lambda: lambda x: energy(x, value)


def hooked():
    net = MLPEnergy((2,), width=4)
    net.register_forward_hook(lambda *args: None)
    return net


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Noisy, "draws random numbers"),
        (Branching, "takes a Python value from a tensor"),
        (Writing, "writes in place"),
        (hooked, "MLPEnergy has hooks"),
        (holding(Coded(), lambda x, held: held.weight * x.square().sum(1)), "Coded, whose attributes are made by code"),
        (holding(MLPEnergy((2,), width=4), lambda x, held: held(x)), r"in train mode \(hand it"),
        (holding(np.ones(2), lambda x, held: float(held[0]) * x.square().sum(1)), "ndarray, whose contents"),
    ],
)
def test_what_a_trace_would_freeze_is_refused_and_auto_stays_eager(make, why):
    potential, x = make(), torch.randn(4, 2)
    with pytest.raises(ValueError, match=f"backend trace cannot run this potential: .*({why})"):
        Langevin(1, backend="trace")(potential, x, noise=0)
    torch.manual_seed(0)
    auto = Langevin(PAYS_AFTER)(potential, x, noise=1)
    torch.manual_seed(0)
    assert_same(auto, Langevin(PAYS_AFTER, backend="eager")(potential, x, noise=1))


def test_a_tensor_from_nowhere_and_fresh_noise_are_refused():
    x = torch.randn(4, 2)
    source = Settings(torch.ones(2))
    with pytest.raises(ValueError, match="none of its arguments and belongs to none of its networks"):
        Langevin(1, backend="trace")(lambda x: (getattr(source, "wei" + "ght") * x).square().sum(1), x)
    with pytest.raises(ValueError, match="fresh noise"):
        Langevin(1, backend="trace")(lambda x, xi: (x + xi).square().sum(1), x, draws=[(2,)])
    with pytest.raises(ValueError, match="choose one of auto, eager, trace"):
        Langevin(1, backend="fast")
    with pytest.raises(ValueError, match="the state is on cpu"):
        Langevin(1, backend="cudagraph")(scaled, x)


def test_auto_traces_once_it_pays():
    net, x = made("mlp")
    for _ in range(PAYS_AFTER // 10 - 1):
        Langevin(10, 0.1)(net, x, noise=1)
    assert not any(isinstance(entry, Trace) for entry in kept())
    auto = Langevin(10, 0.1)(net, x, noise=1)
    assert [type(entry) for entry in kept()] == [Trace]
    assert_same(auto, Langevin(10, 0.1, backend="eager")(net, x, noise=1))


def test_a_trace_keeps_no_network_alive():
    net, x = made("mlp_sn")
    Langevin(2, backend="trace")(net, x)
    parameter = weakref.ref(net.net[0].bias)
    (trace,) = kept()
    assert trace.alive
    del net
    gc.collect()
    assert parameter() is None and not trace.alive


@pytest.mark.parametrize("name", ["eager", "trace"])
def test_gradients_are_tensors_of_their_own(name):
    x, y = torch.randn(4, 2), torch.randn(4, 2)
    weight = torch.randn(4, 2)
    kept_weight = weight.clone()
    sampler = Langevin(1, 2.0, 0.0, grad_clamp=0.5, max_drift=0.25, backend=name)
    # Autograd hands both leaves the very same gradient, whose length is 2 here: scaled down once, not twice.
    state = sampler(lambda x, y: (x + y).sum(1), (x, y)).state
    torch.testing.assert_close(state[0], x - 0.125)
    torch.testing.assert_close(state[1], y - 0.125)
    sampler(lambda x: (weight * x).sum(1), x)
    assert torch.equal(weight, kept_weight)
    seen = []
    Langevin(2, 1.0, 0.0, backend=name)(lambda x: x[:, 0], x, callback=lambda step, state, e: seen.append(e))
    torch.testing.assert_close(seen[0], x[:, 0])  # not a view of the moving state


def test_only_what_depends_on_the_state_is_run_at_every_step():
    net, x = made("vaebm")
    Langevin(2, backend="trace")(net, x)
    (trace,) = kept()
    moving = [str(op.function) for op in trace._program if trace._moves(op)]
    still = [str(op.function) for op in trace._program if not trace._moves(op)]
    assert any("norm" in name for name in still) and not any("norm" in name for name in moving)
    assert any("mm" in name for name in still)  # the folded kernels
    assert sum("convolution.default" in name for name in moving) == sum(
        isinstance(part, nn.Conv2d) for part in net.modules()
    )


def test_captured_programs_read_and_write_buffers_that_stay():
    calls = []

    def program(x, w):
        calls.append((x.data_ptr(), w.data_ptr()))
        return (x * w, x + w)

    def capture(run):
        outputs = run()

        def replay():
            for buffer, new in zip(outputs, run(), strict=True):
                buffer.copy_(new)

        return replay, outputs

    x, w = torch.randn(3), torch.randn(3)
    captured = Captured(program, [x, w], moving=1, capture=capture)
    captured.bake([2 * w])
    first = captured(x, w)
    second = captured(3 * x)
    torch.testing.assert_close(first[0], 2 * x * w)  # the next replay did not overwrite it
    torch.testing.assert_close(second[1], 3 * x + 2 * w)
    assert len(set(calls)) == 1 and calls[0][0] != x.data_ptr() and calls[0][1] != w.data_ptr()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_chain_is_the_eager_one_to_1e_5_of_the_gradient():
    net, x = made("mlp")
    sampler = Langevin(1, 2.0, 0.0)  # the step is the gradient
    eager = replace(sampler, backend="eager")(net, x)
    compiled = replace(sampler, backend="compile")(net, x)
    gradient = (x - eager.state).abs().max()
    assert ((compiled.state - eager.state).abs().max() / gradient) < 1e-5
    torch.testing.assert_close(compiled.energy, eager.energy, rtol=1e-5, atol=1e-5)
