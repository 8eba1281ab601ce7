import os

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ebmzoo.callbacks.eval_mode import eval_mode, run_folder

from .fakes import model, same, trainer, weights


def test_the_model_is_as_it_was_after_a_look_that_fails(tmp_path):
    tiny = model().train()
    tiny.critic.eval()  # one network in another mode than the rest
    modes = [module.training for module in tiny.modules()]
    before = weights(tiny)
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    with pytest.raises(ZeroDivisionError), eval_mode(trainer(tmp_path), tiny) as ema:
        assert not ema and not any(module.training for module in tiny.modules())
        assert not torch.is_grad_enabled()
        torch.rand(9)
        1 / 0  # noqa: B018 - the point of it
    assert [module.training for module in tiny.modules()] == modes
    assert torch.is_grad_enabled() and torch.equal(torch.rand(2), expected) and same(weights(tiny), before)


def test_the_run_s_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = trainer(tmp_path / "given")
    assert run_folder(given) == tmp_path / "given"
    logged = trainer(None, logger=CSVLogger(tmp_path / "logs", name="n", version=7))
    assert run_folder(logged) == tmp_path / "logs" / "n" / "version_7"
    assert os.path.realpath(run_folder(trainer(None))) == os.path.realpath(tmp_path)
