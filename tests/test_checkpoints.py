"""Reading files of strangers, and making a model again from a checkpoint alone."""

import errno
import functools
import os
import pickle
import random
import re
import types
import zipfile

import lightning as L
import pytest
import torch
from torch import nn

import ebmzoo
from ebmzoo.callbacks.ema import EMA, averaged_weights
from ebmzoo.checkpoints import check_trusted, export, load, newest_good, read, restore, stored_config, trusted
from ebmzoo.data import Digits
from ebmzoo.mcmc import HMC, Langevin
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE
from ebmzoo.storage import WholeFiles, write_whole

SHAPE = (1, 8, 8)
SMALL = functools.partial(
    GaussianVAE,
    encoder=functools.partial(MLPEncoder, width=16, depth=1),
    decoder={"class_path": "ebmzoo.networks.MLPDecoder", "init_args": {"width": 16, "depth": 1}},
    latent_dim=4,
)


def ecvae(**settings):
    torch.manual_seed(0)
    defaults = {
        "vae": SMALL,
        "energy": functools.partial(MLPEnergy, width=16, depth=1),
        "sampler": Langevin(steps=2, step_size=0.1, temperature=1e-4),
        "refine": HMC(steps=3, step_size=0.01),
        "energy_optimizer": functools.partial(torch.optim.SGD, lr=0.01),
    }
    return ebmzoo.ECVAE(SHAPE, **{**defaults, **settings})


def saved(model, path, **extra):
    """A checkpoint of a plain Lightning Trainer, with further entries."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=2, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(model, Digits(batch_size=16))
    trainer.save_checkpoint(path)
    if extra:
        torch.save({**torch.load(path, weights_only=True), **extra}, path)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model of Python objects, trained by a plain Trainer, and its checkpoint."""
    model = ecvae()
    return model, saved(model, tmp_path_factory.mktemp("plain") / "model.ckpt")


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


# -- files of strangers -------------------------------------------------------------------------------------


class Hostile:
    """Pickles as a call of os.system."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "ebmzoo": Hostile()}, tmp_path / "bad.ckpt")
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(Hostile()))
    for name in ("bad.ckpt", "bare.ckpt"):
        with pytest.raises(ValueError, match=rf"{name} (holds more than tensors|is not a checkpoint)"):
            read(name)
    assert not (tmp_path / "pwned").exists()


BROKEN = {
    "empty": b"",
    "text": b"model: VAE\n",
    "zip": None,
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_files_that_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "x.ckpt"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello", "world")
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.ckpt is not a checkpoint, or a broken one") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def refused_or_identical(path, good):
    """A damaged file loads identical tensors, or ends in one line that names it."""
    try:
        content = read(path)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
        return False
    assert str(content) == str(good)
    assert all(torch.equal(content["state_dict"][name], value) for name, value in good["state_dict"].items())
    return True


def test_flipped_bytes_are_found_or_do_no_harm(plain, tmp_path):
    good, whole = read(plain[1]), plain[1].read_bytes()
    rng, path = random.Random(0), tmp_path / "flipped.ckpt"
    loaded = 0
    for place in [*range(8), *(rng.randrange(len(whole)) for _ in range(60)), *range(len(whole) - 30, len(whole))]:
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        loaded += refused_or_identical(path, good)
    assert loaded < 30


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.9999])
def test_files_cut_short(plain, tmp_path, share):
    path = tmp_path / "cut.ckpt"
    path.write_bytes(plain[1].read_bytes()[: int(share * plain[1].stat().st_size)])
    assert not refused_or_identical(path, {})


def rezipped(path, to, change=lambda name, data: data, **how):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", **how) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return to


def test_archives_made_to_fill_the_memory(plain, tmp_path):
    bomb = rezipped(
        plain[1],
        tmp_path / "bomb.ckpt",
        lambda name, data: bytes(2**26) if name.endswith("/data/0") else data,
        compression=zipfile.ZIP_DEFLATED,
    )
    assert bomb.stat().st_size < 2**22
    with pytest.raises(ValueError, match="it is compressed, which torch.save never does"):
        read(bomb)
    # Lies about its size in the directory alone.
    data = bytearray(plain[1].read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    (tmp_path / "lie.ckpt").write_bytes(data)
    with pytest.raises(ValueError, match="it says that it holds more than it is large"):
        read(tmp_path / "lie.ckpt")
    # One number that calls itself a tensor of a million.
    wide = changed(plain[1], tmp_path / "wide.ckpt", extra=torch.zeros(1).expand(10**6))
    with pytest.raises(ValueError, match="a tensor of it is larger than the file"):
        read(wide)


SYSTEM = {
    "reading": (zipfile.ZipFile, "testzip", OSError(errno.EIO, "Input/output error"), OSError, "cannot read {}: Input"),
    "opening": (zipfile, "ZipFile", OSError(errno.EMFILE, "Too many open files"), OSError, "cannot read {}: Too many"),
    "permission": (
        zipfile,
        "ZipFile",
        PermissionError(errno.EACCES, "Permission denied"),
        OSError,
        "cannot read {}: P",
    ),
    "memory": (zipfile.ZipFile, "testzip", MemoryError("all is full"), MemoryError, "all is full"),
    "torch's memory": (torch, "load", RuntimeError("[enforce fail] can't allocate memory"), MemoryError, "no memory"),
}


@pytest.mark.parametrize(("owner", "name", "error", "kind", "words"), SYSTEM.values(), ids=SYSTEM)
def test_what_the_system_cannot_do_is_no_fault_of_the_file(plain, monkeypatch, owner, name, error, kind, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(owner, name, fail)
    for reader in (read, lambda path: newest_good(path.parent)):
        with pytest.raises(kind, match=re.escape(words.format(plain[1]))) as caught:
            reader(plain[1])
        assert len(str(caught.value).splitlines()) <= 1


def test_a_missing_device_is_no_fault_of_the_file(plain, tmp_path):
    missing = f"cuda:{torch.cuda.device_count()}"
    export(read(plain[1]), tmp_path / "m.safetensors")
    for path in (plain[1], tmp_path / "m.safetensors"):
        with pytest.raises(ValueError, match=rf"{path.name} cannot be brought to {missing}: ") as caught:
            load(path, map_location=missing)
        assert "\n" not in str(caught.value)
        assert {value.device.type for value in read(path, "meta")["state_dict"].values()} == {"meta"}


def test_a_full_disk_leaves_the_checkpoint_that_was_there(plain, tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    path.write_bytes(plain[1].read_bytes())

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError, match=r"no room for .*last.ckpt: the disk was full after .*the one that was there is un"
    ):
        write_whole({"state_dict": {}}, path)
    assert path.read_bytes() == plain[1].read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    with pytest.raises(OSError, match="no room for .*new.ckpt: the disk was full after 4 bytes$"):
        write_whole({}, tmp_path / "new.ckpt")


def test_a_trainer_with_whole_files_writes_aside(tmp_path, monkeypatch):
    replaced = []
    monkeypatch.setattr(os, "replace", lambda a, b, move=os.replace: (replaced.append((a.parent, b)), move(a, b)))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=1, accelerator="cpu", enable_model_summary=False, plugins=[WholeFiles()], **quiet)
    trainer.fit(ecvae(), Digits(batch_size=16))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert replaced == [(tmp_path, tmp_path / "a.ckpt")]
    assert read(tmp_path / "a.ckpt")["global_step"] == 1


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


def changed(path, to, **entries):
    torch.save({**torch.load(path, weights_only=True), **entries}, to)
    return to


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


NAMES = {
    "function": ("os.system", "is not a class"),
    "class that is no part": ("subprocess.Popen", "is not trusted: it is no network"),
    "module not imported": ("antigravity.Thing", "is not trusted: import antigravity first"),
    "no module": ("Thing", "is not trusted"),
    "missing here": ("ebmzoo.methods.nothing.Thing", "which this version does not have"),
    "missing name": ("ebmzoo.networks.Nothing", "is not a class"),
}


@pytest.mark.parametrize(("name", "words"), NAMES.values(), ids=NAMES)
def test_names_outside_what_is_trusted(plain, tmp_path, name, words):
    _, path = plain
    hyper = dict(read(path)["hyper_parameters"])
    file = changed(path, tmp_path / "bad.ckpt", hyper_parameters={**hyper, "energy": {"class_path": name}})
    if "." in name:
        with pytest.raises(ValueError, match=words):
            load(file)
    with pytest.raises(ValueError, match=words):
        trusted(name, "x.ckpt")
    about = {**read(path)["ebmzoo"], "class_path": name}
    with pytest.raises(ValueError, match=words):
        load(changed(path, tmp_path / "worse.ckpt", ebmzoo=about))


def test_a_method_must_be_a_method(plain, tmp_path):
    about = {**read(plain[1])["ebmzoo"], "class_path": "ebmzoo.networks.MLPEncoder"}
    with pytest.raises(ValueError, match="which is not a method"):
        load(changed(plain[1], tmp_path / "bad.ckpt", ebmzoo=about))


def test_strings_that_a_parser_would_import_or_fetch():
    for value in ("os.system", "subprocess.Popen", "http://example.org/x.yaml"):
        for data in ({"activation": value}, {"a": [{"b": value}]}):
            with pytest.raises(ValueError, match="x.ckpt names"):
                check_trusted(data, "x.ckpt")
    harmless = {
        "class_path": "torch.nn.SiLU",
        "a": ["learned", "vae.ckpt", "1.5", "../data", "silu", ""],
        "n": 1.5,
    }
    check_trusted(harmless, "x.ckpt")


SMUGGLED = {
    "json": '{"class_path": "evilmod.Net"}',
    "yaml": "class_path: evilmod.Net",
    "lines": "# a network\n---\nclass_path:\n  evilmod.Net\ninit_args:\n  width: 3\n",
    "quoted": "'evilmod.Net'",
    "string in a string": "\"{class_path: 'evilmod.Net'}\"",
    "key": {"class_path": "ebmzoo.networks.MLPEnergy", "init_args": {"{class_path: evilmod.Net}": 1}},
    "dotted key": {"class_path": "ebmzoo.networks.MLPEnergy", "init_args": {"evilmod.Net": 1}},
    "list": ["class_path: evilmod.Net"],
    "tuple": ({"a": ("class_path: evilmod.Net",)},),
    "keywords": {"class_path": "ebmzoo.networks.MLPEnergy", "dict_kwargs": {"a": "class_path: evilmod.Net"}},
    "block": "|\n  class_path: evilmod.Net",
    "anchors": "a: &a evilmod.Net\nclass_path: *a",
    "tag": "!!str evilmod.Net",
    "name of a file": "settings.txt",
    "name beyond ASCII": "\u00e9vilmod.Net",
}


@pytest.mark.parametrize("value", SMUGGLED.values(), ids=SMUGGLED)
def test_no_string_of_a_file_brings_a_module_in(plain, tmp_path, monkeypatch, value):
    for name in ("evilmod", "\u00e9vilmod"):
        (tmp_path / f"{name}.py").write_text("open('pwned', 'w').close()\nclass Net:\n    pass\n")
    (tmp_path / "settings.txt").write_text("class_path: evilmod.Net")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    good, words = read(plain[1]), r"bad\.ckpt (names \w+\.Net, which is not trusted|has yaml with the anchor)"
    for part in ("energy", "sampler", "penalties"):
        config = {"model": {"class_path": "ebmzoo.methods.ecvae.ECVAE", "init_args": {part: value}}}
        entries = {"hyper_parameters": {**good["hyper_parameters"], part: value}}
        entries["ebmzoo"] = {**good["ebmzoo"], "config": config}
        file = changed(plain[1], tmp_path / "bad.ckpt", **entries)
        with pytest.raises(ValueError, match=words):
            load(file)
        with pytest.raises(ValueError, match=words):
            stored_config(read(file), file)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.thorough
def test_settings_nested_without_end_are_refused():
    inside_itself = []
    inside_itself.append(inside_itself)
    doubled = ["x"]
    for _ in range(60):
        doubled = [doubled, doubled]
    deep = "class_path"
    for _ in range(3000):
        deep = [deep]
    for values in (inside_itself, {"a": doubled}, deep, "[" * 3000 + "]" * 3000, {"a": "- " * 3000 + "b"}):
        with pytest.raises(ValueError, match=r"^x\.ckpt has settings nested more than 100 deep"):
            check_trusted({"energy": values}, "x.ckpt")


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


def test_files_that_are_named(tmp_path):
    (tmp_path / "weights.ckpt").write_bytes(b"PK\0" + b"a: b\n" * 10)
    (tmp_path / "long.txt").write_text("# \n" * 400_000 + "a: b")
    check_trusted({"vae_ckpt": str(tmp_path / "weights.ckpt"), "root": str(tmp_path)}, "x.ckpt")
    with pytest.raises(ValueError, match=r"long\.txt, which is too large to be looked through"):
        check_trusted({"a": str(tmp_path / "long.txt")}, "x.ckpt")


def test_text_that_is_no_yaml_is_text():
    for text in ("*", "*png", "a: b: c", "[", "\ud800", "\t", "@x", "%", "{a", "'", "a\x00b"):
        check_trusted({"a": text, text: 1}, "x.ckpt")


def test_a_file_that_holds_itself_is_refused(plain, tmp_path):
    inside_itself = []
    inside_itself.append(inside_itself)
    deep = []
    for _ in range(400):
        deep = [deep]
    changed(plain[1], tmp_path / "self.ckpt", extra=inside_itself)
    with pytest.raises(ValueError, match=r"self\.ckpt is not a checkpoint, or a broken one: .*nested") as caught:
        read(tmp_path / "self.ckpt")
    assert "\n" not in str(caught.value)
    assert read(changed(plain[1], tmp_path / "deep.ckpt", extra=[deep, deep]))["extra"][0] == deep


def test_trusted_names():
    own = types.ModuleType("users_own_module")
    own.Net = type("Net", (nn.Module,), {"__module__": "users_own_module"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "users_own_module", own)
        assert trusted("users_own_module.Net", "x.ckpt") is own.Net
    assert trusted("ebmzoo.mcmc.langevin.Langevin", "x.ckpt") is Langevin
    assert trusted("ebmzoo.networks.MLPDecoder", "x.ckpt") is MLPDecoder
    assert trusted("torch.optim.AdamW", "x.ckpt") is torch.optim.AdamW
    assert trusted("torch.nn.SiLU", "x.ckpt") is nn.SiLU
