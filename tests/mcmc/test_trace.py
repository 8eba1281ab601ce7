"""A trace holds the operations of autograd, what does not depend on the state apart, or it is refused."""

import gc
import weakref

import pytest
import torch
from torch import nn

from ebmzoo.mcmc import Langevin, Potential
from ebmzoo.mcmc.backend import PAYS_AFTER
from ebmzoo.mcmc.trace import Trace

from .examples import assert_same, kept, made


def test_only_what_depends_on_the_state_is_run_at_every_step():
    net, _ = made("vaebm")
    net.eval().requires_grad_(False)
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())

    def function(x, *values):
        return torch.func.functional_call(net, dict(zip(tensors, values, strict=True)), (x,))

    trace = Trace(function, torch.randn(3, *net.image_shape), [], list(tensors.values()))
    moving = [str(op.function) for op in trace._program if trace._moves(op)]
    still = [str(op.function) for op in trace._program if not trace._moves(op)]
    assert any("norm" in name for name in still) and not any("norm" in name for name in moving)
    assert any("mm" in name for name in still)  # the folded kernels
    assert sum("convolution.default" in name for name in moving) == sum(
        isinstance(part, nn.Conv2d) for part in net.modules()
    )


def test_what_moves_is_an_input_of_every_step_and_the_rest_is_baked():
    def function(x, eps, weight):
        return ((x + 2 * eps) * weight.exp()).square().sum(1)

    x, eps, weight = (torch.randn(4, 2) for _ in range(3))
    trace = Trace(function, torch.zeros(4, 2), [torch.zeros(4, 2)], [torch.zeros(4, 2)])
    both, gradient = trace.main(energy=True), trace.main(energy=False)
    baked = trace.bake([weight])
    assert any(torch.equal(tensor, weight.exp()) for tensor in baked)
    energy, grad = both(x, eps, *baked)
    assert torch.equal(energy, function(x, eps, weight))
    x = x.requires_grad_()
    (expected,) = torch.autograd.grad(function(x, eps, weight).sum(), x)
    assert torch.equal(grad, expected) and torch.equal(gradient(x.detach(), eps, *baked)[0], expected)
    # Nobody looks at the energy: what only it needs is not computed.
    assert len(gradient.__code__.co_code) < len(both.__code__.co_code)


def test_a_gradient_is_a_tensor_of_its_own():
    for function in (
        lambda x, w: (w * x).sum(1),
        lambda x, w: x.sum(1),
        lambda x, w: x[:, 0],
        lambda x, w: 0 * x[:, 0],
    ):
        x, w = torch.randn(4, 2), torch.randn(4, 2)
        trace = Trace(function, x, [], [w])
        before = w.clone()
        energy, grad = trace.main(energy=True)(x, *trace.bake([w]))
        expected = x.clone()
        grad.mul_(3.0)
        energy.mul_(3.0)
        assert torch.equal(x, expected) and torch.equal(w, before) and grad.is_contiguous()
        again = trace.main(energy=True)(x, *trace.bake([w]))
        torch.testing.assert_close(grad, 3 * again[1])
        torch.testing.assert_close(energy, 3 * function(x, w))


class Drawing(Potential):
    def forward(self, x):
        return (x + torch.randn_like(x)).square().sum(1)


class Branching(Potential):
    def __init__(self):
        super().__init__()
        self.register_buffer("flag", torch.tensor(True))

    def forward(self, x):
        return x.square().sum(1) if self.flag else x.abs().sum(1)


class Choosing(Potential):
    def forward(self, x):
        return x[x.sum(1) > -100].square().sum(1)


class Writing(Potential):
    def forward(self, x):
        return (2 * x).square_().sum(1)


hidden = torch.ones(2)


class Hidden(Potential):
    def forward(self, x):
        return (hidden * x).square().sum(1)


class Counting(Potential):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.calls * x.square().sum(1)


class Remembering(Potential):
    def __init__(self):
        super().__init__()
        self.last = torch.zeros(4, 2)

    def forward(self, x):
        energy = (x - self.last).square().sum(1)
        self.last = x.detach()
        return energy


REFUSED = {
    Drawing: "draws random numbers",
    Branching: "takes a Python value from a tensor",
    Choosing: "makes shapes of a tensor's values",
    Writing: "writes in place",
    Hidden: r"reads a tensor of shape \(2,\) that it does not hold",
    Counting: "its forward changes what it holds",
    Remembering: "its forward replaces a tensor that it holds",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_what_a_trace_would_freeze_is_refused_and_auto_stays_eager(kind):
    x = torch.randn(4, 2)
    with pytest.raises(ValueError, match=f"backend trace cannot run this potential: .*{REFUSED[kind]}"):
        Langevin(1, 0.01, backend="trace")(kind(), x, noise=0)
    if kind in (Counting, Remembering):
        return  # to try, auto must call them
    chains = []
    for backend in ("eager", "auto", "auto"):
        torch.manual_seed(0)
        potential = kind()
        chains.append(Langevin(PAYS_AFTER, 0.01, backend=backend)(potential, x, noise=1))
    assert_same(chains[0], chains[1])
    assert_same(chains[0], chains[2])
    assert [type(reason) for reason in kept()] == [str]  # remembered
    reference = weakref.ref(potential)
    del potential
    gc.collect()
    assert reference() is None  # without what it happened in


def test_subclasses_of_tensors_are_refused():
    class Named(torch.Tensor):
        pass

    class Holding(Potential):
        def __init__(self):
            super().__init__()
            self.scale = torch.ones(2).as_subclass(Named)

        def forward(self, x):
            return (self.scale * x).square().sum(1).as_subclass(torch.Tensor)

    with pytest.raises(ValueError, match="backend trace cannot run"):
        Langevin(1, backend="trace")(Holding(), torch.randn(4, 2))
