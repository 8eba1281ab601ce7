"""ebmzoo sample: what it writes, that a seed decides it, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

import ebmzoo as package


def test_grid_array_and_folder_show_the_same_samples(ebmzoo, here, checkpoint):
    words = ["sample", "--ckpt_path", checkpoint["vae"], "--n", 6, "--seed", 5]
    for out in ("grid.png", "array.npy", "folder"):
        code, said, err = ebmzoo(*words, "--out", out)
        assert (code, err) == (0, "")
        assert said.startswith(f"{out}: 6 samples of ")
    array = np.load(here / "array.npy")
    assert (array.shape, array.dtype) == ((6, 1, 8, 8), np.float32)
    files = sorted((here / "folder").iterdir())
    assert [path.name for path in files] == [f"{number:05d}.png" for number in range(6)]
    pixels = np.stack([np.asarray(Image.open(path).convert("L")) for path in files])
    np.testing.assert_array_equal(pixels, np.round((array[:, 0].clip(-1, 1) + 1) * 127.5).astype(np.uint8))
    assert Image.open(here / "grid.png").mode == "RGB"


def test_the_samples_are_the_models(ebmzoo, here, checkpoint):
    assert ebmzoo("sample", "--ckpt_path", checkpoint["ecvae"], "--n", 4, "--seed", 7, "--out", "a.npy").code == 0
    model = package.load(checkpoint["ecvae"])
    np.testing.assert_array_equal(np.load(here / "a.npy"), model.sample(4, noise=7).numpy())


def test_seed_and_steps_decide(ebmzoo, here, checkpoint):
    def draw(*words):
        assert ebmzoo("sample", "--ckpt_path", checkpoint["ecvae"], "--n", 3, "--out", "x.npy", *words).code == 0
        return np.load(here / "x.npy")

    first = draw()
    np.testing.assert_array_equal(first, draw("--seed", 0))
    assert not np.array_equal(first, draw("--seed", 1))
    np.testing.assert_array_equal(first, draw("--steps", 3))  # the config's own number of steps
    assert not np.array_equal(first, draw("--steps", 9))


def test_batches_add_up_to_n(ebmzoo, here, checkpoint):
    words = ["--ckpt_path", checkpoint["vae"], "--n", 7, "--batch_size", 3, "--out", "x.npy"]
    assert ebmzoo("sample", *words).code == 0
    array = np.load(here / "x.npy")
    assert len(np.unique(array.reshape(7, -1), axis=0)) == 7


def test_averaged_weights_are_used_unless_refused(ebmzoo, here, checkpoint):
    stored = torch.load(checkpoint["vae"], weights_only=True)
    stored["ema"] = {name: torch.zeros_like(value) for name, value in stored["state_dict"].items() if "decoder" in name}
    torch.save(stored, here / "averaged.ckpt")
    code, said, _ = ebmzoo("sample", "--ckpt_path", "averaged.ckpt", "--n", 2, "--out", "ema.npy")
    assert code == 0
    assert "averaged (EMA) weights" in said
    assert not np.load(here / "ema.npy").any()  # a decoder of zeros
    code, said, _ = ebmzoo("sample", "--ckpt_path", "averaged.ckpt", "--n", 2, "--out", "raw.npy", "--no_ema")
    assert "raw weights" in said
    assert np.load(here / "raw.npy").any()


BAD = {
    "none": (["--n", "0"], "--n and --batch_size must be positive, not 0"),
    "negative": (["--n", "-4"], "--n and --batch_size must be positive, not -4"),
    "no number": (["--n", "many"], "argument --n: invalid int value: 'many'"),
    "steps without a chain": (["--steps", "4"], "it has no chain"),
    "negative steps": (["--steps", "-1"], "--steps must not be negative"),
    "ending": (["--out", "x.jpg"], "--out x.jpg: give .png (one grid), .npy (floats) or a folder"),
    "under a file": (["--out", "vae.yaml/x"], "cannot write vae.yaml/x: vae.yaml is a file"),
    "option": (["--stepz", "3"], "no option --stepz: did you mean steps?"),
    "device": (["--device", "quantum"], "--device quantum: there is none here"),
}


@pytest.mark.parametrize(("words", "line"), BAD.values(), ids=BAD)
def test_bad_input(ebmzoo, here, checkpoint, words, line):
    code, out, err = ebmzoo("sample", "--ckpt_path", checkpoint["vae"], *words)
    assert (code, out) == (2, "")
    assert err.startswith("ebmzoo: error: ")
    assert line in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in here.iterdir()) == ["ecvae.yaml", "vae.yaml"]
