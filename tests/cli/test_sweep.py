"""A sweep: every combination of settings, a run for each seed, a script for a cluster, and what is refused before."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from ebmzoo.cli.main import main
from ebmzoo.cli.sweep import combinations
from ebmzoo.report.commands import Commands
from tests.report.test_compare import PROTOCOL

SETTINGS = ["--set", "model.vae.sigma", "0.1", "0.3", "--set", "trainer.max_steps", "2"]


@pytest.fixture
def instant(monkeypatch):
    """Commands that end at once: a test has the number that its run's name has; runs of "broken" fail in training."""
    ran, broken = [], set()

    def instead(self, words, log):
        folder = Path(words[words.index("--run_dir") + 1])
        if "--print_config" not in words:
            ran.append((words[1], folder.parent.name, folder.name))
        if words[1] == "fit" and folder.parent.name in broken:
            return 1, {"wall_s": 1.0, "cpu_s": 1.0, "threads": 1}
        if words[1] == "test":
            folder.mkdir(parents=True, exist_ok=True)
            row = {"name": "fid", "value": float(folder.parent.name.rpartition("=")[2]), "protocol": PROTOCOL}
            (folder / "results.json").write_text(json.dumps({"results": [row], "run": {"method": "VAE"}}))
        return 0, {"wall_s": 2.0, "cpu_s": 1.5, "threads": 1}

    monkeypatch.setattr(Commands, "__call__", instead)
    return ran, broken


def test_rows_are_all_combinations_and_are_named_by_what_differs():
    settings = {"model.vae.sigma": ["0.1", "0.3"], "model.sampler.class_path": ["MALA"], "data.root": ["a/b", "c"]}
    rows = combinations("configs/vae.yaml", settings, [4, 5])
    assert [one.name for one in rows] == [
        "vae_sigma=0.1_root=a-b",
        "vae_sigma=0.1_root=c",
        "vae_sigma=0.3_root=a-b",
        "vae_sigma=0.3_root=c",
    ]
    assert rows[2].overrides == {
        "model.vae.sigma": "0.3",
        "model.sampler.class_path": "MALA",
        "data.root": "a/b",
    }
    assert list(rows[0].seeds) == [4, 5]


def test_keys_that_end_alike_are_told_apart():
    rows = combinations("a.yaml", {"x.lr": ["1", "2"], "y.z.lr": ["3", "4"]}, [0])
    assert rows[0].name == "a_x.lr=1_z.lr=3"


def test_every_run_is_trained_tested_and_put_on_one_page(instant, tmp_path, capsys):
    ran, _ = instant
    words = ["sweep", "--config", "vae_digits", *SETTINGS, "--seeds", "2", "--out", str(tmp_path)]
    assert main(words) == 0
    rows = [f"vae_digits_sigma={sigma}" for sigma in ("0.1", "0.3")]
    each = {(verb, row, f"seed_{seed}") for verb in ("fit", "test") for row in rows for seed in (0, 1)}
    assert set(ran) == each and len(ran) == 8
    table = (tmp_path / "compare.md").read_text()
    assert f"| {rows[0]} | 2 |" in table and "**0.1" in table and (tmp_path / "compare.html").is_file()
    assert main(words) == 0 and len(ran) == 8  # finished ones are kept
    assert "compare.html" in capsys.readouterr().out


def test_a_failed_run_is_named_and_stops_no_other(instant, tmp_path, capsys):
    ran, broken = instant
    broken.add("vae_digits_sigma=0.1")
    words = ["sweep", "--config", "vae_digits", *SETTINGS, "--seeds", "1", "--out", str(tmp_path)]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "1 of 2 runs failed (vae_digits_sigma=0.1 seed 0)" in said and said.count("\n") == 1
    assert ("test", "vae_digits_sigma=0.3", "seed_0") in ran
    broken.clear()
    assert main(words) == 0 and ran.count(("fit", "vae_digits_sigma=0.3", "seed_0")) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--set", "model.vae.sigma"], "--set model.vae.sigma has no value"),
        (["--set", "a", "1", "--set", "a", "2"], "--set a is given twice"),
        (["--set", "a", "1", "1"], "--set a has a value twice"),
        (["--seeds", "0"], "--seeds, --jobs and --threads are at least 1"),
    ],
)
def test_what_cannot_be_swept_is_one_line(instant, tmp_path, capsys, settings, words):
    assert main(["sweep", "--config", "vae_digits", "--out", str(tmp_path), *settings]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not instant[0]


@pytest.mark.thorough
def test_a_wrong_setting_is_refused_before_any_run(tmp_path, capsys):
    words = [
        "sweep",
        "--config",
        "vae_digits",
        "--set",
        "model.vae.sigmo",
        "0.1",
        "0.3",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "sigmo" in said and "vae_digits_sigmo=0.1" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_cluster_runs_a_line_for_each_task(instant, tmp_path, capsys):
    out = tmp_path / "its runs"
    words = ["sweep", "--config", "vae_digits", *SETTINGS, "--seeds", "2", "--out", str(out), "--slurm"]
    assert main([*words, "gpus=1", "time=1:00:00"]) == 0
    script = out / "sweep.sbatch"
    assert capsys.readouterr().out.strip().endswith(f"next: sbatch {script}") and not instant[0]
    text = script.read_text()
    assert "#SBATCH --array=0-3\n" in text and "#SBATCH --gpus=1\n#SBATCH --time=1:00:00\n" in text
    assert len((out / "tasks.txt").read_text().splitlines()) == 4
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in {"srun": 'exec "$@"', "ebmzoo": 'echo "$@" >> ran'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "3"}
    subprocess.run(["bash", str(script)], cwd=tmp_path, env=environment, check=True)
    first, second = (tmp_path / "ran").read_text().splitlines()
    place = f"{out.resolve()}/vae_digits_sigma=0.3/seed_1"
    assert (
        first.startswith("fit --config ")
        and f"--seed_everything 1 --data.seed 1 --run_dir {place} --resume auto" in first
    )
    assert second == f"test --ckpt_path {place}/checkpoints/last.ckpt --run_dir {place}"


def test_processes_share_the_gpus_out_among_them(monkeypatch, tmp_path):
    seen = []

    class Worker:
        def __init__(self, command, env, **_):
            seen.append(env.get("CUDA_VISIBLE_DEVICES"))

    monkeypatch.setattr(subprocess, "Popen", Worker)
    for visible, each in (("3,7", ["3", "7", "3"]), ("5", ["5", "5", "5"]), ("", ["", "", ""])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        seen.clear()
        commands = Commands(jobs=3)
        for _ in range(3):
            commands._started()
        assert seen == each
