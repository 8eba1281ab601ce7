"""Files written whole, and read as tensors only where every byte is what was written."""

import errno
import os
import pickle
import random
import re
import zipfile

import lightning as L
import pytest
import torch

from ebmzoo.checkpoints import export, load, newest_good, read
from ebmzoo.checkpoints.storage import WholeFiles, write_whole
from ebmzoo.data import Digits

from .saved import changed, ecvae


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
