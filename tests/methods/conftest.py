"""Small float64 models and a Trainer that makes no noise, for the laws of the methods."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader


def quiet_trainer(**settings):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return L.Trainer(**{**defaults, **settings})


@pytest.fixture
def fit():
    """Train a method on the batches given, one iteration a batch, and return the Trainer."""

    def run(method, batches, **settings):
        trainer = quiet_trainer(max_epochs=1, **settings)
        trainer.fit(method, DataLoader(batches, batch_size=None))
        return trainer

    return run


@pytest.fixture
def digits():
    """Eight float64 images of 8×8 in [−1, 1]."""
    return torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
