import json
import os
import subprocess
from dataclasses import replace
from importlib import metadata

import pytest

import ebmzoo
from ebmzoo.metrics import protocol as room
from ebmzoo.metrics.digit_classifier import sha256_of
from ebmzoo.metrics.extractors import find_extractor
from ebmzoo.metrics.protocol import Protocol, Results, config_hash, git_revision, versions
from ebmzoo.precision import decided


@pytest.fixture
def measured():
    extractor = find_extractor("digits")
    return Protocol(
        n=5000,
        ema=True,
        sampler="none (one step)",
        steps=0,
        step_size=None,
        temperature=None,
        seed=0,
        reference="digits-8 train",
        n_reference=1500,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        resize=extractor.resize,
        rounding=room.ROUNDING,
        settings={"subset_size": 1000},
        config_hash="abc",
    )


def test_a_written_number_carries_its_whole_protocol(measured, tmp_path):
    results = Results(tmp_path / "results.json", run={"checkpoint": "last.ckpt"})
    results.add("fid", 9.8, measured)
    assert not (tmp_path / "results.json").exists()
    assert results.write() == tmp_path / "results.json"
    held = json.loads((tmp_path / "results.json").read_text())
    assert held["run"] == {"checkpoint": "last.ckpt"}
    (entry,) = held["results"]
    assert (entry["name"], entry["value"]) == ("fid", 9.8)
    expected = {
        "n": 5000,
        "ema": True,
        "sampler": "none (one step)",
        "steps": 0,
        "step_size": None,
        "temperature": None,
        "seed": 0,
        "reference": "digits-8 train",
        "n_reference": 1500,
        "extractor": "digits",
        "extractor_sha256": sha256_of(),
        "resize": "area average to 8x8",
        "rounding": "clamp to [-1, 1], (x + 1) * 127.5, round, uint8",
        "settings": {"subset_size": 1000},
        "versions": versions(),
        "git": git_revision(),
        "config_hash": "abc",
        "trained_steps": None,
        "statistics": None,
        "precision": decided(),
    }
    assert entry["protocol"] == expected


def test_without_a_protocol_there_is_no_number(measured, tmp_path):
    results = Results(tmp_path / "results.json")
    for none in (None, {}, measured.as_dict()):
        with pytest.raises(ValueError, match="has no protocol"):
            results.add("fid", 1.0, none)
    with pytest.raises(TypeError, match="seed"):
        Protocol(n=5, ema=True, sampler=None, steps=0, step_size=None, temperature=None)
    assert results.entries == []


def test_merging_replaces_the_same_and_keeps_the_rest(measured, tmp_path):
    path = tmp_path / "results.json"
    first = Results(path, run={"a": 1, "b": 1})
    first.add("fid", 1.0, measured)
    first.add("kid", 2.0, measured)
    first.write()
    second = Results(path, run={"b": 2})
    second.add("fid", 3.0, measured)
    second.add("fid", 4.0, replace(measured, n=2000))
    second.write()
    held = Results(path)
    values = [(entry.name, entry.protocol["n"], entry.value) for entry in held.entries]
    assert values == [("fid", 5000, 3.0), ("kid", 5000, 2.0), ("fid", 2000, 4.0)]
    assert held.run == {"a": 1, "b": 2}
    assert [entry.value for entry in second.added] == [3.0, 4.0]


def test_what_another_process_wrote_meanwhile_is_kept(measured, tmp_path):
    path = tmp_path / "results.json"
    one, two = Results(path), Results(path)
    one.add("fid", 1.0, measured)
    two.add("kid", 2.0, measured)
    one.write()
    two.write()
    assert [entry.name for entry in Results(path).entries] == ["fid", "kid"]


def test_a_failed_write_leaves_the_old_file_whole(measured, tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    results = Results(path)
    results.add("fid", 1.0, measured)
    results.write()
    before = path.read_bytes()
    results.add("kid", 2.0, measured)

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ValueError, match=r"cannot write .*results\.json: No space left on device"):
            results.write()
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["results.json"]
    results.write()
    assert len(Results(path).entries) == 2


def test_the_data_is_on_disk_before_the_name_is(measured, tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), rename(a, b)))
    results = Results(tmp_path / "new" / "results.json")
    results.add("fid", 1.0, measured)
    results.write()
    assert done[:2] == ["fsync", "replace"]
    assert (tmp_path / "new" / "results.json").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("text", ["", "[1]", '{"results": [{"name": "fid"}], "run": {}}', "{"])
def test_a_foreign_file_is_left_alone(measured, tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not a results file: move it away"):
        Results(path)
    assert path.read_text() == text


def test_infinities_become_null(measured, tmp_path):
    results = Results(tmp_path / "results.json")
    for name, value in [("a", float("nan")), ("b", float("inf")), ("c", 1e-300)]:
        results.add(name, value, measured)
    results.write()
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert [entry.value for entry in Results(results.path).entries] == [None, None, 1e-300]


def test_versions():
    found = versions()
    assert found["torch"] == metadata.version("torch")
    assert found["torch-fidelity"] == metadata.version("torch-fidelity")
    assert found["ebmzoo"] == ebmzoo.__version__
    assert set(found) == {
        *("python", "torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "numpy", "ebmzoo")
    }


def test_config_hash_sees_values_and_not_order():
    config = {"model": {"lr": 1e-4, "steps": 3}, "data": [1, 2]}
    assert config_hash(config) == config_hash({"data": [1, 2], "model": {"steps": 3, "lr": 1e-4}})
    assert config_hash(config) != config_hash({"model": {"lr": 1e-4, "steps": 4}, "data": [1, 2]})
    assert config_hash({"data": [2, 1]}) != config_hash({"data": [1, 2]})


def test_git_revision(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    package, installed = tmp_path / "package", tmp_path / "site-packages"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "a.py").write_text("1")
    assert git_revision(package) is None  # no repository
    git_revision.cache_clear()
    git("init", "-q")
    git("add", "package")
    assert git_revision(package) is None  # no commit yet
    git_revision.cache_clear()
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    assert git_revision(package) == commit
    assert git_revision(installed) is None  # inside the repository, and not of it
    git_revision.cache_clear()
    (package / "new.py").write_text("untracked files do not count")
    assert git_revision(package) == commit
    git_revision.cache_clear()
    (package / "a.py").write_text("2")
    assert git_revision(package) == commit + "+dirty"
