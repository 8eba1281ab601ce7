"""The types that a user's mypy sees: `make lint` checks this file, and nothing runs it."""

from functools import partial
from typing import assert_type

import lightning
import torch
from torch import Tensor

import ebmzoo
from ebmzoo import ECVAE, Digits, Langevin
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE


def what_a_method_is_asked_has_its_type() -> None:
    x = torch.zeros(2, 1, 8, 8)
    again = ebmzoo.load("ecvae.ckpt", map_location="cpu")
    assert_type(again.energy(x), Tensor)
    assert_type(again.sample(4, steps=3, noise=0), Tensor)
    assert_type(again.reconstruct(x), Tensor)
    assert_type(again.score(x), Tensor)
    assert_type(again.encode(x).mean, Tensor)
    assert_type(again.log_likelihood_bound(x, samples=2), Tensor)
    again.eval().to("cpu").freeze()
    # Both are wrong, and seen to be: of an "ignore" without need mypy complains.
    str.upper(again.energy(x))  # type: ignore[arg-type]
    again.sample("four")  # type: ignore[arg-type]

    energy = partial(MLPEnergy, width=32)
    vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4)
    model = ECVAE((1, 8, 8), vae, energy, sampler=Langevin(steps=2, step_size=0.1))
    assert_type(model.energy(x), Tensor)
    assert_type(model.sample(3), Tensor)
    trainer = lightning.Trainer(max_steps=1)
    trainer.fit(model, Digits())
    trainer.fit(again, datamodule=Digits())
    trainer.test(again, Digits())
