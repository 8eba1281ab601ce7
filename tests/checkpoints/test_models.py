"""Models made again from a checkpoint alone."""

import functools

import lightning as L
import pytest
import torch
from torch import nn

import ebmzoo
from ebmzoo.callbacks.ema import EMA, averaged_weights
from ebmzoo.checkpoints import export, load, read, restore, stored_config
from ebmzoo.data import Digits
from ebmzoo.mcmc import HMC, Langevin

from .saved import SHAPE, SMALL, changed, ecvae, saved


def test_python_objects_are_made_again(plain):
    model, path = plain
    again = load(path)
    assert type(again) is ebmzoo.ECVAE
    assert again.sampler == Langevin(steps=2, step_size=0.1, temperature=1e-4)
    assert again.refine == HMC(steps=3, step_size=0.01)
    assert again.image_shape == SHAPE
    assert not again.training
    assert not again.ema_active
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    optimizers, _ = again.configure_optimizers()
    assert [type(optimizer) for optimizer in optimizers] == [torch.optim.Adam, torch.optim.SGD]
    assert optimizers[1].param_groups[0]["lr"] == 0.01
    assert optimizers[0].param_groups[0]["betas"] in ([0.0, 0.9], (0.0, 0.9))


def test_the_same_model_samples_the_same(plain):
    model, path = plain
    torch.testing.assert_close(load(path).sample(5, noise=3), model.eval().sample(5, noise=3), rtol=0, atol=0)


def test_a_loaded_model_can_be_saved_and_loaded_again(plain, tmp_path):
    _, path = plain
    first = load(path)
    again = load(saved(first, tmp_path / "again.ckpt"))
    assert again.hparams == first.hparams == dict(read(path)["hyper_parameters"])


def test_averaged_weights_lie_over_the_others(plain, tmp_path):
    _, path = plain
    decoder = plain[0].vae.decoder.state_dict()
    ema = {f"vae.decoder.{name}": torch.zeros_like(value) for name, value in decoder.items()}
    torch.save({**torch.load(path, weights_only=True), "ema": ema}, tmp_path / "ema.ckpt")
    averaged, raw = load(tmp_path / "ema.ckpt"), load(tmp_path / "ema.ckpt", ema=False)
    assert averaged.ema_active
    assert not raw.ema_active
    assert not any(value.any() for value in averaged.vae.decoder.parameters())
    for name, value in plain[0].state_dict().items():
        assert torch.equal(raw.state_dict()[name], value)
        assert torch.equal(averaged.state_dict()[name], ema.get(name, value))


def test_an_export_keeps_its_step_and_what_its_weights_are(plain, tmp_path):
    good = read(plain[1])
    averaged = {**good, "ema": good["state_dict"]}
    assert export(averaged, tmp_path / "averaged.safetensors")
    held = read(tmp_path / "averaged.safetensors")
    assert held["global_step"] == good["global_step"] == 2
    with pytest.raises(ValueError, match=r"a\.safetensors holds averaged weights alone"):
        export(held, tmp_path / "raw.safetensors", "a.safetensors", ema=False)
    assert not (tmp_path / "raw.safetensors").exists()
    assert export(held, tmp_path / "again.safetensors")
    assert read(tmp_path / "again.safetensors")["global_step"] == 2


def test_a_model_exports_as_it_is_and_a_path_as_its_checkpoint(plain, tmp_path):
    model, path = plain
    for source in (model, path, str(path), read(path)):
        assert not ebmzoo.export(source, tmp_path / "m.safetensors")
        again = ebmzoo.load(tmp_path / "m.safetensors")
        assert type(again) is type(model) and not again.ema_active and again.sampler == model.sampler
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
        assert read(tmp_path / "m.safetensors")["global_step"] == 2
    with pytest.raises(ValueError, match="^the model was trained with energy given as functions or instances"):
        export(ecvae(energy=OwnEnergy(SHAPE)), tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"a name that ends in \.safetensors"):
        export(model, tmp_path / "m.ckpt")


def test_a_model_with_its_averages_in_exports_these(tmp_path):
    ema, model = EMA(decay=0.5), ecvae()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=2, accelerator="cpu", enable_model_summary=False, callbacks=[ema], **quiet)
    trainer.fit(model, Digits(batch_size=16))
    with averaged_weights(trainer, model):
        assert export(model, tmp_path / "ema.safetensors")
    assert not export(model, tmp_path / "raw.safetensors")
    averaged, raw = (load(tmp_path / f"{name}.safetensors") for name in ("ema", "raw"))
    assert (averaged.ema_active, raw.ema_active) == (True, False)
    for name, value in model.named_parameters():
        assert torch.equal(raw.get_parameter(name), value)
        assert torch.equal(averaged.get_parameter(name), ema.averages.get(name, value))
    assert not torch.equal(averaged.vae.decoder.net[0].weight, raw.vae.decoder.net[0].weight)


def test_loading_says_nothing(plain, capfd, caplog, recwarn):
    caplog.set_level("INFO")
    ebmzoo.load(plain[1])
    type(plain[0]).load_from_checkpoint(plain[1])
    assert (*capfd.readouterr(), caplog.text, list(recwarn)) == ("", "", "", [])


class OwnEnergy(nn.Module):
    """A network of the user's own module."""

    def __init__(self, image_shape: tuple[int, ...], gain: float = 1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x):
        return self.gain * x.flatten(1).square().sum(1)


def test_networks_of_imported_modules_may_be_named(tmp_path):
    path = saved(ecvae(energy=functools.partial(OwnEnergy, gain=2.0)), tmp_path / "own.ckpt")
    again = load(path)
    assert type(again.ebm.network) is OwnEnergy
    x = torch.ones(2, *SHAPE)
    torch.testing.assert_close(again.energy(x), 64 * again.ebm.network.gain.expand(2))


def test_networks_given_as_functions_must_be_passed_again(tmp_path):
    model = ecvae(energy=lambda shape: OwnEnergy(shape, 3.0))
    path = saved(model, tmp_path / "free.ckpt")
    with pytest.raises(
        ValueError, match=r"energy given as functions or instances.*ebmzoo\.load\(path, energy=\.\.\.\)$"
    ):
        load(path)
    again = load(path, energy=lambda shape: OwnEnergy(shape))
    assert again.ebm.network.gain.item() == model.ebm.network.gain.item() != 1.0


def test_unknown_replacements_are_refused(plain):
    with pytest.raises(ValueError, match="ECVAE takes no enrgy"):
        load(plain[1], enrgy=OwnEnergy)


def test_stored_config_of_a_plain_checkpoint_is_its_method(plain):
    config = stored_config(read(plain[1]), plain[1])
    assert config["model"]["class_path"] == "ebmzoo.methods.ecvae.ECVAE"
    assert "image_shape" not in config["model"]["init_args"]
    assert set(config) == {"model"}


def test_missing_files_folders_and_urls(tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*lats\.ckpt .*has last\.ckpt"):
        read(tmp_path / "lats.ckpt")
    with pytest.raises(ValueError, match=r"is a folder: give the checkpoint file; .* has last\.ckpt"):
        read(tmp_path)
    for url in ("https://example.org/a.ckpt", "HTTP://example.org/a.ckpt", "s3://bucket/a.ckpt"):
        with pytest.raises(ValueError, match="is a URL: checkpoints are read from local files only"):
            read(url)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "it has no state_dict"),
        ({"state_dict": 3}, "it has no state_dict"),
        ({"state_dict": {}}, "is not a checkpoint of this package"),
        ({"state_dict": {}, "ebmzoo": {"class_path": 3}}, "is not a checkpoint of this package"),
    ],
)
def test_foreign_checkpoints(tmp_path, content, words):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "x.ckpt")


def test_weights_that_do_not_fit_leave_the_model_alone(plain, tmp_path):
    _, path = plain
    weights = dict(read(path)["state_dict"])
    first = next(iter(weights))
    bad = [
        ({**weights, first: torch.zeros(3)}, rf"1 of another size \({first}\)"),
        ({name: value for name, value in weights.items() if name != first}, rf"1 missing \({first}\)"),
        ({**weights, "extra": torch.zeros(1)}, r"1 unknown \(extra\)"),
        ({**weights, first: 3}, "its state_dict is not a list of named tensors"),
    ]
    model = ecvae()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for state, words in bad:
        file = changed(path, tmp_path / "bad.ckpt", state_dict=state)
        with pytest.raises(ValueError, match=words):
            load(file)
        with pytest.raises(ValueError, match=words):
            restore(model, read(file), file)
    with pytest.raises(ValueError, match=r"1 unknown \(nothing\)"):
        load(changed(path, tmp_path / "bad.ckpt", ema={"nothing": torch.zeros(1)}))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_of_another_method(plain):
    vae = ebmzoo.VAE(SHAPE, SMALL)
    with pytest.raises(ValueError, match="is a checkpoint of ECVAE, not of VAE"):
        restore(vae, read(plain[1]), plain[1])


def test_a_method_must_be_a_method(plain, tmp_path):
    about = {**read(plain[1])["ebmzoo"], "class_path": "ebmzoo.networks.MLPEncoder"}
    with pytest.raises(ValueError, match="which is not a method"):
        load(changed(plain[1], tmp_path / "bad.ckpt", ebmzoo=about))


def test_an_evaluation_takes_the_samplers_as_the_training_left_them(plain, tmp_path):
    """A guard that went back has halved their steps in the method's hyper-parameters, which `load` goes by."""
    good = read(plain[1])
    sampler = {"class_path": "ebmzoo.mcmc.Langevin", "init_args": {"steps": 2, "step_size": 0.5}}
    half = {**sampler, "init_args": {**sampler["init_args"], "step_size": 0.25}}
    settings = {"sampler": sampler, "latent_dim": 4}
    config = {"model": {"class_path": "ebmzoo.methods.ECVAE", "init_args": settings}}
    entries = {"hyper_parameters": {"sampler": half, "latent_dim": 7, "refine": half}}
    file = changed(plain[1], tmp_path / "a.ckpt", ebmzoo={**good["ebmzoo"], "config": config}, **entries)
    assert stored_config(read(file), file)["model"]["init_args"] == settings
    assert stored_config(read(file), file, as_left=True)["model"]["init_args"] == {"sampler": half, "latent_dim": 4}
