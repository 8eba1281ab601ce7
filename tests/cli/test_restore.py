"""ebmzoo restore: what it writes, its figures against definitions, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ebmzoo as package
from ebmzoo.cli.main import main
from ebmzoo.data.digits import digits
from ebmzoo.images import from_uint8, save_images, save_png, to_uint8
from ebmzoo.mcmc import PerImageNoise
from ebmzoo.methods.answers import AnswersByCode
from ebmzoo.metrics.reconstruction import reconstruction_errors, ssim_window
from ebmzoo.tasks import Inpaint, Restorer, SuperResolve, box_mask, scattered_mask

from .conftest import ECVAE

COLOUR = ECVAE.replace("class_path: Digits", "class_path: Glyphs").replace(
    "{batch_size: 32}", "{size: 8, channels: 3, characters: digits, n_train: 64, n_test: 8, batch_size: 16}"
)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A tiny model of colour images."""
    folder = tmp_path_factory.mktemp("coloured")
    (folder / "colour.yaml").write_text(COLOUR)
    assert main(["fit", "--config", str(folder / "colour.yaml"), "--run_dir", str(folder / "run")]) == 0
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def whole(here):
    """A folder of six undamaged digits, and them as floats."""
    x = digits("test")[0][:6]
    save_images(x, here / "whole")
    return from_uint8(to_uint8(x))


def pixels(folder):
    files = sorted(Path(folder).glob("*.png"))
    return torch.stack([from_uint8(torch.from_numpy(np.array(Image.open(path)))) for path in files])


def figures(folder):
    """Value and protocol by name and, where there are two, by rounding."""
    rows = json.loads((Path(folder) / "results.json").read_text())["results"]
    return {(row["name"], row["protocol"]["rounding"] != "none"): row for row in rows}


def test_what_it_writes_is_the_restorers(ebmzoo, here, checkpoint, whole):
    code, said, err = ebmzoo(
        "restore", "--ckpt_path", checkpoint["ecvae"], "--task", "inpaint", "--mask", "2,2,6,6", "--input", "whole",
        "--degrade", "--out", "out", "--seed", 3, "--steps", 7, "--batch_size", 4,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert said.startswith("out: 6 images restored by ")
    model, operator = package.load(checkpoint["ecvae"]), Inpaint(box_mask((1, 8, 8), (2, 2, 6, 6)))
    restorer = Restorer.of(model)
    assert restorer.x_sampler is not None  # the config has a test-time chain
    assert restorer.energy_temperature == 1e-5
    restorer = replace(restorer, steps=7)
    y, noise = operator.degrade(whole), PerImageNoise.of_rows(3, range(6))
    found = restorer(model, operator, y, noise=noise)
    assert [path.name for path in sorted((here / "out/restored").iterdir())] == [f"{k:05d}.png" for k in range(6)]
    written = pixels("out/restored")
    torch.testing.assert_close(written, from_uint8(to_uint8(found.image))[:, 0], rtol=0, atol=1.01 / 127.5)
    assert torch.equal(written[:, 0], whole[:, 0, 0])  # visible pixels are the very bytes
    rows = figures("out")
    stages = {
        "psnr": found.image,
        "psnr_degraded": y,
        "psnr_before_chains": operator.complete(y, found.start),
        "psnr_before_chains_predicted": found.start,
        "psnr_after_z_chain": operator.complete(y, found.latent),
        "psnr_predicted": found.prediction,
    }
    for name, image in stages.items():
        error = (from_uint8(to_uint8(image)) - whole).double().square().mean((1, 2, 3))
        assert error.min() > 1e-4
        expected = (10 * torch.log10(4 / error)).mean().item()
        assert rows[name, True]["value"] == pytest.approx(expected, abs=0.02)
        alike = reconstruction_errors(whole, from_uint8(to_uint8(image))).ssim.mean().item()
        assert rows[name.replace("psnr", "ssim"), True]["value"] == pytest.approx(alike, abs=2e-3)
    assert rows["ssim", True]["protocol"]["settings"]["ssim_window"] == ssim_window(8) == 5
    protocol = rows["psnr", True]["protocol"]
    assert (protocol["n"], protocol["steps"], protocol["seed"]) == (6, 7, 3)
    assert protocol["settings"]["mask"] == "2,2,6,6" and protocol["settings"]["x_chain"]["steps"] == 3
    assert {name for name, _ in rows} >= {"ssim", "ssim_predicted", "consistency_l1", "consistency_max"}
    assert "FID was left out: no --extractor" in said
    strip = Image.open(here / "out/strip.png")
    assert strip.width == 3 * 64 + 4 * 4 and strip.height > 6 * 64
    colours = {colour for _, colour in strip.getcolors(10**6)}
    assert {colour for colour in colours if len(set(colour)) > 1} == {(230, 150, 60), (110, 60, 10)}  # holes alone


def test_superres_takes_small_images_and_references_by_name(ebmzoo, here, checkpoint, whole):
    small = SuperResolve(2).degrade(whole)
    for name, image in zip("fedcba", to_uint8(small), strict=True):  # another order than the references'
        save_png(image, here / "small" / f"{name}.png")
    for name, image in zip("fedcba", to_uint8(whole), strict=True):
        save_png(image, here / "big" / f"{name}.png")
    words = ["--ckpt_path", checkpoint["vae"], "--task", "superres", "--scale", 2, "--steps", 4, "--input", "small"]
    code, said, _ = ebmzoo("restore", *words, "--out", "out", "--reference", "big")
    assert code == 0
    rows = figures("out")
    nearest = from_uint8(to_uint8(small)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = (10 * torch.log10(4 / (nearest - whole).square().mean((1, 2, 3)))).mean().item()
    assert rows["psnr_degraded", True]["value"] == pytest.approx(expected, rel=1e-5)
    assert rows["consistency_max", False]["value"] <= 1e-5
    assert rows["consistency_l1", False]["value"] < 1e-4 < rows["consistency_l1", True]["value"]
    code, said, _ = ebmzoo("restore", *words, "--out", "alone")
    assert code == 0 and "PSNR, SSIM and FID were left out: no --reference" in said
    assert {name for name, _ in figures("alone")} == {"consistency_max", "consistency_l1"}


@pytest.mark.thorough
def test_colours(ebmzoo, here, coloured):
    grey = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(here / "grey.png")
    words = ["--task", "colorize", "--input", "grey.png", "--steps", 5]
    code, said, err = ebmzoo("restore", "--ckpt_path", coloured, *words, "--out", "out")
    assert (code, err) == (0, "")
    image = Image.open(here / "out/restored/grey.png")
    assert image.mode == "RGB"
    assert figures("out")["consistency_max", False]["value"] <= 1e-5


def test_what_cannot_be_read_is_a_line_and_the_rest_is_restored(ebmzoo, here, checkpoint, whole):
    words = ["--ckpt_path", checkpoint["vae"], *BOX, "--degrade", "--steps", 2, "--batch_size", 2]
    assert ebmzoo("restore", *words, "--input", "whole", "--out", "all").code == 0
    (here / "whole" / "00001.png").write_bytes(b"nothing")
    Image.new("L", (9, 8)).save(here / "whole" / "00004.png")
    code, said, err = ebmzoo("restore", *words, "--input", "whole", "--out", "some")
    assert (code, err) == (0, "") and said.startswith("some: 4 images restored by ")
    held = json.loads((here / "some" / "results.json").read_text())
    broken, wide = held["run"]["skipped"]
    assert "00001.png cannot be read as an image" in broken and "00004.png has 9 x 8 px, 8 x 8 are needed" in wide
    assert f"skipped {broken}\nskipped {wide}\n" in said
    assert figures("some")["psnr", True]["protocol"]["n"] == 4
    names = [path.name for path in sorted((here / "some/restored").iterdir())]
    assert names == ["00000.png", "00002.png", "00003.png", "00005.png"]
    rest = pixels("all/restored")[[0, 2, 3, 5]]  # each image keeps its seed
    assert (pixels("some/restored") - rest).abs().max() <= 1.01 / 127.5


def test_scattered_masks_do_not_depend_on_the_batch(ebmzoo, here, checkpoint, whole):
    for batch in (1, 6):
        words = ["--ckpt_path", checkpoint["vae"], "--task", "inpaint", "--mask", "R40", "--input", "whole"]
        assert ebmzoo("restore", *words, "--steps", 2, "--batch_size", batch, "--out", f"out{batch}").code == 0
    assert (pixels("out1/restored") - pixels("out6/restored")).abs().max() <= 1.01 / 127.5
    hidden = scattered_mask((1, 8, 8), 0.4, PerImageNoise.of_rows(1_000_003, range(6)), 6)[:, 0]
    assert torch.equal(pixels("out6/restored")[~hidden], whole[:, 0][~hidden])


def test_fid_where_there_are_enough(ebmzoo, here, checkpoint):
    save_images(digits("test")[0][:70], here / "many")
    words = ["--ckpt_path", checkpoint["vae"], "--task", "superres", "--scale", 2, "--input", "many", "--degrade"]
    code, said, _ = ebmzoo("restore", *words, "--steps", 1, "--extractor", "digits", "--out", "out")
    assert code == 0
    row = figures("out")["fid", True]
    assert row["value"] > 1 and row["protocol"]["extractor"] == "digits" and row["protocol"]["n_reference"] == 70


def test_fid_where_there_are_not(ebmzoo, here, checkpoint, whole):
    words = ["--ckpt_path", checkpoint["vae"], "--task", "superres", "--scale", 2, "--input", "whole", "--degrade"]
    code, said, _ = ebmzoo("restore", *words, "--steps", 1, "--extractor", "digits", "--out", "out")
    assert code == 0
    assert "FID was left out: 64 features need more than so many images for a covariance, there are 6" in said


@pytest.fixture
def bad(here, whole):
    (here / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (here / "empty").mkdir()
    Image.new("L", (9, 8)).save(here / "wide.png")
    Image.fromarray(np.eye(5, dtype=np.uint8) * 255).save(here / "mask5.png")
    Image.new("L", (8, 8), 0).save(here / "nothing.png")
    save_png(to_uint8(whole)[0], here / "old/restored/other.png")
    save_png(to_uint8(whole)[0], here / "few/00000.png")


BOX = ["--task", "inpaint", "--mask", "2,2,6,6"]
BAD = {
    "colour of grey": (["--task", "colorize"], "colorize needs a model of colour images (3, H, W), this one makes"),
    "scale": (["--task", "superres", "--scale", "3"], "do not divide into blocks of 3 x 3 px"),
    "small": (["--task", "superres"], "00000.png has 8 x 8 px, 2 x 2 are needed: cut and scale it first"),
    "no mask": (["--task", "inpaint"], "--task inpaint needs --mask"),
    "mask's size": (["--task", "inpaint", "--mask", "mask5.png"], "the mask has 5 x 5 px, the images 8 x 8"),
    "mask of nothing": (["--task", "inpaint", "--mask", "nothing.png"], "hides no pixel"),
    "mask's words": (["--task", "inpaint", "--mask", "half"], "--mask half: neither LEFT,TOP,RIGHT,BOTTOM"),
    "mask's box": (["--task", "inpaint", "--mask", "2,2,9,6"], "does not lie in 8 x 8 px"),
    "mask's file": (["--task", "inpaint", "--mask", "broken.png"], "broken.png cannot be read as an image"),
    "scale of a mask": ([*BOX, "--scale", "2"], "--scale belongs to --task superres, not to inpaint"),
    "task": (["--task", "sharpen"], "no 'sharpen' here: there are colorize, inpaint, superres"),
    "unreadable": ([*BOX, "--input", "broken.png"], "broken.png cannot be read as an image"),
    "size": ([*BOX, "--input", "wide.png"], "wide.png has 9 x 8 px, 8 x 8 are needed"),
    "no input": ([*BOX, "--input", "nowhere"], "there is no image or folder nowhere"),
    "empty": ([*BOX, "--input", "empty"], "no images in empty"),
    "references": ([*BOX, "--reference", "few"], "few has no reference for 5 inputs, such as 00001"),
    "both": ([*BOX, "--reference", "few", "--degrade"], "--degrade makes the inputs the reference"),
    "old": ([*BOX, "--out", "old"], "restored holds 1 other PNGs (other.png, ...): give an empty folder"),
    "file": ([*BOX, "--out", "wide.png"], "--out wide.png is a file: give a folder"),
    "sigma": ([*BOX, "--sigma", "0"], "a restoration needs sigma > 0"),
    "x chain": ([*BOX, "--x_steps", "3"], "--x_steps needs a chain in x, which this VAE does not have"),
    "extractor": ([*BOX, "--extractor", "digts"], "there is no feature extractor 'digts': digits, cifar10"),
    "extractor's file": ([*BOX, "--extractor", "no.safetensors"], "no feature extractor at no.safetensors: ebmzoo"),
    "option": ([*BOX, "--step", "3"], "no option --step: did you mean"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "line"), BAD.values(), ids=BAD)
def test_bad_input(ebmzoo, here, checkpoint, bad, words, line):
    given = ["--input", "whole", "--out", "out", *words]
    code, out, err = ebmzoo("restore", "--ckpt_path", checkpoint["vae"], *given)
    assert (code, out) == (2, "")
    assert err.startswith("ebmzoo: error: ") and line in err
    assert err.count("\n") == 1
    assert not (here / "out").exists()


def test_a_method_that_cannot_says_which_can(ebmzoo, here, checkpoint, whole, monkeypatch):
    for kind in (package.VAE, AnswersByCode):
        monkeypatch.delattr(kind, "log_prior")
    words = ["--ckpt_path", checkpoint["vae"]]
    for verb in (["restore", *words, *BOX, "--input", "whole", "--out", "out"], ["sample", *words, "--interpolate", 4]):
        code, _, err = ebmzoo(*verb)
        assert code == 2
        assert "needs a generator from latent codes with a prior, which VAE does not have: " in err
        assert "VAEBM" in err.partition("does not have: ")[2]
