"""The weights of a checkpoint as one file, and what is said of a broken one."""

import pytest
import torch

import ebmzoo as package
from ebmzoo.checkpoints import read


@pytest.mark.thorough
def test_an_exported_model_is_the_checkpoints_averaged_one(ebmzoo, checkpoint, here):
    answer = ebmzoo("export", "--ckpt_path", checkpoint["ecvae"], "--out", "m.safetensors")
    assert answer.code == 0 and "averaged (EMA) weights" in answer.out
    again, model = package.load("m.safetensors"), package.load(checkpoint["ecvae"])
    assert again.ema_active and type(again) is package.ECVAE
    assert torch.equal(again.sample(4, noise=0), model.sample(4, noise=0))
    assert {name: value.tolist() for name, value in again.state_dict().items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    with pytest.raises(ValueError, match="holds averaged weights alone"):
        package.load("m.safetensors", ema=False)
    for verb, extra in (("sample", ["--n", 4]), ("validate", [])):
        assert ebmzoo(verb, "--ckpt_path", "m.safetensors", *extra).code == 0
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--ckpt_path", "m.safetensors")
    assert answer.code == 2 and "has weights alone" in answer.err
    assert ebmzoo("export", "--ckpt_path", checkpoint["ecvae"], "--out", "r.safetensors", "--no_ema").code == 0
    raw = read(checkpoint["ecvae"])["state_dict"]
    assert all(torch.equal(value, raw[name]) for name, value in package.load("r.safetensors").state_dict().items())


def test_an_export_that_is_damaged_or_cannot_be_written(ebmzoo, checkpoint, here):
    assert ebmzoo("export", "--ckpt_path", checkpoint["vae"], "--out", "m.safetensors").code == 0
    data = bytearray((here / "m.safetensors").read_bytes())
    data[-5] ^= 16
    (here / "m.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="m.safetensors is a broken model: its checksum does not hold"):
        package.load("m.safetensors")
    (here / "m.safetensors").write_bytes(data[:100])
    with pytest.raises(ValueError, match="m.safetensors is no model of `ebmzoo export`, or a broken one"):
        package.load("m.safetensors")
    (here / "file").touch()
    for out, words in (("m.ckpt", "ends in .safetensors"), ("file/m.safetensors", "file")):
        answer = ebmzoo("export", "--ckpt_path", checkpoint["vae"], "--out", out)
        assert answer.code == 2 and words in answer.err.splitlines()[-1]
