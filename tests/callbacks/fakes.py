"""A small method and small data that follow the contracts, for the tests of callbacks and figures."""

import json
from functools import lru_cache

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader

from ebmzoo.callbacks import Evaluate
from ebmzoo.data.digits import digits
from ebmzoo.factories import spec
from ebmzoo.mcmc import State, as_noise
from ebmzoo.methods import ECVAE
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE


@lru_cache
def few(split, n):
    return digits(split)[0][:n]


class Images(L.LightningDataModule):
    """The first 40 training and 12 test digits, batches of 8: five steps an epoch."""

    name, kind, image_shape = "few-digits", "images", (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.own = {"train": few("train", 40), "test": few("test", 12)}

    def reference(self, split="train"):
        return self.own["train" if split == "train" else "test"]

    def reference_name(self, split="train"):
        return f"{self.name} {'train' if split == 'train' else 'test'}"

    def train_dataloader(self):
        return DataLoader(self.own["train"], batch_size=8)

    def val_dataloader(self):
        return DataLoader(self.own["test"], batch_size=6)

    test_dataloader = predict_dataloader = val_dataloader


class Chain:
    steps = 6


class Tiny(L.LightningModule):
    """Two players, two optimiser steps a batch, training noise from the global generator."""

    image_shape = (1, 8, 8)

    def __init__(self, chain=False):
        super().__init__()
        self.automatic_optimization = False
        self.encoder = nn.Linear(64, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.1), nn.Tanh())
        self.critic = nn.Linear(64, 1)
        self.ema_active = False
        self.seen, self.raw = [], []
        if chain:
            self.sampler = Chain()

    def players(self):
        return {"vae": ([self.encoder, self.decoder], None, None), "critic": ([self.critic], None, None)}

    def configure_optimizers(self):
        vae = [*self.encoder.parameters(), *self.decoder.parameters()]
        return [torch.optim.Adam(vae, 0.01), torch.optim.SGD(self.critic.parameters(), 0.1)]

    def training_step(self, x, index):
        clock, other = self.optimizers()
        loss = (self.decoder(self.encoder(x.flatten(1)) + torch.randn(len(x), 4)) - x.flatten(1)).square().mean()
        clock.zero_grad()
        self.manual_backward(loss)
        clock.step()
        other.zero_grad()
        self.manual_backward(self.critic(x.flatten(1) + torch.randn(len(x), 64)).square().mean())
        self.trainer.strategy.optimizer_step(other.optimizer, lambda: None)
        self.log("train/loss_vae", loss.detach(), prog_bar=True)
        self.raw.append(weights(self))

    def validation_step(self, x, index):
        self.seen.append((weights(self), self.ema_active))

    test_step = predict_step = validation_step

    def encode(self, x):
        return self.encoder(x.flatten(1)), torch.zeros(len(x), 4)

    def decode(self, z):
        return self.decoder(z).view(-1, 1, 8, 8)

    def reconstruct(self, x):
        return self.decode(self.encode(x)[0])

    def log_likelihood_bound(self, x, samples=1, noise=None):
        z = self.encode(x)[0] + as_noise(noise).normal((len(x), 4))
        return -(self.decode(z) - x).square().flatten(1).sum(1)

    def sample(self, n, *, steps=None, noise=None, watch=None):
        x = self.decode(as_noise(noise).normal((n, 4)))
        for step in range(steps or 0):
            if watch is not None:
                watch(step, State(x, torch.zeros(n), torch.zeros_like(x)))
            x = 0.5 * x  # a new tensor, as the kernels' are
        return x


def weights(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trainer(path, callbacks=(), **options):
    options = {
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
    } | options
    return L.Trainer(
        default_root_dir=path,
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )


def model(seed=0, **options):
    torch.manual_seed(seed)
    return Tiny(**options)


def measured(path, method, data=None, **options):
    """Numbers by name, the lines of what was left out, and the whole file."""
    evaluate = Evaluate(**{"n_test": 40, "batch_size": 16, **options})
    trainer(path, [evaluate]).test(method, data or Images(), verbose=False)
    held = json.loads((path / "results.json").read_text())
    return {entry["name"]: entry["value"] for entry in held["results"]}, held["run"]["skipped"], held


def ecvae(**settings):
    torch.manual_seed(0)
    vae = spec(GaussianVAE, encoder=spec(MLPEncoder), decoder=spec(MLPDecoder), latent_dim=4)
    return ECVAE((1, 8, 8), vae, MLPEnergy, **settings)


__all__ = ["Images", "Tiny", "ecvae", "measured", "model", "same", "trainer", "weights"]
