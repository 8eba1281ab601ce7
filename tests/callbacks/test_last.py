"""The newest checkpoint of a training that ended, wherever it ended, is one that goes on as if it had not."""

import lightning as L
import pytest
import torch

from ebmzoo.callbacks import LastCheckpoint
from ebmzoo.data import Digits
from ebmzoo.factories import spec
from ebmzoo.methods import VAE
from ebmzoo.networks import MLPDecoder, MLPEncoder
from ebmzoo.parts import GaussianVAE


class Seen(L.Callback):
    """Where a training took its iterations, and where it validated."""

    def __init__(self):
        self.trained, self.validated = [], []

    def on_train_batch_end(self, trainer, *_):
        self.trained.append(trainer.global_step)

    def on_validation_end(self, trainer, *_):
        self.validated.append(trainer.global_step)


def run(folder, steps, checkpoint=None, **settings):
    seen = Seen()
    torch.manual_seed(0)
    network = {"width": 4, "depth": 1}
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=2,
        val_check_interval=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[seen, LastCheckpoint(folder / "last.ckpt")],
        **settings,
    )
    method = VAE(
        (1, 8, 8),
        spec(GaussianVAE, encoder=spec(MLPEncoder, **network), decoder=spec(MLPDecoder, **network), latent_dim=2),
    )
    trainer.fit(method, Digits(batch_size=300), ckpt_path=checkpoint)
    return seen


@pytest.mark.parametrize("settings", [{}, {"check_val_every_n_epoch": None}], ids=["within epochs", "over them"])
def test_a_training_that_ended_within_an_epoch_has_all_of_its_epochs_left(tmp_path, settings):
    whole = run(tmp_path / "whole", -1, **settings)
    assert whole.trained == list(range(1, 11))
    assert whole.validated == ([2, 4, 6, 8, 10] if settings else [2, 4, 7, 9])
    for stop in (1, 3, 5, 6):
        begun = run(tmp_path, stop, **settings)
        ended = run(tmp_path, -1, tmp_path / "last.ckpt", **settings)
        assert begun.trained + ended.trained == whole.trained
        assert begun.validated + ended.validated == whole.validated
