"""What the kernel promises whatever the density: the normal form's arithmetic, and that nothing leaks or moves."""

import ctypes
import resource
import subprocess
import sys

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import HMC, MALA, Langevin, Sampler, as_noise, frozen

SAMPLERS = [Langevin(4, 0.1), MALA(4, 0.1), HMC(2, 0.1, leapfrogs=2)]


def quartic(x):
    return (x**4).flatten(1).sum(1)


def start(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()


def conv_energy():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(), nn.Flatten(), nn.LazyLinear(1))
    net = nn.Sequential(body, nn.Flatten(0))
    net(torch.randn(4, 3, 8, 8))
    return net


# Rows of the convention table: drift a, noise b, implied temperature b²/2a.
@pytest.mark.parametrize(
    ("drift", "noise", "temperature"),
    [
        (0.05, 1e-3, 1e-5),
        (4e-5, 8e-5**0.5, 1.0),
        (0.125, 1e-3, 4e-6),
        (0.045, 1e-3, 1.1e-5),
        (40.0, 0.01, 1.25e-6),
    ],
)
def test_decoupled_settings_mean_their_step(drift, noise, temperature):
    sampler = Langevin.from_noise(1, drift, noise)
    assert sampler.temperature == pytest.approx(temperature, rel=0.02)
    x = 0.1 * start(5, 3)
    expected = x - drift * 4 * x**3 + noise * as_noise(3).normal(x.shape, x)
    torch.testing.assert_close(sampler(quartic, x, noise=3).state, expected, rtol=1e-12, atol=1e-14)


def test_gradient_clamp_bounds_and_noise_first_by_hand():
    x = start(6, 2)
    clamped = Langevin(1, 0.5, 0.0, grad_clamp=0.3, bounds=(-0.9, 0.9))(quartic, x).state
    torch.testing.assert_close(clamped, (x - 0.25 * (4 * x**3).clamp(-0.3, 0.3)).clamp(-0.9, 0.9))
    noisy = x + 0.5**0.5 * as_noise(1).normal(x.shape, x)
    first = Langevin(1, 0.5, noise_first=True)(quartic, x, noise=1).state
    torch.testing.assert_close(first, noisy - 0.25 * 4 * noisy**3)


def test_max_drift_limits_the_length_of_each_example_alone():
    x = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    state = Langevin(1, 2.0, 0.0, max_drift=1.0)(lambda x: 0.5 * x.square().sum(1), x).state
    torch.testing.assert_close(state, torch.tensor([[2.4, 3.2], [0.0, 0.0]]))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_tuple_is_its_leaves_side_by_side(sampler):
    x, y = start(5, 2), start(5, 3, 1)

    def joint(x, y):
        return quartic(x) + 0.5 * y.flatten(1).square().sum(1) + x.sum(1) * y.flatten(1).sum(1)

    chain = sampler(joint, (x, y), noise=2)
    assert chain.state[0].shape == x.shape and chain.state[1].shape == y.shape
    again = sampler(joint, (x, y), noise=2)
    assert torch.equal(chain.state[0], again.state[0]) and torch.equal(chain.energy, again.energy)
    if sampler.metropolis:
        torch.testing.assert_close(chain.energy, joint(*chain.state), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_the_analytic_white_prior_is_the_written_one(sampler):
    x, y = start(5, 2), start(5, 3)
    written = sampler(lambda x, y: quartic(x) + 0.5 * y.square().sum(1), (x, y), noise=2)
    analytic = sampler(lambda x, y: quartic(x) + 0 * y.sum(1), (x, y), noise=2, white=[False, True])
    torch.testing.assert_close(analytic.state, written.state, rtol=0, atol=1e-13)
    torch.testing.assert_close(analytic.energy, written.energy, rtol=0, atol=1e-13)
    torch.testing.assert_close(analytic.grad_norm, written.grad_norm, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_what_is_given_is_a_constant_of_the_potential(sampler):
    x, origin = start(5, 2), 2 * start(5, 2)

    def pulled(x, origin):
        return quartic(x) + (x - origin).square().sum(1)

    chain = sampler(pulled, x, noise=2, given=[origin.requires_grad_(True)])
    closed = sampler(lambda x: pulled(x, origin.detach()), x, noise=2)
    assert torch.equal(chain.state, closed.state) and not chain.state.requires_grad


def test_a_noisy_potential_sees_fresh_noise_at_every_step_by_hand():
    x, noise = start(5, 2), as_noise(4)
    expected = x
    for _ in range(3):
        drawn = noise.normal((5, 2), x)
        expected = expected - 0.05 * 4 * (expected + drawn) ** 3 + 0.1**0.5 * noise.normal((5, 2), x)
    chain = Langevin(3, 0.1)(lambda x, xi: quartic(x + xi), x, noise=4, draws=[(2,)])
    torch.testing.assert_close(chain.state, expected, rtol=1e-12, atol=1e-12)
    for sampler in (MALA(1), HMC(1), Langevin(1, proposals=1)):
        with pytest.raises(ValueError, match="one fixed density"):
            sampler(lambda x, xi: quartic(x + xi), x, draws=[(2,)], white=True)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_nothing_moves_and_nothing_escapes(sampler):
    net = conv_energy().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(3, 3, 8, 8)
    kept = x.clone()
    chain = sampler(net, x, noise=0)
    assert torch.equal(x, kept) and not torch.equal(chain.state, kept)
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
    assert torch.equal(inside.state, expected.state) and torch.equal(inside.energy, expected.energy)


def test_the_state_stays_at_least_fp32_under_autocast():
    net, x = conv_energy().eval(), torch.randn(3, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        chain = MALA(2, 1e-6, 1e-6)(net, x, noise=0)
    assert chain.state.dtype == chain.energy.dtype == torch.float32
    assert (chain.state != x).float().mean() > 0.2  # steps of 1e-6 would vanish in a bf16 state
    assert Langevin(1)(quartic, x.bfloat16(), noise=0).state.dtype == torch.float32
    assert Langevin(1)(quartic, x.double(), noise=0).state.dtype == torch.float64


def test_each_chain_sees_its_own_gradient_whatever_the_batch():
    x = start(8, 2)
    together = Langevin(3, 0.1, 0.0)(quartic, x).state
    torch.testing.assert_close(together[:1], Langevin(3, 0.1, 0.0)(quartic, x[:1]).state, rtol=0, atol=0)


def test_callback_sees_every_step_with_its_energy():
    seen = []
    x = start(4, 2)
    Langevin(3, 0.1)(quartic, x, noise=0, callback=lambda *args: seen.append((args[0], args[1].clone(), args[2])))
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[0][1], x)
    for _, state, energy in seen:
        torch.testing.assert_close(energy, quartic(state))


def test_frozen_restores_every_flag_also_on_an_exception():
    net = conv_energy()
    net[0][1].eval()
    net[0][0].weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(net):
        assert not any(part.training for part in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        raise KeyError
    assert [part.training for part in net[0]] == [True, False, True, True, True]
    assert not net[0][0].weight.requires_grad and net[0][0].bias.requires_grad


def test_what_cannot_be_is_refused_in_one_line():
    x = start(4, 2)
    with pytest.raises(ValueError, match=r"one energy per example, shape \(4,\), not \(\)"):
        Langevin(1)(lambda x: x.sum(), x)
    with pytest.raises(ValueError, match="positive temperature"):
        MALA(1, temperature=0.0)
    with pytest.raises(ValueError, match="white-noise prior on every leaf"):
        MALA(1, proposals=1)(quartic, x)
    with pytest.raises(ValueError, match="step_size must be positive"):
        Langevin(1, -0.1)
    for wrong in ({"grad_clamp": -1.0}, {"max_drift": 0.0}, {"bounds": (1.0, -1.0)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Langevin(1, **wrong)
    with pytest.raises(ValueError, match="at least one leapfrog"):
        HMC(1, leapfrogs=0)
    with pytest.raises(ValueError, match="cannot run -1 steps"):
        Langevin(1)(quartic, x, steps=-1)
    with pytest.raises(TypeError, match="base of the samplers"):
        Sampler(1)(quartic, x)


def test_noise_floor_is_the_displacement_of_pure_noise():
    sampler = Langevin(7, 0.3, 0.2)
    x = torch.zeros(4000, 5).double()
    moved = sampler(lambda x: 0 * x.sum(1), x, noise=0).state.square().sum(1)
    assert abs(moved.mean() - sampler.noise_floor(5)) < 4 * moved.std() / 4000**0.5
    assert sampler.noise_floor(5) == pytest.approx(7 * 0.3 * 0.2 * 5)


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

    def count(step, x, energy):
        now = ACCOUNT()
        used.append(now.uordblks + now.hblkhd)

    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 1, 3), nn.Flatten())
    net = nn.Sequential(body, nn.Linear(900, 1), nn.Flatten(0))
    kind(1, 1e-3)(net, torch.randn(16, 3, 32, 32), steps=30, noise=0, callback=count)
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
    sampler(net, x, steps=20, noise=0)
    short = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sampler(net, x, steps=110, noise=0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - short)
"""


@pytest.mark.slow  # the same without glibc: seconds of a process of its own
@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="needs getrusage")
def test_memory_does_not_grow_with_the_number_of_steps():
    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=120)
    grown = [int(line) for line in out.stdout.split()]  # KiB; one leaked state a step would be 17 MiB
    assert len(grown) == 2 and max(grown) < 2048
