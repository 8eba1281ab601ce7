"""Experiments as runs of commands, over seeds, and the tables of their results."""

import contextlib
import json
from pathlib import Path

import pytest

from benchmarks.bench import bench, markdown
from ebmzoo.cli.main import main
from ebmzoo.report import runs
from ebmzoo.report.commands import Commands
from ebmzoo.report.results import numbers_of
from ebmzoo.report.runs import Experiment, run


def results(folder, **numbers):
    folder.mkdir(parents=True)
    rows = [{"name": name, "value": value, "protocol": {}} for name, value in numbers.items()]
    (folder / "results.json").write_text(json.dumps({"results": rows, "run": {}}))


def test_table_has_a_row_per_experiment_and_a_column_per_metric(tmp_path):
    for seed in (0, 1, 2):
        results(tmp_path / "a" / f"seed_{seed}", fid=10.0 + seed, recall=0.5)
    experiment = Experiment("a", "none.yaml")
    done = run([experiment], tmp_path, Commands())  # finished runs are not repeated: no command is started for them
    assert [path for _, _, path in done] == [tmp_path / "a" / f"seed_{seed}" / "results.json" for seed in (0, 1, 2)]
    assert (
        markdown(done, ["fid", "recall"]).splitlines()[2] == "| a | 11.0 ± 1.0 (10, 11, 12) | 0.5 ± 0 (0.5, 0.5, 0.5) |"
    )


def test_a_number_that_no_seed_has_leaves_its_cell_empty_and_one_that_a_seed_lacks_is_said(tmp_path):
    results(tmp_path / "a" / "seed_0", fid=10.0)
    results(tmp_path / "a" / "seed_1", fid=10.0, recall=0.5)
    done = run([Experiment("a", "none.yaml", seeds=[0, 1])], tmp_path, Commands())
    row = markdown(done, ["fid", "recall", "fit_cpu_s"]).splitlines()[2]
    assert row == "| a | 10 ± 0 (10, 10) | 0.5 ± 0 (0.5) for 1 of 2 seeds |  |"


def test_a_failed_run_is_reported_and_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    def here(self, words, log):  # the command itself, without a process of its own
        with log.open("w") as file, contextlib.redirect_stderr(file):
            return main(words[1:]), {"wall_s": 1.0, "cpu_s": 1.0, "threads": 1}

    monkeypatch.setattr(Commands, "__call__", here)
    results(tmp_path / "good" / "seed_0", fid=1.0)
    bad = Experiment("bad", str(tmp_path / "missing.yaml"), seeds=[0])
    done = run([bad, Experiment("good", "none.yaml", seeds=[0])], tmp_path, Commands(jobs=1))
    assert [experiment.name for experiment, _, _ in done] == ["good"]
    assert "bad seed 0: fit ended with 2" in capsys.readouterr().out
    assert "no config at" in (tmp_path / "bad" / "seed_0.log").read_text()


def test_a_diverged_training_has_not_finished_and_is_tried_again(tmp_path, monkeypatch):
    results(tmp_path / "a/seed_0")  # the guard's note makes such a file, without numbers
    assert not runs.finished(tmp_path / "a/seed_0") and not runs.finished(tmp_path / "none")
    began = []

    def instead(self, words, log):
        began.append(words[1])
        return 1, {"wall_s": 1.0, "cpu_s": 1.0, "threads": 1}

    monkeypatch.setattr(Commands, "__call__", instead)
    assert run([Experiment("a", "none.yaml", seeds=[0])], tmp_path, Commands()) == [] and began == ["fit"]


def test_a_file_that_was_cut_off_stops_its_own_run_alone_and_is_named(tmp_path, capsys):
    results(tmp_path / "good" / "seed_0", fid=1.0)
    (tmp_path / "bad/seed_0").mkdir(parents=True)
    (tmp_path / "bad/seed_0/times.json").write_text('{"fit": {"cpu')
    done = run([Experiment(name, "none.yaml", seeds=[0]) for name in ("bad", "good")], tmp_path, Commands(jobs=1))
    assert [experiment.name for experiment, _, _ in done] == ["good"]
    said = capsys.readouterr().out
    assert f"bad seed 0: {tmp_path}/bad/seed_0/times.json is cut off or not ours: delete it" in said


def test_overrides_come_after_the_config_and_seeds_reach_the_order_of_the_data(tmp_path):
    words = Experiment("a", "c.yaml", {"model.kl_weight": 0.5}).fit_command(3, tmp_path)
    assert words[words.index("--seed_everything") + 1] == words[words.index("--data.seed") + 1] == "3"
    assert words[-2:] == ["--model.kl_weight", "0.5"]


def test_a_training_that_was_cut_off_goes_on_and_its_part_of_the_cost_is_no_cost(tmp_path, monkeypatch):
    asked = []

    def instead(self, words, log):
        asked.append(words)
        folder = Path(words[words.index("--run_dir") + 1])
        if words[1] == "test":
            rows = [{"name": "fid", "value": 3.0, "protocol": {}}]
            (folder / "results.json").write_text(json.dumps({"results": rows, "run": {}}))
        return 0, {"wall_s": 2.0, "cpu_s": 1.5, "threads": 1}

    monkeypatch.setattr(Commands, "__call__", instead)
    (tmp_path / "a/seed_0/checkpoints").mkdir(parents=True)  # what a killed training leaves
    done = run([Experiment("a", "none.yaml", seeds=[0])], tmp_path, Commands())
    assert asked[0][asked[0].index("--resume") + 1] == "auto"
    assert list(numbers_of(done[0][2].parent)) == ["fid"]


def test_what_is_only_tested_follows_the_training_that_it_belongs_to(tmp_path, monkeypatch):
    began = []

    def instead(self, words, log):
        began.append(words)
        folder = words[words.index("--run_dir") + 1]
        if words[1] == "test":
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            rows = [{"name": "fid", "value": 3.0, "protocol": {}}]
            (tmp_path / folder / "results.json").write_text(json.dumps({"results": rows, "run": {}}))
        else:
            (tmp_path / folder).mkdir(parents=True)
        return 0, {"wall_s": 2.0, "cpu_s": 1.5, "threads": 1}

    monkeypatch.setattr(Commands, "__call__", instead)
    mean = Experiment("mean", "c.yaml", test={"model.output": "mean"}, seeds=[4], of="trained")
    done = run([mean, Experiment("trained", "c.yaml", seeds=[4])], tmp_path, Commands())
    assert [words[1] for words in began] == ["fit", "test", "test"]
    assert began[2][began[2].index("--ckpt_path") + 1] == str(tmp_path / "trained/seed_4/checkpoints/last.ckpt")
    assert began[2][-2:] == ["--model.output", "mean"]
    rows = markdown(done, ["fid", "fit_cpu_s"]).splitlines()
    assert rows[2:] == ["| mean | 3 ± 0 (3) |  |", "| trained | 3 ± 0 (3) | 1.5 ± 0 (1.5) |"]
    (tmp_path / "trained/seed_4/results.json").unlink()  # measured anew, but not trained anew
    began.clear()
    run([Experiment("trained", "c.yaml", seeds=[4])], tmp_path, Commands())
    assert [words[1] for words in began] == ["test"]


def test_bench_prints_a_table_and_names_an_unknown_group(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    results(tmp_path / "runs/bench/a/seed_0", fid=4.0)
    groups = {"one": [Experiment("a", "none.yaml", seeds=[0])]}
    monkeypatch.setattr("sys.argv", ["bench", "one"])
    bench("what", groups, {"": ["fid"]}, remark=lambda experiment, seed, path: f"{experiment.name} {seed} {path.name}")
    assert "| a | 4 ± 0 (4) |" in (printed := capsys.readouterr().out) and "a 0 results.json" in printed
    monkeypatch.setattr("sys.argv", ["bench", "two"])
    with pytest.raises(SystemExit):
        bench("what", groups, {"": ["fid"]})
    assert "no group 'two': choose from one" in capsys.readouterr().err
