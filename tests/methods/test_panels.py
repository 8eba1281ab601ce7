"""Every method logs the same keys, so that one dashboard shows them all."""

import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader

from ebmzoo.callbacks import NetworkEvaluations
from ebmzoo.methods import GAN, WGAN, BiDVL, HasEnergy
from ebmzoo.methods.base import Method

from .cases import METHODS, SHAPE, seeded
from .conftest import quiet_trainer


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
    method, logger = seeded(name), Keys()
    batches = [torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(k)) * 2 - 1 for k in range(6)]
    trainer = quiet_trainer(max_epochs=1, logger=logger, callbacks=[NetworkEvaluations()])
    trainer.fit(method, DataLoader(batches, batch_size=None))
    assert isinstance(method, Method)
    players = set(method.players()) - METHODS[name].rests
    expected = {f"train/{what}_{player}" for player in players for what in ("loss", "grad_norm")}
    expected |= {"train/network_evaluations"}
    if isinstance(method, HasEnergy):
        expected |= {f"train/energy_{of}" for of in ("data", "model", "gap")}
        if not isinstance(method, BiDVL | WGAN | GAN):  # these have no chain
            expected |= {f"mcmc/{what}" for what in ("displacement", "grad_norm", "saturation")}
    assert expected <= logger.finite, expected - logger.finite
    assert not logger.strange
