"""The verbs that put runs side by side, with trainings that take no time."""

import io
import json
import shlex
from pathlib import Path

import pytest
import yaml
from markupsafe import escape
from rich.console import Console

from ebmzoo.cli.main import main
from ebmzoo.report import suites
from ebmzoo.report.commands import Commands
from tests.report.test_compare import PROTOCOL, finished

CONFIGS = str(Path(__file__).parents[2] / "configs")


def test_compare_prints_the_table_and_writes_markdown_and_page(tmp_path, capsys):
    folders = [str(finished(tmp_path / name, name.upper(), fid=fid)) for name, fid in (("a", 2.5), ("b", 1.5))]
    assert main(["compare", *folders, "--out", str(tmp_path / "its page")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[:3] == [  # in a pipe
        "run  FID (digits)  seeds  iterations  sampler",
        "a    2.5           1      10          one step",
        "b    1.5 *         1      10          one step",
    ]
    assert str(tmp_path / "its page" / "compare.html") in printed
    assert "| b | 1 | 10 | one step | **1.5** |" in (tmp_path / "its page" / "compare.md").read_text()
    command = shlex.join(["ebmzoo", "compare", *folders, "--out", str(tmp_path / "its page")])
    assert str(escape(command)) in (tmp_path / "its page" / "compare.html").read_text()


@pytest.mark.parametrize("words", [[], ["a", "--seperate"]])
def test_what_compare_cannot_read_is_one_line(capsys, words):
    assert main(["compare", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ebmzoo: error: ") and said.count("\n") == 1
    assert ("did you mean separate?" if words else "arguments are required: RUN") in said


def test_compare_refuses_different_protocols_in_one_line(tmp_path, capsys):
    a = finished(tmp_path / "a", fid=1.0)
    b = finished(tmp_path / "b", "ECVAE", protocol={"n": 50}, fid=2.0)
    assert main(["compare", str(a), str(b)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "n is 500 and 50" in said and "--separate" in said
    assert main(["compare", str(a), str(b), "--separate"]) == 0


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


def test_a_terminal_has_one_table_of_the_columns_that_fit_and_the_names_of_the_others(tmp_path, capsys):
    from ebmzoo.cli.compare import _show
    from ebmzoo.report.compare import compare
    from ebmzoo.report.results import load

    finished(tmp_path / "a", fid=2.5, kid=1.0, elbo_nats=-60.0, recall=0.5, fit_cpu_s=3.0)
    for width, hidden in ((60, ["iterations", "sampler", "KID (digits)", "ELBO, nats"]), (200, [])):
        out = io.StringIO()
        _show(Console(file=out, force_terminal=True, width=width, color_system=None), compare(load([tmp_path])))
        text = out.getvalue()
        assert text.count("┏") == 1 and max(map(len, text.split("\n└")[0].splitlines())) <= width
        said = f"{len(hidden)} more, with --out FOLDER or in a pipe: {'; '.join(hidden)}."
        assert (said in " ".join(text.split())) == bool(hidden) and "2.5" in text


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
        (["--configs", "nowhere"], "no configs *_digits.yaml in"),
        (["--seed", "1"], "no option --seed: did you mean seeds"),
        (["--suite", "digit"], "no 'digit' here: did you mean digits?"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(tmp_path, capsys, words, said):
    given = [] if "--configs" in words else ["--configs", CONFIGS]
    assert main(["benchmark", "--suite", "digits", "--out", str(tmp_path / "out"), *given, *words]) == 2
    assert said in (line := capsys.readouterr().err) and line.count("\n") == 1
