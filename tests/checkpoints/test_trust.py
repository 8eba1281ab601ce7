"""Which classes a file may name, and what no string of it may bring in."""

import types

import pytest
import torch
from torch import nn

from ebmzoo.checkpoints import check_trusted, load, read, stored_config, trusted
from ebmzoo.mcmc import Langevin
from ebmzoo.networks import MLPDecoder

from .saved import changed

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


def test_files_that_are_named(tmp_path):
    (tmp_path / "weights.ckpt").write_bytes(b"PK\0" + b"a: b\n" * 10)
    (tmp_path / "long.txt").write_text("# \n" * 400_000 + "a: b")
    check_trusted({"vae_ckpt": str(tmp_path / "weights.ckpt"), "root": str(tmp_path)}, "x.ckpt")
    with pytest.raises(ValueError, match=r"long\.txt, which is too large to be looked through"):
        check_trusted({"a": str(tmp_path / "long.txt")}, "x.ckpt")


def test_text_that_is_no_yaml_is_text():
    for text in ("*", "*png", "a: b: c", "[", "\ud800", "\t", "@x", "%", "{a", "'", "a\x00b"):
        check_trusted({"a": text, text: 1}, "x.ckpt")


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
