"""Chains as others write them are the kernel's, to the last bit."""

from functools import partial

import pytest
import torch

from benchmarks.plainly import plainly
from ebmzoo.mcmc import Langevin
from ebmzoo.networks import VAEBMEnergy
from ebmzoo.report import speed
from ebmzoo.report.speed_others import as_written, loop

SMALL = speed.Case(
    partial(VAEBMEnergy, (1, 8, 8), column="stacked_mnist", width=4), (1, 8, 8), 3, Langevin(steps=3, step_size=0.1)
)


def test_as_written_is_the_same_function_convolved_before_it_is_pooled():
    net = SMALL.energy().double()
    x = torch.randn(3, 1, 8, 8).double()
    written = as_written(net)
    torch.testing.assert_close(written(x), net(x), rtol=1e-12, atol=1e-12)

    def strides(net):
        with speed._Products() as products:
            net(x)
        return [call.args[3] for call in products.calls if call.func is torch.ops.aten.convolution.default]

    assert [2, 2] in strides(net) and set(map(tuple, strides(written))) == {(1, 1)}


@pytest.mark.parametrize("backward", [True, False])
def test_the_plain_loops_are_the_kernels_chain_to_the_last_bit(backward):
    net, x = as_written(SMALL.energy()), torch.randn(3, 1, 8, 8)
    chain = Langevin(steps=3, step_size=0.1, backend="trace")(net, x, noise=0)
    assert torch.equal(loop(net, x, SMALL.sampler, backward), chain.x)


def test_plainly_a_chain_runs_as_the_plain_loop_does_and_afterwards_as_before():
    net, x = SMALL.energy(), torch.randn(3, 1, 8, 8)
    before = SMALL.sampler(net, x, noise=0).x
    required = []
    hook = net.register_forward_pre_hook(
        lambda module, _: required.append(all(p.requires_grad and not module.training for p in module.parameters()))
    )
    with plainly(net), speed._Products() as products:
        plain = SMALL.sampler(net, x, noise=0).x
    hook.remove()
    strides = {tuple(call.args[3]) for call in products.calls if call.func is torch.ops.aten.convolution.default}
    assert required == [True] * 3 and strides == {(1, 1)} and net.training
    assert torch.equal(plain, loop(as_written(net), x, SMALL.sampler, backward=False))
    assert torch.equal(SMALL.sampler(net, x, noise=0).x, before)


def test_a_training_iteration_is_the_plainly_written_one():
    """Folded kernels, constants baked and one joint forward change the loss and its gradient by rounding alone."""
    net, data = SMALL.energy().double(), torch.rand(3, 1, 8, 8).double()
    net.initialise(data)
    start = torch.randn(3, 1, 8, 8).double()
    plain = as_written(net)
    negatives = loop(plain, start, SMALL.sampler, backward=False)
    loss = plain(data).mean() - plain(negatives).mean()
    state = SMALL.sampler(net, start, noise=0).x
    energies = net(torch.cat([data, state])).chunk(2)
    own = energies[0].mean() - energies[1].mean()
    torch.testing.assert_close(own, loss, rtol=1e-10, atol=1e-12)
    loss.backward()
    own.backward()
    for one, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)
