"""What the loop promises whatever the kernel: nothing leaks or moves, and what goes in, comes out and is watched."""

import ctypes
import resource
import subprocess
import sys

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import (
    HMC,
    MALA,
    AnnealedLangevin,
    Langevin,
    Potential,
    Row,
    Sampler,
    State,
    Tethered,
    UnderdampedLangevin,
    as_noise,
)

SAMPLERS = [Langevin(4, 0.1), MALA(4, 0.1), HMC(2, 0.1, leapfrogs=2), UnderdampedLangevin(4, 0.1)]
NOISE_FIRST = Langevin(4, 0.1, noise_first=True, bounds=(-1.5, 1.5), grad_clamp=2.0)


def quartic(x):
    return (x**4).flatten(1).sum(1)


class Quartic(Potential):
    def forward(self, x):
        return quartic(x)


class AtAnyLevel(Quartic):
    redraws = True

    def refresh(self, x, noise, level=None):
        pass


class Noisy(Potential):
    """Quartic, about fresh noise."""

    redraws = True

    def refresh(self, x, noise, level=None):
        self.xi = noise.normal(x.shape, x)

    def forward(self, x):
        return quartic(x + self.xi)


def start(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def conv_energy():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(), nn.Flatten(), nn.LazyLinear(1))
    net = nn.Sequential(body, nn.Flatten(0))
    net(torch.randn(4, 3, 8, 8))
    return net


@pytest.mark.parametrize("sampler", [*SAMPLERS, NOISE_FIRST], ids=str)
def test_a_chain_is_its_steps_and_a_step_leaves_its_arguments_as_they_are(sampler):
    x, noise, potential = start(5, 3), as_noise(1), Quartic()
    state, seen = sampler.start(potential, x, noise), []
    for _ in range(sampler.steps):
        before = State(*(part.clone() if isinstance(part, torch.Tensor) else part for part in state))
        after = sampler.step(potential, state, noise)
        assert all(a is b or torch.equal(a, b) for a, b in zip(before, state, strict=True))
        seen.append(before)
        state = after
    chain = sampler(potential, x, noise=1)
    assert torch.equal(chain.x, state.x) and torch.equal(chain.energy, state.energy)
    assert torch.equal(chain.grad, state.grad)
    if sampler.adjusted:
        assert torch.equal(chain.acceptance, state.accepted / sampler.steps)
    else:
        assert chain.acceptance is None


def test_a_state_of_several_parts_is_one_row():
    x, y, row = start(5, 2), start(5, 3, 1), Row(((2,), (3, 1)))

    class Joint(Potential):
        def forward(self, state):
            x, y = row.parts(state)
            return quartic(x) + 0.5 * y.flatten(1).square().sum(1) + x.sum(1) * y.flatten(1).sum(1)

    for sampler in SAMPLERS:
        chain = sampler(Joint(), row.pack(x, y), noise=2)
        a, b = row.parts(chain.x)
        assert a.shape == x.shape and b.shape == y.shape
        if sampler.adjusted:
            torch.testing.assert_close(chain.energy, Joint()(row.pack(a, b)), rtol=1e-12, atol=1e-12)
    # Without noise each part goes its own way, coupled as it is.
    a, b = row.parts(Langevin(1, 0.2, 0.0)(Joint(), row.pack(x, y)).x)
    torch.testing.assert_close(a, x - 0.1 * (4 * x**3 + y.flatten(1).sum(1, keepdim=True)))
    torch.testing.assert_close(b, y - 0.1 * (y + x.sum(1)[:, None, None]))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_what_a_potential_is_conditioned_on_is_a_constant(sampler):
    x, origin = start(5, 2), 2 * start(5, 2)
    chain = sampler(Tethered(quartic, origin.requires_grad_(True), 2.0), x, noise=2)
    written = sampler(lambda x: quartic(x) + (x - origin.detach()).square().sum(1), x, noise=2)
    torch.testing.assert_close(chain.x, written.x, rtol=0, atol=1e-13)
    assert not any(value.requires_grad for value in chain if value is not None) and origin.grad is None


def test_a_noisy_potential_sees_fresh_noise_at_every_step_by_hand():
    x, noise = start(5, 2), as_noise(4)
    expected = x
    for _ in range(3):
        drawn = noise.normal((5, 2), x)
        expected = expected - 0.05 * 4 * (expected + drawn) ** 3 + 0.1**0.5 * noise.normal((5, 2), x)
    chain = Langevin(3, 0.1)(Noisy(), x, noise=4)
    torch.testing.assert_close(chain.x, expected, rtol=1e-12, atol=1e-12)
    for sampler in (MALA(1), HMC(1), Langevin(1, proposals=1)):
        with pytest.raises(ValueError, match="one fixed density: Noisy redraws"):
            sampler(Noisy(), x)


def test_a_chain_of_no_steps_evaluates_where_it_is():
    x = start(5, 2)
    for sampler in SAMPLERS:
        chain = sampler(Quartic(), x, steps=0, noise=0)
        assert torch.equal(chain.x, x) and torch.equal(chain.energy, quartic(x))
        torch.testing.assert_close(chain.grad, 4 * x**3)
        assert chain.acceptance is None or not chain.acceptance.any()
    drawn = as_noise(3).normal((5, 2), x)
    torch.testing.assert_close(Langevin()(Noisy(), x, steps=0, noise=3).energy, quartic(x + drawn))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_nothing_moves_and_nothing_escapes(sampler):
    net = conv_energy().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(3, 3, 8, 8)
    kept = x.clone()
    chain = sampler(net, x, noise=0)
    assert torch.equal(x, kept) and not torch.equal(chain.x, kept)
    assert not any(value.requires_grad for value in chain if value is not None)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(part.training for part in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_inference_mode_gives_the_same_chain(sampler):
    net, x = conv_energy().eval(), torch.randn(3, 3, 8, 8)
    expected = sampler(net, x, noise=0)
    with torch.inference_mode():
        inside = sampler(net, x.clone(), noise=0)
    assert torch.equal(inside.x, expected.x) and torch.equal(inside.energy, expected.energy)


def test_the_state_stays_at_least_fp32_under_autocast():
    net, x = conv_energy().eval(), torch.randn(3, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        chain = MALA(2, 1e-6, 1e-6)(net, x, noise=0)
    assert chain.x.dtype == chain.energy.dtype == torch.float32
    assert (chain.x != x).float().mean() > 0.2  # steps of 1e-6 would vanish in a bf16 state
    assert Langevin(1)(quartic, x.bfloat16(), noise=0).x.dtype == torch.float32
    assert Langevin(1)(quartic, x.double(), noise=0).x.dtype == torch.float64


def test_each_chain_sees_its_own_gradient_whatever_the_batch():
    x = start(8, 2)
    together = Langevin(3, 0.1, 0.0)(quartic, x).x
    torch.testing.assert_close(together[:1], Langevin(3, 0.1, 0.0)(quartic, x[:1]).x, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["eager", "trace"])
@pytest.mark.parametrize("sampler", [*SAMPLERS, NOISE_FIRST, AnnealedLangevin(3, 0.1)], ids=str)
def test_a_watcher_sees_every_step_with_energy_and_gradient_of_the_very_place(sampler, backend):
    potential = AtAnyLevel() if isinstance(sampler, AnnealedLangevin) else Quartic()
    seen, x = [], start(4, 2)
    sampler = type(sampler)(**{**vars(sampler), "backend": backend})
    chain = sampler(potential, x, noise=0, watch=lambda *args: seen.append(args))
    assert torch.equal(sampler(potential, x, noise=0).x, chain.x)  # to look changes nothing
    assert [step for step, _ in seen] == list(range(sampler.steps))
    noise_first = getattr(sampler, "noise_first", False)
    assert torch.equal(seen[0][1].x, x) is not noise_first
    if noise_first:
        torch.testing.assert_close(seen[0][1].x, x + 0.1**0.5 * as_noise(0).normal(x.shape, x))
    clamp = getattr(sampler, "grad_clamp", None) or torch.inf
    for _, state in seen:
        torch.testing.assert_close(state.energy, quartic(state.x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(state.grad, (4 * state.x**3).clamp(-clamp, clamp), rtol=1e-12, atol=1e-12)
    assert len({tuple(state.x.flatten().tolist()) for _, state in seen}) == sampler.steps  # none was overwritten


def test_generators_seeds_and_noises_are_one():
    x, sampler = start(4, 2), Langevin(3, 0.1)
    chains = [sampler(quartic, x, noise).x for noise in (5, torch.Generator().manual_seed(5), as_noise(5))]
    assert torch.equal(chains[0], chains[1]) and torch.equal(chains[0], chains[2])
    torch.manual_seed(5)
    assert torch.equal(sampler(quartic, x).x, chains[0])  # without one, torch's own generator draws


def test_what_cannot_be_is_refused_in_one_line():
    x = start(4, 2)
    with pytest.raises(ValueError, match=r"one energy per example, shape \(4,\), not \(\)"):
        Langevin(1)(lambda x: x.sum(), x)
    with pytest.raises(ValueError, match="step_size must be positive"):
        Langevin(1, -0.1)
    with pytest.raises(ValueError, match="temperature not negative, not 0.01 and -1"):
        Langevin(1, temperature=-1)
    with pytest.raises(ValueError, match="steps and proposals are counts, not -1 and 0"):
        Langevin(-1)
    with pytest.raises(ValueError, match="choose one of auto, eager, trace"):
        Langevin(1, backend="fast")
    with pytest.raises(ValueError, match="cannot run -1 steps"):
        Langevin(1)(quartic, x, steps=-1)
    with pytest.raises(TypeError, match="base of the samplers"):
        Sampler(1)(quartic, x)


class _Allocated(ctypes.Structure):
    """glibc's account of what has been allocated and not freed; the two of interest are bytes."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


ACCOUNT = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None


@pytest.mark.skipif(not ACCOUNT, reason="needs glibc")
@pytest.mark.parametrize("kind", [Langevin, MALA])
def test_nothing_is_left_allocated_by_a_step(kind):
    ACCOUNT.restype = _Allocated
    used = []

    def count(step, state):
        now = ACCOUNT()
        used.append(now.uordblks + now.hblkhd)

    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3), nn.Flatten())
    net = nn.Sequential(body, nn.Linear(900, 1), nn.Flatten(0))
    kind(1, 1e-3)(net, torch.randn(16, 3, 32, 32), steps=30, noise=0, watch=count)
    assert len(used) == 30 and used[-1] - used[9] < 192 * 1024  # that of one state


MEMORY = """
import resource, torch
from torch import nn
from ebmzoo.mcmc import Langevin, MALA
torch.set_num_threads(1)
conv = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3))
net = nn.Sequential(conv, nn.Flatten(), nn.Linear(900, 1), nn.Flatten(0))
x = torch.randn(16, 3, 32, 32)
for sampler in (Langevin(1, 1e-3), MALA(1, 1e-3)):
    sampler(net, x, steps=60, noise=0)  # long enough to be recorded
    short = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sampler(net, x, steps=150, noise=0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - short)
"""


@pytest.mark.slow  # the same without glibc: seconds of a process of its own
@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="needs getrusage")
def test_memory_does_not_grow_with_the_number_of_steps():
    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=120)
    grown = [int(line) for line in out.stdout.split()]  # KiB; one leaked state a step would be 17 MiB
    assert len(grown) == 2 and max(grown) < 2048
