import os

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ebmzoo.callbacks.looking import batches_of_samples, looking_at, run_folder, sampler_settings
from ebmzoo.mcmc import Langevin

from .fakes import model, same, trainer, weights


def test_the_model_is_as_it_was_after_a_look_that_fails(tmp_path):
    tiny = model().train()
    tiny.critic.eval()  # one network in another mode than the rest
    modes = [module.training for module in tiny.modules()]
    before = weights(tiny)
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    with pytest.raises(ZeroDivisionError), looking_at(trainer(tmp_path), tiny) as ema:
        assert not ema and not any(module.training for module in tiny.modules())
        assert not torch.is_grad_enabled()
        torch.rand(9)
        1 / 0  # noqa: B018 - the point of it
    assert [module.training for module in tiny.modules()] == modes
    assert torch.is_grad_enabled() and torch.equal(torch.rand(2), expected) and same(weights(tiny), before)


def test_samples_do_not_depend_on_the_number_of_processes():
    tiny = model().eval()
    alone = list(batches_of_samples(tiny, 23, 5, seed=3))
    assert [len(batch) for batch in alone] == [5, 5, 5, 5, 3]
    for world in (2, 3, 7):
        for rank in range(world):
            part = list(batches_of_samples(tiny, 23, 5, seed=3, rank=rank, world_size=world))
            assert len(part) == len(alone[rank::world])
            for ours, theirs in zip(part, alone[rank::world], strict=True):
                assert torch.equal(ours, theirs)
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[0], next(batches_of_samples(tiny, 23, 5, seed=4)))


def test_sampler_settings_hold_every_field():
    class Method:
        def test_sampler(self):
            return Langevin(steps=15, step_size=0.1, temperature=1e-5), 40

    found = sampler_settings(Method())
    assert {k: found[k] for k in ("sampler", "steps", "step_size", "temperature")} == {
        "sampler": "Langevin",
        "steps": 40,
        "step_size": 0.1,
        "temperature": 1e-5,
    }
    assert found["details"]["steps"] == 40 and "noise_first" in found["details"]
    nothing = sampler_settings(object())
    assert nothing.pop("details") == {} and set(nothing.values()) == {None}


def test_the_run_s_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = trainer(tmp_path / "given")
    assert run_folder(given) == tmp_path / "given"
    logged = trainer(None, logger=CSVLogger(tmp_path / "logs", name="n", version=7))
    assert run_folder(logged) == tmp_path / "logs" / "n" / "version_7"
    assert os.path.realpath(run_folder(trainer(None))) == os.path.realpath(tmp_path)
