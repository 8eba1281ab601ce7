"""Faults put into real runs, each once in a process: a run that goes back must not meet it again."""

from dataclasses import replace

import torch
from lightning import Callback


class Fault(Callback):
    """Does harm at a training step, by default once in this process."""

    done: set[type] = set()

    def __init__(self, step: int = 30):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and type(self) not in self.done:
            self.done.add(type(self))
            self.harm(pl_module, batch)


class BadBatch(Fault):
    """A NaN in a batch."""

    def harm(self, method, batch):
        batch[0, ..., 0] = torch.nan


class LoudEnergy(Fault):
    """Energies 10,000 times as large from then on."""

    def harm(self, method, batch):
        method.ebm.network.register_forward_hook(lambda module, inputs, energy: 1e4 * energy)


class FrozenChain(Fault):
    """A chain that does not move from then on."""

    def harm(self, method, batch):
        method.sampler = replace(method.sampler, step_size=1e-30)


class Mark(Callback):
    """Writes how far a run has come into a file, for whoever kills it."""

    def __init__(self, path: str):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with open(self.path, "w") as file:
            file.write(str(trainer.global_step))
