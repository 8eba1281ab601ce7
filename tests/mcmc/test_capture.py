"""Chains whose prologue and steps are captured: the same as without, of the tensors as they are now.

What captures here stands in for CUDA's graphs: it runs the function again, on the same tensors.
"""

import gc
import weakref
from dataclasses import dataclass, replace

import pytest
import torch

from ebmzoo.mcmc import (
    HMC,
    MALA,
    AnnealedLangevin,
    JointNoise,
    Langevin,
    PerImageNoise,
    ReplicaExchange,
    Sampler,
    Tethered,
    UnderdampedLangevin,
)
from ebmzoo.mcmc.backend import PAYS_AFTER
from ebmzoo.mcmc.capture import Captured, capture_graph, captured_by
from ebmzoo.networks import MLPEnergy

from .examples import NETWORKS, SAMPLERS, Again, Spread, assert_same, kept, made

GRAPH = pytest.param(capture_graph, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))


def chains(sampler, potential, x, noise=1, **settings):
    """Eager, and captured; and what captured."""
    eager = replace(sampler, backend="eager")(potential, x, noise=noise, **settings)
    again = Again()
    with captured_by(again):
        return eager, replace(sampler, backend="cudagraph")(potential, x, noise=noise, **settings), again


OTHERS = [
    Langevin(3, 0.1, noise_first=True),
    Langevin(3, 0.1, 0.0),
    UnderdampedLangevin(3, 0.1),
    HMC(2, 1e-3, jitter=0.5),
    ReplicaExchange(2, 1e-3, ladder=(2.0, 4.0)),
]


CASES = [(name, sampler) for name in NETWORKS for sampler in SAMPLERS] + [("mlp", sampler) for sampler in OTHERS]


@pytest.mark.parametrize(("name", "sampler"), CASES, ids=repr)
def test_a_captured_chain_is_the_eager_one_to_the_last_bit(name, sampler):
    net, x = made(name)
    eager, captured, again = chains(sampler, net, x)
    assert_same(captured, eager)
    assert (again.captures, again.replays) == (2, 3 + sampler.steps)  # the prologue and a step, each looked at once


def test_a_step_size_that_a_warm_up_finds_is_no_graphs():
    net, x = made("mlp")
    eager, captured, again = chains(MALA(3, 1e-3, warmup=5), net, x)
    assert_same(captured[:5], eager[:5])
    assert captured.step_size == eager.step_size and not again.captures


def test_an_annealed_chain_with_fresh_noise_is_one_graph_for_all_its_levels():
    net, x = made("mlp")
    sampler = AnnealedLangevin(5, 0.1, sigma=0.5, sigma_end=0.1, grad_clamp=5.0)
    eager, captured, again = chains(sampler, Spread(net), x)
    assert (again.captures, again.replays) == (2, 8)
    assert not torch.equal(eager.x, x)
    # The step size is a tensor, and the update is not fused with it.
    for one, other in zip(captured[:3], eager[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_so_it_is_under_autocast():
    net, x = made("multiscale")
    with torch.autocast("cpu", torch.bfloat16):
        eager, captured, _ = chains(Langevin(3, 0.1), net, x)
    assert_same(captured, eager)


@pytest.mark.parametrize(
    "noise",
    [
        lambda: JointNoise(torch.Generator().manual_seed(0), 1, 2),
        lambda: PerImageNoise([4, 5, 6]),
        lambda: torch.Generator().manual_seed(3),
    ],
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_source_of_noise_fills_the_graphs_buffers(noise, sampler):
    net, x = made("mlp")
    eager = replace(sampler, backend="eager")(net, x, noise=noise())
    with captured_by(Again()):
        assert_same(replace(sampler, backend="cudagraph")(net, x, noise=noise()), eager)


def test_weights_and_origins_are_read_anew_by_every_chain_and_results_are_no_buffers():
    net, x = made("vaebm")
    again, sampler = Again(), Langevin(3, 0.1, backend="cudagraph")
    with captured_by(again):
        first = sampler(Tethered(net, x, 2.0), x, noise=1)
        before = first.x.clone()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.1)
        second = sampler(Tethered(net, x + 1, 2.0), x, noise=1)
    assert torch.equal(first.x, before) and again.captures == 2
    assert_same(second, replace(sampler, backend="eager")(Tethered(net, x + 1, 2.0), x, noise=1))


def test_auto_captures_in_the_second_chain_of_a_shape_and_other_samplers_share_the_program():
    net, x = made("mlp")
    again = Again()
    with captured_by(again):
        Langevin(3, 0.1)(net, x, noise=1)
        assert again.captures == 0
        found = Langevin(3, 0.1)(net, x, noise=1)
        assert (again.captures, again.replays) == (2, 6)
        Langevin(3, 0.2)(net, x, noise=1)
        assert again.captures == 3 and len(kept()) == 1
        Langevin(3, 0.1)(net, x[:2], noise=1)
        assert again.captures == 3
        MLP = MLPEnergy((2,), width=4)
        Langevin(PAYS_AFTER, 1e-3)(MLP, torch.zeros(3, 2), noise=1)
        assert again.captures == 5  # a long chain at once
    assert_same(found, Langevin(3, 0.1, backend="eager")(net, x, noise=1))


def test_a_watched_chain_is_no_graph():
    net, x = made("mlp")
    seen = []
    eager, captured, again = chains(Langevin(3, 0.1), net, x, watch=lambda step, state: seen.append(step))
    assert_same(captured, eager)
    assert again.captures == 0 and seen == [0, 1, 2] * 2


@dataclass(frozen=True)
class Choosy(Langevin):
    """Its step needs the host."""

    def step(self, potential, state, noise):
        if isinstance(state.x.sum().item(), float) and type(potential).__name__ == "_Still":
            raise RuntimeError("the host waits")
        return super().step(potential, state, noise)


def test_what_cannot_be_captured_is_refused_and_auto_walks_on_the_program():
    net, x = made("mlp")
    with captured_by(Again()):
        for _ in range(2):
            with pytest.raises(ValueError, match="a step of Choosy cannot be captured: the host waits; take auto"):
                Choosy(2, 0.1, backend="cudagraph")(net, x)
        auto = [Choosy(2, 0.1)(net, x, noise=1) for _ in range(3)][-1]
    assert_same(auto, Langevin(2, 0.1, backend="eager")(net, x, noise=1))


@pytest.mark.parametrize("which", [1, 2])
def test_a_graph_that_gives_something_else_is_none(which):
    net, x = made("mlp_sn")
    count = []

    def capture(run):
        count.append(run)
        return (lambda: None) if len(count) >= which else run

    with captured_by(capture):
        assert_same(Langevin(PAYS_AFTER, 0.1)(net, x, noise=1), Langevin(PAYS_AFTER, 0.1, backend="eager")(net, x, 1))
        with pytest.raises(ValueError, match="gives something else" if which == 1 else "gives another gradient"):
            Langevin(PAYS_AFTER, 0.1, backend="cudagraph")(net, x)


def test_a_number_that_refresh_changes_leaves_the_graph():
    class Counting(Spread):
        def refresh(self, x, noise, level=None):
            super().refresh(x, noise, level)
            self.count = getattr(self, "count", 0) + 1

        def forward(self, x):
            return super().forward(x) * self.count

    net, x = made("mlp")
    with captured_by(Again()):
        auto = Langevin(PAYS_AFTER, 1e-4)(Counting(net), x, noise=1)
    assert_same(auto, Langevin(PAYS_AFTER, 1e-4, backend="eager")(Counting(net), x, noise=1))


@pytest.mark.parametrize("sampler", [Langevin(6, 1e6), MALA(6, 0.1)])
def test_a_captured_chain_says_from_which_step_its_energy_is_no_number(sampler):
    class Falls(Spread):
        redraws = False
        refresh = Spread.__mro__[1].refresh

        def forward(self, x):
            return (3 - x).log().sum(1)

    x = torch.full((2, 2), 2.9)
    said = []
    for backend in ("eager", "cudagraph"):
        with captured_by(Again()):
            try:
                replace(sampler, backend=backend)(Falls(torch.nn.Identity()), x, noise=1)
                said.append("")
            except ValueError as error:
                said.append(str(error))
    assert said[0] == said[1] and ("NaN from step" in said[0]) == (not sampler.adjusted)


def test_graphs_hold_no_network_and_only_the_newest_programs_have_them(monkeypatch):
    monkeypatch.setattr("ebmzoo.mcmc.backend._CAPTURED", 2)
    with captured_by(Again()):
        for width in (4, 5, 6):
            net, x = MLPEnergy((2,), width=width), torch.zeros(3, 2)
            Langevin(2, 0.1, backend="cudagraph")(net, x)
    assert [program.captured is not None for program in kept()] == [False, True, True]
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("capture", [Again(), GRAPH])
def test_a_captured_function_reads_and_writes_where_it_did(capture):
    device = "cuda" if capture is capture_graph else "cpu"
    x, w = torch.randn(3, device=device), torch.randn(3, device=device)
    captured = Captured(lambda x, w: (x * w, x + w), [x, w], capture)
    places = [output.data_ptr() for output in captured.outputs]
    product, total = captured(3 * x, 2 * w)
    torch.testing.assert_close(product, 6 * x * w)
    torch.testing.assert_close(total, 3 * x + 2 * w)
    assert [product.data_ptr(), total.data_ptr()] == places


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("sampler", [*SAMPLERS, AnnealedLangevin(5, 0.1, sigma=0.5, sigma_end=0.1)], ids=repr)
def test_on_a_gpu_graphs_end_where_autograd_ends(sampler: Sampler):
    net, x = made("multiscale")
    net, x = net.cuda(), x.cuda()
    potential = Spread(net).cuda() if isinstance(sampler, AnnealedLangevin) else net
    eager = replace(sampler, backend="eager")(potential, x, noise=1)
    for _ in range(3):
        auto = sampler(potential, x, noise=1)
    for one, other in zip(auto[:3], eager[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
