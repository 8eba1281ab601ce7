"""Small models and their checkpoints."""

import functools

import lightning as L
import torch

import ebmzoo
from ebmzoo.data import Digits
from ebmzoo.mcmc import HMC, Langevin
from ebmzoo.networks import MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

SHAPE = (1, 8, 8)


SMALL = functools.partial(
    GaussianVAE,
    encoder=functools.partial(MLPEncoder, width=16, depth=1),
    decoder={"class_path": "ebmzoo.networks.MLPDecoder", "init_args": {"width": 16, "depth": 1}},
    latent_dim=4,
)


def ecvae(**settings):
    torch.manual_seed(0)
    defaults = {
        "vae": SMALL,
        "energy": functools.partial(MLPEnergy, width=16, depth=1),
        "sampler": Langevin(steps=2, step_size=0.1, temperature=1e-4),
        "refine": HMC(steps=3, step_size=0.01),
        "energy_optimizer": functools.partial(torch.optim.SGD, lr=0.01),
    }
    return ebmzoo.ECVAE(SHAPE, **{**defaults, **settings})


def saved(model, path, **extra):
    """A checkpoint of a plain Lightning Trainer, with further entries."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=2, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(model, Digits(batch_size=16))
    trainer.save_checkpoint(path)
    if extra:
        torch.save({**torch.load(path, weights_only=True), **extra}, path)
    return path


def changed(path, to, **entries):
    torch.save({**torch.load(path, weights_only=True), **entries}, to)
    return to
