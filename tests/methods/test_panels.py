"""Every method logs the same keys, so that one dashboard shows them all."""

import pytest
import torch
from ebmzoo.methods.mixins import chain_health
from lightning.pytorch.loggers import Logger

from ebmzoo.callbacks import NetworkEvaluations
from ebmzoo.data import Digits
from ebmzoo.mcmc import Chain
from ebmzoo.methods import GAN, VAEBM, WGAN, BiDVL, HasEnergy
from ebmzoo.methods.base import Method

from .conftest import quiet_trainer
from .test_contract import METHODS


class Keys(Logger):
    """Remembers which keys were logged, and whether their values were numbers."""

    name, version = "keys", 0

    def __init__(self):
        super().__init__()
        self.finite, self.strange = set(), set()

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        for key, value in metrics.items():
            (self.finite if torch.isfinite(torch.as_tensor(value)) else self.strange).add(key)


@pytest.mark.parametrize("name", METHODS)
def test_shared_keys(name):
    torch.manual_seed(0)
    method, logger = METHODS[name](), Keys()
    quiet_trainer(max_steps=9, logger=logger, callbacks=[NetworkEvaluations()]).fit(method, Digits(batch_size=300))
    assert isinstance(method, Method)
    players = set(method.players())
    if isinstance(method, VAEBM) and not method.vae_steps:
        players -= {"vae"}  # trained beforehand
    expected = {f"train/{what}_{player}" for player in players for what in ("loss", "grad_norm")}
    expected |= {"train/network_evaluations"}
    if isinstance(method, HasEnergy):
        expected |= {f"train/energy_{of}" for of in ("data", "model", "gap")}
        if not isinstance(method, BiDVL | WGAN | GAN):  # these have no chain
            expected |= {f"mcmc/{what}" for what in ("displacement", "grad_norm", "saturation")}
    assert expected <= logger.finite, expected - logger.finite
    assert not logger.strange


def test_movement_is_that_of_values_which_no_bound_moves():
    start, chain = torch.tensor([[2.0, 0.5, -0.3]]), Chain(torch.zeros(1, 3), torch.zeros(1), torch.ones(1))
    still = chain_health(start, start.clamp(-1.2, 1.2), chain)
    assert still["mcmc/movement"] == 0 and still["mcmc/displacement"] == pytest.approx(0.8)
    moved = chain_health(start, torch.tensor([[1.2, 0.6, -0.3]]), chain)
    assert moved["mcmc/movement"].item() == pytest.approx(0.1 / 2**0.5)
    assert set(moved) == {f"mcmc/{name}" for name in ("displacement", "movement", "grad_norm", "saturation")}
