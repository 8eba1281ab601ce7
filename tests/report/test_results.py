"""Finished runs as they lie on the disk."""

import pytest

from ebmzoo.report.compare import compare
from ebmzoo.report.results import load

from .test_compare import diverged, finished


def test_what_lies_inside_a_run_is_no_run(tmp_path):
    finished(tmp_path / "a/seed_0/tasks/M20", psnr=3.0, protocol={"reference": "the inputs"})
    path = tmp_path / "a/seed_0/results.json"
    path.write_text((finished(tmp_path / "b/seed_0", fid=1.0) / "results.json").read_text())
    assert [run.folder for run in load([tmp_path])] == [tmp_path / "a/seed_0", tmp_path / "b/seed_0"]


def test_two_settings_in_one_place_are_two_rows(tmp_path):
    finished(tmp_path / "vae/version_0", config="lr: 1", fid=1.0)
    finished(tmp_path / "vae/version_1", config="lr: 1\nseed_everything: 3", fid=2.0)
    finished(tmp_path / "vae/version_2", config="lr: 2", fid=3.0)
    table = compare(load([tmp_path / "vae"]))
    assert [(row, len(table.of(row))) for row in table.rows] == [("vae/version_0", 2), ("vae/version_2", 1)]


def test_runs_without_any_numbers_are_refused_in_a_line_with_the_guards_reason(tmp_path):
    folder = diverged(tmp_path / "vae")
    said = f"{folder} has no numbers: the guard saw at step 40: weights are not finite: stopped"
    with pytest.raises(ValueError, match="has no numbers") as error:
        load([folder])
    assert str(error.value) == said


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"no results.json in or under {tmp_path}"):
        load([tmp_path])
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a results file"):
        load([tmp_path])
