"""A page of a checkpoint's energy: for points with an MLP, and one line for all else."""

import pytest
import yaml

POINTS = """\
model:
  class_path: ECVAE
  init_args:
    energy: {class_path: MLPEnergy, init_args: {width: 8, depth: 1, activation: tanh}}
data:
  class_path: Gaussians25
  init_args: {n_train: 200, n_test: 50, batch_size: 32}
"""


@pytest.fixture
def points(ebmzoo, here):
    laid = yaml.safe_load(POINTS)
    laid["trainer"] = {"max_epochs": 1}
    (here / "points.yaml").write_text(yaml.safe_dump(laid))
    assert ebmzoo("fit", "--config", "ecvae.yaml", "--config", "points.yaml", "--run_dir", "points").code == 0
    return "points/checkpoints/last.ckpt"


@pytest.mark.thorough
def test_a_page_has_the_energy_and_the_training_chain(ebmzoo, here, points):
    assert ebmzoo("explore", "--ckpt_path", points, "--out", "its/page.html").code == 0
    page = (here / "its" / "page.html").read_text()
    assert '"activation":"tanh"' in page and "ECVAE: averaged (EMA) weights of points" in page
    assert page.count('"inputs":') == 2


def test_images_have_no_page(ebmzoo, checkpoint, here):
    answer = ebmzoo("explore", "--ckpt_path", checkpoint["ecvae"], "--out", "page.html")
    assert answer.code == 2 and "a page shows the plane: this ECVAE is of examples (1, 8, 8)" in answer.err
    answer = ebmzoo("explore", "--ckpt_path", checkpoint["ecvae"], "--out", "page.png")
    assert answer.code == 2 and "ending in .html" in answer.err and not (here / "page.html").exists()
