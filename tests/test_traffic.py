"""What two processes say to each other in an iteration: gradients of the players and means over the joint batch."""

from collections import Counter

import pytest
import torch
from lightning import Callback
from torch.utils.data import DataLoader

from ebmzoo.parts.calibration import Dual
from ebmzoo.report.dispatches import Dispatches

from .methods.cases import MOST_SLOW, seeded
from .processes import trainer, two_processes

LAST = 5  # an iteration in which every player learns, and which nobody looks at


class Traffic(Dispatches):
    """Notes each collective call, and the bytes that this process gives to it."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            tensors = [t for arg in args if isinstance(arg, list) for t in arg if isinstance(t, torch.Tensor)]
            self.calls.append((function._schema.name, sum(t.numel() * t.element_size() for t in tensors)))
        return super().__torch_dispatch__(function, types, args, kwargs)


class Listen(Callback):
    """The traffic of one iteration, and the bytes of the gradients that its updates were made with."""

    def __init__(self):
        self.traffic, self.gradients = Traffic(), []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.gradients.clear()
        if batch_idx == LAST:
            self.traffic.__enter__()

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.gradients.append(sum(gradient.numel() * gradient.element_size() for gradient in found))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == LAST:
            self.traffic.__exit__(None, None, None)


def listened(rank, name):
    method, listen = seeded(name), Listen()
    batches = DataLoader([torch.rand(4, *method.image_shape) * 2 - 1] * (LAST + 1), batch_size=None)
    trainer(2, max_epochs=1, log_every_n_steps=1000, callbacks=[listen]).fit(method, batches)
    biases = method.lower_steps if getattr(method, "ratio_bias", False) else 0  # BiDVL's r(v), Eq. 15
    means = sum(isinstance(part, Dual) for part in method.modules()) + biases
    return {"calls": listen.traffic.calls, "gradients": listen.gradients, "means": means}


@pytest.mark.parametrize("name", MOST_SLOW)
def test_an_iteration_reduces_a_players_gradients_at_its_update_and_means_and_says_nothing_else(name):
    """Chains need no word."""
    for one in two_processes(listened, name):
        assert one["gradients"] and min(one["gradients"]) > 4
        assert {kind for kind, _ in one["calls"]} == {"c10d::allreduce_"}
        expected = Counter(one["gradients"]) + Counter({4: one["means"]})
        assert Counter(size for _, size in one["calls"]) == expected
