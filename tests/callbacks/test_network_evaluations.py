"""What a training has cost, against counts by hand; pictures and validation cost it nothing."""

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from ebmzoo.callbacks import EMA, NetworkEvaluations, Pictures
from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin
from ebmzoo.methods import ECVAE
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from .fakes import Images, trainer

NAME = "train/network_evaluations"
WARM = 8 * (2 + 2)  # a batch of 8: encoder and decoder with gradients
JOINT = 8 * (2 + 4 + 2 * 2 + 4)  # the decoder for the chain too; two steps, and the energies of data and negatives


class Seen(NetworkEvaluations):
    """Remembers what was logged."""

    def __init__(self):
        super().__init__()
        self.trained, self.validated = [], []

    def on_train_batch_end(self, run, *rest):
        super().on_train_batch_end(run, *rest)
        self.trained.append(run.callback_metrics[NAME].item())

    def on_validation_end(self, run, method):
        if not run.sanity_checking:
            self.validated.append(run.callback_metrics[NAME].item())


def fit(path, steps, resume=None, saved=False):
    vae = spec(GaussianVAE, encoder=spec(MLPEncoder), decoder=spec(MLPDecoder), latent_dim=4)
    method = ECVAE((1, 8, 8), vae, MLPEnergy, sampler=Langevin(2, 0.1, 1e-5), vae_steps=2)
    keep = [ModelCheckpoint(path, filename="kept")] if saved else []
    seen = Seen()
    others = [EMA(decay=0.5), Pictures(n=4, every_n_steps=1), *keep]
    options = {"max_epochs": None, "max_steps": steps, "num_sanity_val_steps": 1, "enable_checkpointing": saved}
    trainer(path, [seen, *others], **options).fit(method, Images(), ckpt_path=resume)
    assert not any(part._forward_hooks for part in method.modules())
    return seen


@pytest.mark.thorough
def test_the_count_of_a_training_of_two_stages(tmp_path):
    seen = fit(tmp_path, 7)
    expected = [WARM, 2 * WARM] + [2 * WARM + n * JOINT for n in range(1, 6)]
    assert seen.trained == expected
    assert seen.validated == [expected[4]]  # an epoch has 5 steps
    assert seen.spent == expected[-1]


@pytest.mark.thorough
def test_a_resumed_training_counts_on(tmp_path):
    fit(tmp_path, 5, saved=True)
    assert fit(tmp_path, 7, resume=tmp_path / "kept.ckpt").trained == [2 * WARM + n * JOINT for n in (4, 5)]
