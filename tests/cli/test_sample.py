"""ebmzoo sample: what it writes, that a seed decides it, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

import ebmzoo as package
from ebmzoo.data.digits import digits
from ebmzoo.images import from_uint8, save_png, to_uint8
from ebmzoo.mcmc import Langevin, PerImageNoise


def test_grid_array_and_folder_show_the_same_samples(ebmzoo, here, checkpoint):
    words = ["sample", "--ckpt_path", checkpoint["vae"], "--n", 6, "--seed", 5]
    for out in ("grid.png", "array.npy", "folder"):
        code, said, err = ebmzoo(*words, "--out", out)
        assert (code, err) == (0, "")
        assert said.startswith(f"{out}: 6 samples of ")
    array = np.load(here / "array.npy")
    assert (array.shape, array.dtype) == ((6, 1, 8, 8), np.float32)
    assert abs(array).max() <= 1
    files = sorted((here / "folder").iterdir())
    assert [path.name for path in files] == [f"{number:05d}.png" for number in range(6)]
    pixels = np.stack([np.asarray(Image.open(path).convert("L")) for path in files])
    np.testing.assert_array_equal(pixels, np.round((array[:, 0] + 1) * 127.5).astype(np.uint8))
    assert Image.open(here / "grid.png").mode == "RGB"


def test_the_samples_are_the_models(ebmzoo, here, checkpoint):
    assert ebmzoo("sample", "--ckpt_path", checkpoint["ecvae"], "--n", 4, "--seed", 7, "--out", "a.npy").code == 0
    model = package.load(checkpoint["ecvae"])
    noise = PerImageNoise.of_rows(7, range(4))
    np.testing.assert_array_equal(np.load(here / "a.npy"), model.sample(4, noise=noise).numpy())


def test_seed_and_steps_decide(ebmzoo, here, checkpoint):
    def draw(*words):
        assert ebmzoo("sample", "--ckpt_path", checkpoint["ecvae"], "--n", 3, "--out", "x.npy", *words).code == 0
        return np.load(here / "x.npy")

    first = draw()
    np.testing.assert_array_equal(first, draw("--seed", 0))
    assert not np.array_equal(first, draw("--seed", 1))
    np.testing.assert_array_equal(first, draw("--steps", 3))  # the config's own number of steps
    assert not np.array_equal(first, draw("--steps", 9))


@pytest.mark.parametrize("name", ["vae", "ecvae"])  # ecvae has a test-time chain
def test_an_image_does_not_depend_on_the_batch_it_is_drawn_in(ebmzoo, here, checkpoint, name):
    arrays = []
    for n, batch in ((7, 7), (7, 3), (5, 1)):
        words = ["--ckpt_path", checkpoint[name], "--n", n, "--batch_size", batch, "--out", "x.npy"]
        assert ebmzoo("sample", *words).code == 0
        arrays.append(np.load(here / "x.npy"))
    assert len(np.unique(arrays[0].reshape(7, -1), axis=0)) == 7
    for array in arrays[1:]:
        np.testing.assert_allclose(array, arrays[0][: len(array)], rtol=0, atol=1e-5)


def film(ebmzoo, here, checkpoint, *words):
    answer = ebmzoo("sample", "--ckpt_path", checkpoint, "--out", "film.npy", *words)
    assert (answer.code, answer.err) == (0, "")
    return np.load(here / "film.npy"), answer.out


def test_interpolation_goes_from_one_drawn_code_to_another(ebmzoo, here, checkpoint):
    frames, said = film(ebmzoo, here, checkpoint["vae"], "--interpolate", 5, "--n", 3, "--batch_size", 2, "--seed", 4)
    assert frames.shape == (5, 3, 1, 8, 8)
    assert said.startswith("film.npy: 5 images between 3 pairs of codes, seed 4, by ")
    model = package.load(checkpoint["vae"])
    noise = PerImageNoise.of_rows(4, range(3))
    with torch.no_grad():
        for end in (0, -1):
            np.testing.assert_allclose(frames[end], model.decode(noise.normal((3, 4))).numpy(), rtol=0, atol=1e-6)


def test_interpolation_between_two_images_ends_in_their_reconstructions(ebmzoo, here, checkpoint):
    x = digits("test")[0][:2]
    for path, image in zip(("a.png", "b.png"), to_uint8(x), strict=True):
        save_png(image, here / path)
    frames, _ = film(ebmzoo, here, checkpoint["vae"], "--interpolate", 3, "--between", "a.png", "b.png")
    assert frames.shape == (3, 1, 1, 8, 8)
    with torch.no_grad():
        again = package.load(checkpoint["vae"]).reconstruct(from_uint8(to_uint8(x)))
    np.testing.assert_allclose(frames[[0, 2], 0], again.numpy(), rtol=0, atol=1e-5)


def test_a_chain_is_shown_from_its_start_to_the_sample(ebmzoo, here, checkpoint):
    words = ["--ckpt_path", checkpoint["ecvae"], "--n", 2, "--out", "x.npy"]
    frames, said = film(ebmzoo, here, checkpoint["ecvae"], "--chain", "--n", 2, "--frames", 3, "--steps", 4)
    assert frames.shape == (3, 2, 1, 8, 8)
    assert "2 chains of 4 steps, 3 states each" in said
    for frame, steps in ((0, 0), (1, 2), (2, 4)):
        assert ebmzoo("sample", *words, "--steps", steps).code == 0
        np.testing.assert_allclose(frames[frame], np.load(here / "x.npy"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("words", [["--chain", "--frames", 4], ["--interpolate", 4]], ids=["chain", "interpolate"])
def test_films_as_pictures(ebmzoo, here, checkpoint, words):
    for out, frames in (("f.png", 1), ("f.gif", 4), ("f.apng", 4)):
        code, _, err = ebmzoo("sample", "--ckpt_path", checkpoint["ecvae"], "--n", 2, *words, "--out", out)
        assert (code, err) == (0, "")
        image = Image.open(here / out)
        assert getattr(image, "n_frames", 1) == frames
        assert image.width >= 2 * 64  # small images are enlarged


def test_temperatures(ebmzoo, here, checkpoint):
    def draw(*words):
        assert ebmzoo("sample", "--ckpt_path", checkpoint["ecvae"], "--n", 3, "--out", "x.npy", *words).code == 0
        return np.load(here / "x.npy")

    model = package.load(checkpoint["ecvae"])
    with torch.no_grad():
        mean = model.decode(torch.zeros(1, 4)).numpy()
    np.testing.assert_allclose(draw("--temperature", 0, "--steps", 0), np.repeat(mean, 3, 0), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(draw("--temperature", 1), draw())
    np.testing.assert_array_equal(draw("--chain_temperature", 1e-5), draw())  # the config's own
    model.refine = Langevin(3, 0.1, 0.0)
    cold = model.sample(3, noise=PerImageNoise.of_rows(0, range(3))).numpy()
    np.testing.assert_array_equal(draw("--chain_temperature", 0), cold)


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
    "ending": (["--out", "x.jpg"], "--out x.jpg: give .png (one grid), .npy (floats) or a folder (no ending)"),
    "under a file": (["--out", "vae.yaml/x"], "cannot write vae.yaml/x: vae.yaml is a file"),
    "option": (["--stepz", "3"], "no option --stepz: did you mean steps?"),
    "two films": (["--chain", "--interpolate", "4"], "--chain and --interpolate show different things"),
    "one frame": (["--interpolate", "1"], "--interpolate needs two frames or more, not 1"),
    "frames of nothing": (["--frames", "4"], "--frames belongs to --chain"),
    "between nothing": (["--between", "a.png", "b.png"], "--between belongs to --interpolate FRAMES"),
    "steps of no chain": (["--interpolate", "4", "--steps", "2"], "--interpolate runs no chain: leave --steps out"),
    "n of two": (
        ["--interpolate", "4", "--between", "a", "b", "--n", "2"],
        "takes its codes from images: leave --n out",
    ),
    "no image": (["--interpolate", "4", "--between", "a.png", "b.png"], "there is no image a.png"),
    "no picture": (["--interpolate", "4", "--between", "vae.yaml", "vae.yaml"], "vae.yaml cannot be read as an image"),
    "film's ending": (["--interpolate", "4", "--out", "folder"], "give .png (a strip), .gif (an animation), .apng"),
    "no chain": (["--chain"], "there is no chain to show: VAE samples in one step; "),
    "cold": (["--temperature", "-1"], "--temperature must not be negative, not -1.0"),
    "cold chain": (["--chain_temperature", "1"], "--chain_temperature is for methods with a chain: "),
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
