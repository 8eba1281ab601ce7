"""Experiments as commands, and the tables of their results."""

import contextlib
import json
import os
from pathlib import Path

import pytest

import ebmzoo
from benchmarks.bench import bench, markdown
from ebmzoo.cli.main import main
from ebmzoo.report import runs
from ebmzoo.report.cells import Cell, readable
from ebmzoo.report.commands import Commands
from ebmzoo.report.results import numbers_of
from ebmzoo.report.runs import Experiment, run


def results(folder, **numbers):
    folder.mkdir(parents=True)
    rows = [{"name": name, "value": value, "protocol": {}} for name, value in numbers.items()]
    (folder / "results.json").write_text(json.dumps({"results": rows, "run": {}}))


def test_spread_is_the_mean_and_the_sample_deviation():
    assert Cell([2.0, 4.0, 9.0]).each() == "5.0 ± 3.6 (2, 4, 9)"
    assert Cell([20.25, 20.75]).each(4) == "20.50 ± 0.35 (20.25, 20.75)" and Cell([2.0]).each() == "2 ± 0 (2)"
    assert Cell([2.0, None]).each() == "not finite for 1 of 2 seeds"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.99997, 1.00003], "1.000 ± 0.000"),  # not 1 ± 4.2e-05
        ([4.19, 5.17], "4.68 ± 0.69"),
        ([1200.0, 1240.0], "1,220 ± 28"),
        ([-2.6124, -2.6122], "-2.612 ± 0.000"),
        ([0.0, 0.02], "0.010 ± 0.014"),
        ([-1.0, 1.0], "0.0 ± 1.4"),
        ([0.25, 0.25], "0.25 ± 0"),
    ],
)
def test_a_mean_and_its_spread_have_the_digits_of_the_spread(values, said):
    assert str(Cell(values)) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.000339], "0.339 ms"),
        ([0.010, 0.012], "11.0 ± 1.4 ms"),
        ([31.5], "31.5 s"),
        ([119.0], "119 s"),
        ([150.0, 210.0], "3.00 ± 0.71 min"),
        ([7200.0], "2 h"),
    ],
)
def test_seconds_stand_in_the_unit_that_suits_them(values, said):
    assert str(Cell(values, seconds=True)) == said


def test_small_numbers_have_no_exponent():
    assert [readable(value) for value in (4.3e-5, -1.25e-4, 0.0, 1e-4)] == ["0.000043", "-0.000125", "0", "0.0001"]


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


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "times.json"
    runs.write(path, {"fit": 1})

    def full(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("ebmzoo.files.os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        runs.write(path, {"fit": 2})
    assert json.loads(path.read_text()) == {"fit": 1} and list(tmp_path.iterdir()) == [path]


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


@pytest.mark.thorough
def test_commands_are_forks_of_one_process_timed_in_cpu_seconds_of_their_own(tmp_path, monkeypatch, capfd):
    """The third is killed as the kernel kills what takes all memory, and ends no other."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "fork, made = os.fork, []\n"
        "def killed_third():\n"
        "    made.append(fork())\n"
        "    if made[-1] == 0 and len(made) == 3: os.kill(os.getpid(), 9)\n"
        "    return made[-1]\n"
        "os.fork = killed_third\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    log = tmp_path / "log"
    with Commands(jobs=1) as commands:
        done = [commands(["ebmzoo", word], log) for word in ("--help", "tset", "--version", "--version")]
        (process,) = commands._all
        process.kill()
        process.wait()
        assert commands(["ebmzoo", "--version"], log) == (-9, {})
    assert [code for code, _ in done] == [0, 2, -9, 0]
    assert 0 < done[0][1]["cpu_s"] < 1 and done[0][1]["threads"] == 1  # the imports take longer
    said = log.read_text()
    assert "ebmzoo fit" in said and "no verb 'tset'" in said and said.count(f"ebmzoo {ebmzoo.__version__}") == 1
    assert capfd.readouterr() == ("", "")


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
