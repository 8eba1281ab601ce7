"""Stage one of VAEBM from a checkpoint: of a VAE or a VAEBM, averaged or not, missing, broken, another."""

import pytest
import torch
from torch.optim import SGD
from torch.utils.data import DataLoader

from ebmzoo.factories import spec
from ebmzoo.methods import VAE
from ebmzoo.networks import MLPEncoder

from .by_hand import SHAPE, made, unmoved, vae_of
from .conftest import quiet_trainer
from .test_vaebm import vaebm


def saved(method, path, steps=2):
    trainer = quiet_trainer(max_steps=steps)
    trainer.fit(method, DataLoader(torch.rand(4, 8, *SHAPE).double() - 0.5, batch_size=None))
    trainer.save_checkpoint(path)
    return method


def small_vae(**settings):
    return made(VAE, vae_of(sigma=0.2, **settings))


def test_stage_two_starts_from_a_vae_or_a_vaebm_checkpoint(fit, digits, tmp_path):
    vae = saved(small_vae(), tmp_path / "vae.ckpt")
    settings = {"vae_ckpt": str(tmp_path / "vae.ckpt"), "vae_steps": 100, "energy_optimizer": spec(SGD, lr=1e-3)}
    first = vaebm(vae_of(sigma=0.2), **settings)
    assert first.stage == 2  # the checkpoint stands in for stage one
    fit(first, [digits])
    for name, value in first.vae.state_dict().items():
        assert torch.equal(value, vae.vae.state_dict()[name]), name
    saved(first, tmp_path / "vaebm.ckpt")
    second = vaebm(vae_ckpt=str(tmp_path / "vaebm.ckpt"))
    fit(second, [digits])
    assert unmoved(first.vae, second.vae)
    averaged = torch.load(tmp_path / "vae.ckpt", weights_only=True)
    averaged["ema"] = {k: v + 1 for k, v in averaged["state_dict"].items() if k.startswith("vae.decoder")}
    torch.save(averaged, tmp_path / "ema.ckpt")
    third = vaebm(vae_ckpt=str(tmp_path / "ema.ckpt"))
    fit(third, [digits])
    for name, value in third.vae.decoder.state_dict().items():
        assert torch.equal(value, vae.vae.decoder.state_dict()[name] + 1)


def test_a_fixed_sigma_is_the_configs_and_a_learned_one_the_checkpoints(fit, digits, tmp_path):
    path = str(tmp_path / "vae.ckpt")
    saved(small_vae(), path)  # σ = 0.2
    other = vaebm(vae_of(sigma=0.1), vae_ckpt=path)
    fit(other, [digits])
    assert other.vae.log_sigma.exp().item() == pytest.approx(0.1)
    learned = saved(made(VAE, vae_of(sigma="learned")), tmp_path / "learned.ckpt")
    again = vaebm(vae_of(sigma="learned"), vae_ckpt=str(tmp_path / "learned.ckpt"))
    fit(again, [digits])
    assert again.vae.log_sigma.item() == learned.vae.log_sigma.item() != 0


def test_a_resumed_run_needs_no_stage_one_file(digits, tmp_path):
    path = tmp_path / "vae.ckpt"
    saved(small_vae(), path)
    settings = {"vae_ckpt": str(path), "energy_optimizer": spec(SGD, lr=1e-3)}
    saved(vaebm(**settings), tmp_path / "run.ckpt", steps=2)
    path.unlink()
    again = vaebm(**settings)
    data = DataLoader(digits[None].repeat(4, 1, 1, 1, 1), batch_size=None)
    quiet_trainer(max_steps=3).fit(again, data, ckpt_path=str(tmp_path / "run.ckpt"), weights_only=True)


@pytest.mark.parametrize("wrong", [{"latent_dim": 4}, {"encoder": spec(MLPEncoder, width=7, depth=2)}])
def test_another_vae_is_one_clear_line(fit, digits, tmp_path, wrong):
    saved(small_vae(**wrong), tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt \(vae_ckpt\) is not this config's: \d+ of \d+ weights") as error:
        fit(vaebm(vae_ckpt=str(tmp_path / "other.ckpt")), [digits])
    assert "\n" not in str(error.value)


def test_a_stage_one_file_that_is_missing_or_broken_is_one_clear_line(fit, digits, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no stage-one checkpoint at .*none.ckpt"):
        fit(vaebm(vae_ckpt=str(tmp_path / "none.ckpt")), [digits])
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint of tensors"):
        fit(vaebm(vae_ckpt=str(tmp_path / "broken.ckpt")), [digits])
