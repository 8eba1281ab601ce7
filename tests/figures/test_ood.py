import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from ebmzoo.data import Digits, Glyphs, ImageFolder, StackedDigits, StackedMNIST
from ebmzoo.figures.ood import MADE, OutOfDistribution, constants, detection, interpolations, uniform_noise
from ebmzoo.images import save_images
from ebmzoo.mcmc import as_noise

from ..callbacks.fakes import Images, Tiny, measured


def scores(n, shift, seed):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_against_torchmetrics_and_counting():
    inside, outside = scores(300, 1.0, 0).round(decimals=1), scores(200, 0.0, 1).round(decimals=1)  # with ties
    found = detection(inside, outside)
    pairs = (inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside).double()
    assert found.auroc == pytest.approx(pairs.mean().item(), abs=1e-12)
    # torchmetrics squashes what lies outside [0, 1] by a sigmoid in float32, which would make new ties
    unit = (torch.cat([inside, outside]) + 10) / 20
    labels = torch.cat([torch.ones(300), torch.zeros(200)]).long()
    assert found.auroc == pytest.approx(binary_auroc(unit, labels).item(), abs=1e-6)
    assert found.aupr == pytest.approx(binary_average_precision(unit, labels).item(), abs=1e-6)
    passing = [t for t in inside.tolist() if (inside >= t).double().mean() >= 0.95]
    assert found.fpr95 == pytest.approx((outside >= max(passing)).double().mean().item(), abs=1e-12)


def test_perfect_reversed_and_chance():
    inside, outside = torch.arange(5.0) + 10, torch.arange(5.0)
    assert detection(inside, outside) == (1.0, 1.0, 0.0)
    assert detection(outside, inside).auroc == 0.0 and detection(outside, inside).fpr95 == 1.0
    assert detection(inside, inside).auroc == 0.5
    infinite = detection(inside, torch.tensor([-float("inf"), 3.0]))
    assert infinite.auroc == 1.0


def test_what_cannot_be_scored():
    with pytest.raises(ValueError, match="1 of 6 scores are NaN"):
        detection(torch.arange(5.0), torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match="on both sides, not 5 and 0"):
        detection(torch.arange(5.0), torch.zeros(0))
    with pytest.raises(ValueError, match="n of at least 2"):
        OutOfDistribution(n=1)
    with pytest.raises(ValueError, match=r"no out-of-distribution sets \['noize'\]"):
        OutOfDistribution(sets=["constants", "noize"])


def test_interpolations_are_midpoints_of_two_examples():
    x = 2.0 ** torch.arange(12)[:, None]  # every pair has a sum of its own
    found = interpolations(x, as_noise(0))
    sums = {(a + b).item() / 2 for i, a in enumerate(x) for j, b in enumerate(x) if i != j}
    assert found.shape == x.shape and all(value in sums for value in found.flatten().tolist())
    with pytest.raises(ValueError, match="at least two"):
        interpolations(x[:1], as_noise(0))


def test_noise_and_constants():
    x = torch.zeros(500, 3, 4, 4)
    noise = uniform_noise(x, as_noise(0))
    assert noise.min() >= -1 and noise.max() < 1 and noise.var() == pytest.approx(1 / 3, rel=0.05)
    flat = constants(x, as_noise(0))
    assert flat.shape == x.shape and bool((flat == flat[..., :1, :1]).all())
    assert flat.min() >= -1 and flat[:, 0, 0, 0].unique().numel() > 490
    assert all(torch.equal(make(x, as_noise(3)), make(x, as_noise(3))) for make in MADE.values())


class Scored(Tiny):
    def score(self, x):
        return -x.square().flatten(1).sum(1)


def test_scores_against_other_sets(tmp_path):
    data = Images()
    data.outsiders = lambda: [Glyphs(size=8, like="digits", n_train=1, n_test=30)]
    torch.manual_seed(0)
    method = Scored()
    found, skipped, held = measured(tmp_path, method, data, figures=[OutOfDistribution()])
    test, train = data.reference("test"), data.reference("train")
    letters = Glyphs(size=8, like="digits", n_train=1, n_test=30).reference("test")[torch.arange(30)]
    sets = {"glyphs-letters-like-digits-8": letters, "interpolations": interpolations(test, as_noise(0))}
    for name, x in sets.items():
        expected = detection(method.score(test), method.score(x))
        for metric, value in expected._asdict().items():
            assert found[f"ood_{metric}_{name}"] == pytest.approx(value, abs=1e-9), (name, metric)
    expected = detection(method.score(test), method.score(train)).auroc
    assert found["auroc_test_against_train"] == pytest.approx(expected, abs=1e-9)
    assert {"ood_auroc_uniform_noise", "ood_auroc_constants"} < set(found) and skipped == []
    arrays = np.load(tmp_path / "arrays.npz")
    assert arrays["score/interpolations"] == pytest.approx(method.score(sets["interpolations"]).numpy(), rel=1e-6)
    assert len(found) == 1 + 4 * 3
    protocol = next(e["protocol"] for e in held["results"] if e["name"] == "ood_auroc_interpolations")
    assert (protocol["n"], protocol["n_reference"], protocol["reference"]) == (12, 12, "interpolations")
    assert protocol["settings"]["positive"] == "in-distribution"
    for name in ("score_ood", "score_train_test"):
        assert (tmp_path / f"{name}.png").is_file()


def test_a_set_that_is_missing_or_of_another_shape_is_a_line(tmp_path):
    sets = [StackedMNIST(tmp_path / "nowhere"), StackedDigits(), "constants", Digits(16)]
    found, skipped, _ = measured(tmp_path, Scored(), figures=[OutOfDistribution(sets=sets)])
    assert "ood_auroc_constants" in found and len(found) == 4
    missing, coloured, large = skipped
    assert missing.startswith("out-of-distribution, stacked-mnist-32: ") and "(3, 32, 32)" in missing
    assert coloured == "out-of-distribution, stacked-digits-8: its images are (3, 8, 8), the model's (1, 8, 8)"
    assert large.startswith("out-of-distribution, digits-16: its images are (1, 16, 16)")


def test_a_broken_image_of_a_set_is_a_line(tmp_path):
    folder = tmp_path / "others"
    save_images(Images().reference("test")[:6], folder)
    (folder / "00003.png").write_bytes(b"nothing")
    data = ImageFolder(folder, size=8, channels=1, holdout=0)
    found, skipped, _ = measured(tmp_path / "out", Scored(), figures=[OutOfDistribution(sets=[data, "constants"])])
    assert len(skipped) == 1 and "00003.png cannot be read as an image" in skipped[0] and "\n" not in skipped[0]
    assert "ood_auroc_constants" in found and len(found) == 4


def test_missing_files_of_a_set_are_a_line(tmp_path):
    class Missing(Digits):
        def load(self, split):
            raise FileNotFoundError("no such set at there: get it from here")

    found, skipped, _ = measured(tmp_path, Scored(), figures=[OutOfDistribution(sets=[Missing(), "uniform noise"])])
    assert skipped == ["out-of-distribution, digits-8: no such set at there: get it from here"]
    assert "ood_fpr95_uniform_noise" in found
