"""The verb that trains and tests a suite, with trainings that take no time."""

import json
from pathlib import Path

import pytest
import yaml

from ebmzoo.cli.main import main
from ebmzoo.report import suites
from ebmzoo.report.commands import Commands
from tests.report.test_compare import PROTOCOL

CONFIGS = str(Path(__file__).parents[2] / "configs")


@pytest.fixture
def instant(monkeypatch):
    """Commands that end at once; trainings of methods in "broken" fail as one does that the guard has stopped."""
    ran, broken = [], set()
    entry = {"step": 40, "reason": "weights are not finite", "action": "stopped"}

    def instead(self, words, log):
        folder = Path(words[words.index("--run_dir") + 1])
        ran.append((words[1], folder.parent.name, folder.name))
        folder.mkdir(parents=True, exist_ok=True)
        if folder.parent.name in broken:
            (folder / "results.json").write_text(json.dumps({"results": [], "run": {"guard": [entry]}}))
            return 1, {"wall_s": 1.0, "cpu_s": 1.0, "threads": 1}
        if words[1] == "test":
            row = {"name": "fid", "value": float(len(folder.parent.name)), "protocol": PROTOCOL}
            found = {"results": [row], "run": {"method": folder.parent.name}}
            (folder / "results.json").write_text(json.dumps(found))
        return 0, {"wall_s": 2.0, "cpu_s": 1.5, "threads": 1}

    monkeypatch.setattr(Commands, "__call__", instead)
    monkeypatch.setattr(suites, "_doctor", lambda config, commands: 10.0)
    return ran, broken


def test_a_quick_benchmark_is_small_lies_apart_and_says_so(tmp_path, monkeypatch, capsys, instant):
    monkeypatch.chdir(tmp_path)  # without configs: those that ship
    words = ["benchmark", "--quick", "--suite", "digits", "--methods", "vae", "--jobs", "1"]
    assert main(words) == 0
    out = Path("runs/benchmark/digits_quick_paper_iterations_300")
    assert instant[0] == [(verb, "vae_digits_quick", "seed_0") for verb in ("fit", "test")]
    assert "| vae_digits_quick | 1 |" in (out / "compare.md").read_text()
    used = yaml.safe_load((out / "configs/vae_digits.yaml").read_text())
    evaluate = next(one["init_args"] for one in used["trainer"]["callbacks"] if one["class_path"] == "Evaluate")
    assert (used["trainer"]["max_steps"], evaluate["n_test"], evaluate["n_val"]) == (300, 500, 500)
    assert main([*words, "--budget", "seconds", "--amount", "-1"]) == 2


def test_a_benchmark_goes_on_where_it_stopped_and_one_failure_stops_nobody(tmp_path, capsys, instant):
    ran, broken = instant
    out = tmp_path / "out"
    words = ["benchmark", "--suite", "digits", "--configs", CONFIGS, "--methods", "vae", "gan", "--seeds", "2"]
    words += ["--out", str(out), "--jobs", "1", "--budget", "iterations", "--amount", "30"]
    broken.add("vae_digits")
    assert main(words) == 1
    said = capsys.readouterr()
    assert "2 of 4 runs failed (vae_digits seed 0, vae_digits seed 1)" in said.err
    assert len([one for one in ran if one[1] == "gan_digits"]) == 4 and (out / "compare.html").is_file()
    assert "vae_digits/seed_1 is left out, it has no numbers: the guard saw at step 40" in said.out
    broken.clear()
    ran.clear()
    assert main(words) == 0
    assert ran == [(verb, "vae_digits", f"seed_{seed}") for seed in (0, 1) for verb in ("fit", "test")]
    text = (out / "compare.md").read_text()
    assert "| vae_digits | 2 |" in text and "| gan_digits | 2 |" in text
    held = json.loads((out / "gan_digits/seed_1/budget.json").read_text())
    assert held["network_evaluations"] == 300 and "--seed_everything 1" in held["commands"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "ecvea"], "no method 'ecvea' in suite digits: did you mean ecvae?"),
        (["--amount", "5"], "--amount is of a --budget"),
        (["--seeds", "0"], "--seeds, --jobs and --threads are at least 1"),
        (["--data", "no.yaml"], "--data no.yaml: there is no such file"),
        (["--configs", "nowhere"], "no configs *_digits.yaml in"),
        (["--seed", "1"], "no option --seed: did you mean seeds"),
        (["--suite", "digit"], "no 'digit' here: did you mean digits?"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(tmp_path, capsys, words, said):
    given = [] if "--configs" in words else ["--configs", CONFIGS]
    assert main(["benchmark", "--suite", "digits", "--out", str(tmp_path / "out"), *given, *words]) == 2
    assert said in (line := capsys.readouterr().err) and line.count("\n") == 1
