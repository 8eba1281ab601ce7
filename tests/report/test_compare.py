"""Runs side by side: means and spreads, refusals, the paper's numbers."""

import json

import pytest

from ebmzoo.report.compare import compare
from ebmzoo.report.results import load

PROTOCOL = {
    "n": 500,
    "ema": True,
    "sampler": "none (one step)",
    "steps": 0,
    "reference": "digits-8 train",
    "n_reference": 1500,
    "extractor": "digits",
    "extractor_sha256": "ab" * 32,
    "seed": 0,
    "settings": {"batch_size": 100},
    "trained_steps": 10,
    "versions": {"torch": "1"},
}


def finished(folder, method="VAE", config="a: 1", protocol=None, **numbers):
    """A run's folder as `fit` and `test` leave it."""
    folder.mkdir(parents=True)
    how = PROTOCOL | (protocol or {})
    rows = [{"name": name, "value": value, "protocol": how} for name, value in numbers.items()]
    (folder / "results.json").write_text(json.dumps({"results": rows, "run": {"method": method}}))
    (folder / "config.yaml").write_text(config)
    return folder


def test_seeds_become_a_mean_with_its_deviation_and_the_best_is_bold(tmp_path):
    for seed, fid in enumerate((2.0, 4.0, 9.0)):
        finished(tmp_path / f"vae/seed_{seed}", config=f"seed_everything: {seed}", fid=fid, recall=0.5)
        finished(tmp_path / f"ecvae/seed_{seed}", "ECVAE", f"seed_everything: {seed}", fid=1.0 + seed / 10)
    table = compare(load([tmp_path]))
    assert table.rows == ["ecvae", "vae"]
    fid, recall = table.columns
    assert (fid.cells["vae"].mean, fid.cells["vae"].deviation) == (5.0, pytest.approx(13**0.5))
    assert (fid.best, fid.level, recall.best) == ({"ecvae"}, set(), set())
    text = table.markdown()
    assert "| ecvae | 3 | 10 | one step | **1.10 ± 0.10** |  |" in text and "| 5.0 ± 3.6 | 0.5 ± 0 |" in text
    assert "n 500, against digits-8 train (1,500), extractor digits (sha256 abababab), averaged weights" in text


def test_rows_whose_seeds_overlap_the_best_are_marked(tmp_path):
    for seed in (0, 1):
        finished(tmp_path / f"a/seed_{seed}", fid=1.0 + 2 * seed)
        finished(tmp_path / f"b/seed_{seed}", fid=2.0 + 2 * seed)
        finished(tmp_path / f"c/seed_{seed}", fid=3.5 + seed)
    (fid,) = compare(load([tmp_path])).columns
    assert (fid.best, fid.level) == ({"a"}, {"b"})


def test_the_order_of_rows_says_which_neighbours_overlap(tmp_path):
    for seed in (0, 1):
        for name, fid in {"a": 1.0, "b": 2.0, "c": 8.0, "d": 9.5}.items():
            finished(tmp_path / f"{name}/seed_{seed}", fid=fid + 2 * seed, recall=0.5)
    table = compare(load([tmp_path]))
    assert table.quality is table.columns[0]
    assert table.quality.order == [("a", False), ("b", True), ("c", False), ("d", True)]
    assert "By FID (digits), the best first (≈ where the seeds of two overlap): a ≈ b, c ≈ d." in table.notes()


DIFFERENT = {
    "n": (400, "n is 500 and 400"),
    "reference": ("digits-8 test", "reference is digits-8 train and digits-8 test"),
    "n_reference": (100, "n_reference is 1500 and 100"),
    "extractor": ("inception", "extractor is digits and inception"),
    "ema": (False, "ema is True and False"),
    "rounding": ("truncate", "rounding is not said and truncate"),
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_different_protocols_are_refused_and_the_difference_is_named(tmp_path, field):
    other, said = DIFFERENT[field]
    a = finished(tmp_path / "a", fid=1.0)
    b = finished(tmp_path / "b", "ECVAE", protocol={field: other}, fid=2.0)
    with pytest.raises(ValueError, match="cannot stand in one column") as error:
        compare(load([a, b]))
    assert said in str(error.value) and str(a) in str(error.value) and str(b) in str(error.value)
    one, two = compare(load([a, b]), separate=True).columns
    assert (list(one.cells), list(two.cells)) == (["a"], ["b"]) and field in one.heading


def test_a_sampler_is_its_methods_own_affair_and_must_agree_within_it(tmp_path):
    chain = {"sampler": "Langevin", "steps": 15}
    runs = load([finished(tmp_path / "a", fid=1.0), finished(tmp_path / "b", "VAEBM", protocol=chain, fid=2.0)])
    (column,) = compare(runs).columns
    assert list(column.cells) == ["a", "b"]
    with pytest.raises(ValueError, match=r"sampler is none \(one step\) and Langevin; steps is 0 and 15"):
        compare([*runs, *load([finished(tmp_path / "c", "VAE", protocol=chain, fid=3.0)])])


def test_seeds_of_a_row_are_trained_alike_and_rows_need_not_be(tmp_path):
    a = finished(tmp_path / "a/seed_0", fid=1.0)
    b = finished(tmp_path / "b/seed_0", protocol={"trained_steps": 20}, fid=1.0)
    assert len(compare(load([a, b])).columns) == 1
    c = finished(tmp_path / "a/seed_1", protocol={"trained_steps": 20}, fid=1.0)
    with pytest.raises(ValueError, match="trained_steps is 10 and 20"):
        compare(load([a, c]))


def test_runs_of_different_data_are_refused(tmp_path):
    a = finished(tmp_path / "a", fid=1.0)
    b = finished(tmp_path / "b", protocol={"reference": "cifar10 train"}, fid=1.0)
    with pytest.raises(ValueError, match="different data are not compared: cifar10, digits-8"):
        compare(load([a, b]))


def test_the_papers_number_stands_beside_ours_under_its_protocol_alone(tmp_path):
    paper = {"reference": "cifar10 train", "n": 50_000, "extractor": "inception", "steps": 16, "sampler": "Langevin"}
    a = finished(tmp_path / "a", "VAEBM", protocol=paper, fid=13.0)
    assert "13 (paper: 12.2)" in compare(load([a])).markdown()
    b = finished(tmp_path / "b", "VAEBM", protocol=paper | {"n": 10_000}, fid=13.0)
    assert "paper:" not in compare(load([b])).markdown()


def test_a_seed_that_is_not_finite_is_said_and_is_never_best(tmp_path):
    finished(tmp_path / "a/seed_0", fid=1.0)
    finished(tmp_path / "a/seed_1", fid=None)
    finished(tmp_path / "b", fid=9.0)
    (fid,) = compare(load([tmp_path])).columns
    assert str(fid.cells["a"]) == "not finite for 1 of 2 seeds" and fid.best == set()


def diverged(folder, action="stopped", config="a: 1"):
    """A run's folder as `fit` leaves it when the guard has seen trouble, before any test."""
    finished(folder, config=config)
    entry = {"step": 40, "reason": "weights are not finite", "action": action}
    (folder / "results.json").write_text(json.dumps({"results": [], "run": {"guard": [entry]}}))
    return folder


def test_a_diverged_seed_is_left_out_and_the_notes_say_which_and_why(tmp_path):
    for seed, fid in enumerate((2.0, 4.0)):
        finished(tmp_path / f"vae/seed_{seed}", config=f"seed_everything: {seed}", fid=fid)
    diverged(tmp_path / "vae/seed_2", config="seed_everything: 2")
    diverged(tmp_path / "ecvae/seed_0", "rolled back", "b: 1")
    table = compare(load([tmp_path]), separate=True)
    assert table.rows == ["vae"] and table.columns[0].cells["vae"].values == [2.0, 4.0]
    lost = "vae/seed_2 is left out, it has no numbers: the guard saw at step 40: weights are not finite: stopped."
    assert lost in table.notes()
    assert "ecvae/seed_0 is left out, it has no numbers: `ebmzoo test` has not measured it." in table.notes()


def test_numbers_of_a_run_in_which_the_guard_stepped_in_say_so(tmp_path):
    path = finished(tmp_path / "vae", fid=2.0) / "results.json"
    held = json.loads(path.read_text())
    held["run"]["guard"] = [{"step": 7, "reason": "weights are not finite", "action": "rolled back"}]
    path.write_text(json.dumps(held))
    (note,) = [one for one in compare(load([path])).notes() if "guard" in one]
    assert note == "vae: the guard saw at step 7: weights are not finite: rolled back."


def test_what_is_measured_by_another_network_than_inception_says_so(tmp_path):
    a = finished(tmp_path / "a", fid=1.0, kid=1.0, recall=0.5)
    assert [one.heading for one in compare(load([a])).columns] == ["FID (digits)", "KID (digits)", "recall"]
    b = finished(tmp_path / "b", protocol={"extractor": "inception"}, fid=1.0, kid=1.0, recall=0.5)
    assert [one.heading for one in compare(load([b])).columns] == ["FID", "KID", "recall"]
    c = finished(tmp_path / "c", "ECVAE", protocol={"n": 50}, fid=1.0)
    both = compare(load([a, c]), separate=True).columns
    assert [one.heading for one in both if one.metric == "fid"] == ["FID (digits, n 500)", "FID (digits, n 50)"]


@pytest.mark.parametrize(
    ("numbers", "modes"),
    [
        ({"recall": 0.0}, None),
        ({"recall": 0.009}, None),
        ({"modes_covered": 12.0}, 25),
        ({"stacked_modes": 249.0}, None),  # of the 500 that 500 samples can show
    ],
)
def test_a_collapsed_row_is_marked_and_never_the_best(tmp_path, numbers, modes):
    settings = {"settings": {"modes": modes}} if modes else {}
    for seed in (0, 1):
        bad = numbers if seed else {name: 600.0 for name in numbers}
        finished(tmp_path / f"bad/seed_{seed}", protocol=settings, fid=1.0 + seed, precision=1.0, **bad)
        good = {"recall": 0.01, "modes_covered": 13.0, "stacked_modes": 250.0}
        good = {name: value for name, value in good.items() if name in numbers}
        finished(tmp_path / f"good/seed_{seed}", protocol=settings, fid=2.0 + seed, precision=0.5 + seed, **good)
        finished(tmp_path / f"worst/seed_{seed}", protocol=settings, fid=9.0 + seed, precision=0.25, **good)
    table = compare(load([tmp_path]))
    assert table.mark("bad") == "collapsed: 1 of 2 seeds" and table.mark("good") == table.mark("worst") == ""
    fid, precision = (next(one for one in table.columns if one.metric == name) for name in ("fid", "precision"))
    assert fid.best == precision.best == {"good"} and fid.level == precision.level == set()
    assert "| bad (collapsed: 1 of 2 seeds) | 2 |" in table.markdown()
    (note,) = [one for one in table.notes() if one.startswith("Collapsed: recall below 0.01, or fewer than half")]
    assert any("bad (collapsed: 1 of 2 seeds) ≈ good" in one for one in table.notes()) and "never the best" in note


def test_a_row_whose_seeds_all_collapsed_says_just_that(tmp_path):
    finished(tmp_path / "a", recall=0.0)
    assert compare(load([tmp_path])).mark("a") == "collapsed"


def test_costs_with_the_imports_and_without_them_do_not_share_a_column(tmp_path):
    for name, more in {"a": {}, "b": {"imports": False}}.items():
        folder = finished(tmp_path / name, name.upper(), fid=1.0)
        (folder / "times.json").write_text(json.dumps({"fit": {"cpu_s": 2.0, "threads": 1, **more}}))
    with pytest.raises(ValueError, match="training, CPU time of .* imports is not said and not counted"):
        compare(load([tmp_path]))
