"""Who evaluates a potential: autograd, or a program once it pays, plain, compiled or captured."""

from dataclasses import replace

import pytest
import torch

from ebmzoo.mcmc import Langevin, Potential
from ebmzoo.mcmc.backend import PAYS_AFTER
from ebmzoo.mcmc.program import Program
from ebmzoo.networks import MLPEnergy

from .examples import assert_same, kept, linear, made


def test_auto_records_once_it_pays():
    net, x = made("mlp")
    for _ in range(PAYS_AFTER // 10 - 1):
        Langevin(10, 0.1)(net, x, noise=1)
    assert kept() == [PAYS_AFTER - 10]
    auto = Langevin(10, 0.1)(net, x, noise=1)
    assert [type(entry) for entry in kept()] == [Program]
    assert_same(auto, Langevin(10, 0.1, backend="eager")(net, x, noise=1))
    program = kept()[0]
    Langevin(10, 0.1)(net, x, noise=1)
    Langevin(1, 0.1, backend="trace")(net, x, noise=1)
    assert kept() == [program]


def test_a_long_chain_pays_at_once_and_eager_counts_nothing():
    net, x = made("mlp")
    Langevin(10 * PAYS_AFTER, 1e-3, backend="eager")(net, x, noise=1)
    assert kept() == []
    Langevin(PAYS_AFTER, 1e-3)(net, x, noise=1)
    assert [type(entry) for entry in kept()] == [Program]


def test_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr("ebmzoo.mcmc.backend._KEPT", 2)
    trace, nets = Langevin(1, 0.1, backend="trace"), [MLPEnergy((2,), width=width) for width in (4, 5, 6)]
    x = torch.randn(3, 2)
    for net in nets[:2]:
        trace(net, x)
    first, second = kept()
    trace(nets[0], x)  # used again, it is the newest
    trace(nets[2], x)
    assert first in kept() and second not in kept() and len(kept()) == 2


def test_settings_that_change_the_operations_are_part_of_a_key():
    net, x = made("mlp")
    trace = Langevin(1, 0.1, backend="trace")
    trace(net, x)
    try:
        torch.use_deterministic_algorithms(True)
        trace(net, x)
    finally:
        torch.use_deterministic_algorithms(False)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            trace(net, x)
    assert len(kept()) == 4


def test_plain_functions_are_never_recorded():
    x = torch.randn(4, 2)

    def scaled(x):
        return x.square().sum(1)

    with pytest.raises(ValueError, match="what a plain function reads cannot be compared: make it a Potential; take a"):
        Langevin(1, backend="trace")(scaled, x)
    auto, eager = (Langevin(2 * PAYS_AFTER, 0.1, backend=one)(scaled, x, noise=1) for one in ("auto", "eager"))
    assert_same(auto, eager)
    assert kept() == []


def test_errors_of_a_potential_are_its_own_whoever_evaluates():
    class Wrong(Potential):
        def forward(self, x):
            return x @ torch.zeros(5)

    for backend in ("auto", "eager", "trace"):
        with pytest.raises(RuntimeError, match="size mismatch"):
            Langevin(PAYS_AFTER, backend=backend)(Wrong(), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="the state is on cpu"):
        Langevin(1, backend="cudagraph")(linear(), torch.zeros(4, 2))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_chain_is_the_eager_one_to_1e_5_of_the_gradient():
    net, x = made("mlp")
    sampler = Langevin(1, 2.0, 0.0)  # the step is the gradient
    eager = replace(sampler, backend="eager")(net, x)
    compiled = replace(sampler, backend="compile")(net, x)
    gradient = (x - eager.x).abs().max()
    assert ((compiled.x - eager.x).abs().max() / gradient) < 1e-5
    torch.testing.assert_close(compiled.energy, eager.energy, rtol=1e-5, atol=1e-5)
