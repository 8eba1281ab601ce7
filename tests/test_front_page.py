"""The command that makes the pictures of README.md and docs/methods, and the pictures themselves."""

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

import ebmzoo
from benchmarks import front_page
from ebmzoo.cli.main import main
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import PerImageNoise

ROOT = Path(__file__).parent.parent
PICTURES = sorted((ROOT / "docs" / "pictures").glob("*"))
TINY = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.limit_val_batches", "1"]
TINY += ["--trainer.callbacks.Evaluate.batch_size", "500", "--trainer.callbacks.ModelCheckpoint", "null"]


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    tiny = [*TINY, "--model.vae_steps", "1", "--model.refine.steps", "5", "--trainer.callbacks.EMA.start_step", "1"]
    assert main(["fit", "--config", "vaebm_digits", "--run_dir", f"{folder}/vaebm_digits/version_0", *tiny]) == 0
    assert main(["fit", "--config", "vae_digits", "--run_dir", f"{folder}/vae_digits", *TINY]) == 0
    config = folder / "vae_digits" / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 2\n", "max_steps: 3\n"))
    return folder


@pytest.mark.thorough
def test_pictures_are_of_finished_runs(runs, tmp_path, capsys):
    capsys.readouterr()
    front_page.main(["--runs", str(runs), "--out", str(tmp_path / "out")])
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["vaebm"] == str(runs / "vaebm_digits" / "version_0")
    assert said["vae"] == f"left out, {runs / 'vae_digits'} is at 2 of 3 iterations"
    assert said["bidvl"] == f"left out, no run in {runs / 'bidvl_digits'}"
    made = {path.stem: np.array(Image.open(path).convert("L")) for path in (tmp_path / "out").iterdir()}
    own = {"vaebm", "vaebm_samples", "vaebm_chain", "vaebm_curve"}
    assert made.keys() == {"data", *own}
    # The samples stand in the picture four times as large, 3 px apart: each block's corner is a pixel.
    model = ebmzoo.load(runs / "vaebm_digits" / "version_0" / "checkpoints" / "last.ckpt")
    samples = to_uint8(model.sample(96, noise=PerImageNoise.of_rows(0, range(96), "cpu")))[:, 0].numpy()
    places = 3 + 35 * np.arange(16)[:, None] + 4 * np.arange(8)
    shown = made["vaebm_samples"][np.ix_(places[:6].ravel(), places.ravel())]
    assert (shown == samples.reshape(6, 16, 8, 8).swapaxes(1, 2).reshape(48, 128)).all()


def test_of_small_networks_on_cifar_there_are_samples_and_one_picture_of_curves(tmp_path, monkeypatch):
    # Two rows of ten, twice as large, 2 px apart.
    monkeypatch.setattr(front_page.ebmzoo, "load", lambda path: Namespace(device="cpu", sample=lambda n, noise: image))
    image, drawn, plot = torch.zeros(20, 3, 8, 8), [], Axes.plot

    def watched(axes, x, y, **more):
        drawn.append((x.tolist(), y.tolist()))
        return plot(axes, x, y, **more)

    monkeypatch.setattr(Axes, "plot", watched)
    rows = "step,time/steps_per_second,val/fid_1k\n99,2.0,\n149,,5.0\n199,1.0,4.0\n"
    (tmp_path / "metrics.csv").write_text(rows)
    made = dict(front_page.of_cifar({"vaebm": tmp_path}))
    assert made["cifar_vaebm"].shape == (3, 2 * 18 + 2, 10 * 18 + 2)
    # A hundred iterations at two a second, a hundred at one: the 150th ends after 100 seconds.
    assert drawn == [([pytest.approx(100 / 60), pytest.approx(150 / 60)], [5.0, 4.0])]
    assert made.keys() == {"cifar_vaebm", "cifar_curves"} and made["cifar_curves"].dtype == torch.uint8


def test_a_learning_curve_has_the_iterations_of_its_validations(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/fid_2k\n0,499,1.0,\n0,999,,7.5\n1,1999,,6.25\n")
    iterations, values = front_page.learning_curve(tmp_path / "metrics.csv", "val/fid_2k")
    assert (iterations, values.tolist()) == ([1000, 2000], [7.5, 6.25])


def test_pictures_are_small_and_shown():
    assert len(PICTURES) > 5 and sum(path.stat().st_size for path in PICTURES) <= 700_000
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"\]\([./a-z]*pictures/(\w+\.png)\)", page.read_text())}
    assert shown == {path.name for path in PICTURES}
