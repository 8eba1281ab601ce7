"""Double precision: whatever a method makes or keeps has it, and so has what becomes of its checkpoints."""

from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import ebmzoo
from ebmzoo.callbacks import EMA, Evaluate
from ebmzoo.data import Digits
from ebmzoo.methods import BoundsLikelihood, Decodes, HasEnergy, Reconstructs, Scores

from .cases import METHODS, MOST_SLOW, assert_identical, seeded, state
from .conftest import quiet_trainer


@pytest.fixture(params=METHODS, ids=str)
def make(request):
    return partial(seeded, request.param)


def floats(values):
    return {name: value for name, value in values.items() if value.is_floating_point()}


@pytest.mark.parametrize("make", MOST_SLOW, indirect=True)
def test_every_method_trains_resumes_and_is_loaded_in_double_precision(make, tmp_path):
    def run(*callbacks, checkpoint=None):
        settings = {"limit_val_batches": 1, "val_check_interval": 4, "check_val_every_n_epoch": None}
        trainer = quiet_trainer(
            max_steps=8,
            precision="64-true",
            callbacks=[EMA(0.5), *callbacks],
            enable_checkpointing=bool(callbacks),
            **settings,
        )
        torch.manual_seed(7)
        trainer.fit(make(), Digits(batch_size=100), ckpt_path=checkpoint)
        return trainer

    saver = ModelCheckpoint(tmp_path, "middle", every_n_train_steps=5)
    whole = run(Evaluate(n_val=8, batch_size=8), saver)
    assert whole.callback_metrics["val/fid_8"].isfinite()
    kept = {name: value for name, value in floats(state(whole)).items() if not name.endswith((".step", ".lr"))}
    assert {value.dtype for value in kept.values()} == {torch.float64}
    assert_identical(state(whole), state(run(checkpoint=tmp_path / "middle.ckpt")))

    whole.save_checkpoint(tmp_path / "a.ckpt")
    method = whole.lightning_module.eval()
    loaded = ebmzoo.load(tmp_path / "a.ckpt", ema=False)
    assert_identical(method.state_dict(), loaded.state_dict())
    assert torch.equal(method.sample(3, noise=1), loaded.sample(3, noise=1))
    averages = torch.load(tmp_path / "a.ckpt", weights_only=True)["ema"]
    found = ebmzoo.load(tmp_path / "a.ckpt").state_dict()
    assert all(torch.equal(found[name], value) and value.dtype == torch.float64 for name, value in averages.items())


def test_what_a_double_method_answers_is_double(make):
    method = make().double().eval()
    x = torch.rand(5, *method.image_shape) * 2 - 1  # the data are float32
    answers = [method.sample(3, noise=1), *method.predict_step(x, 0).values()]
    x = method.data([x, torch.arange(5)])
    if isinstance(method, Scores):
        answers.append(method.score(x))
    if isinstance(method, HasEnergy):
        answers.append(method.energy(x))
    if isinstance(method, Reconstructs):
        answers.append(method.reconstruct(x))
    if isinstance(method, BoundsLikelihood):
        answers.append(method.log_likelihood_bound(x, 2, 0))
    if isinstance(method, Decodes):
        answers.append(method.decode(method.draw_latents(3, method.noise, method.like)))
    assert {answer.dtype for answer in answers} == {torch.float64}
