"""Runs that are stopped, killed, preempted or diverge, and files that come from elsewhere."""

import csv
import errno
import json
import os
import shutil
import signal
import sys
import zipfile

import pytest
import torch
import yaml
from lightning import Callback

import ebmzoo as package
from ebmzoo.checkpoints import newest_good, read

from ..faults import Fault
from .test_lightning_cli import rows, timeless

SAVE_OFTEN = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=2"]
SAVE_OFTEN += ["--trainer.callbacks.save_last=true", "--trainer.callbacks.save_top_k=0"]


@pytest.fixture(autouse=True)
def fresh_faults():
    Fault.done.clear()


def assert_same(a, b):
    a, b = read(a), read(b)
    for part in ("state_dict", "ema"):
        assert a.get(part, {}).keys() == b.get(part, {}).keys()
        assert all(torch.equal(value, b[part][name]) for name, value in a.get(part, {}).items())
    assert a["global_step"] == b["global_step"]


class Told(Callback):
    """What a cluster, or a user's Ctrl-C, does to a run, once for each object and so often."""

    def __init__(self, number=signal.SIGTERM, step=5, times=1):
        self.number, self.step, self.times = number, step, times

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGTERM, "terminated"),
        pytest.param(signal.SIGINT, "interrupted", marks=pytest.mark.thorough),  # quick below: what it says goes on
    ],
)
def test_a_run_that_is_told_to_end_saves_itself_and_goes_on_as_if_nothing_had_been(ebmzoo, here, trained, number, word):
    whole = trained["ecvae"]
    before = signal.getsignal(number)
    told = [f"--trainer.callbacks+={__name__}.Told", f"--trainer.callbacks.number={int(number)}"]
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "cut", *told)
    assert answer.code == 128 + number and signal.getsignal(number) == before
    last = here / "cut" / "checkpoints" / "last.ckpt"
    said, how = answer.out.splitlines()[-2:]
    assert said == f"{word} at step 6: saved {last}"
    assert how.startswith("go on with: ebmzoo fit --ckpt_path cut/checkpoints/last.ckpt --run_dir cut")
    assert "Traceback" not in answer.err
    assert read(last)["global_step"] == 6
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "cut", "--resume", "auto")
    assert answer.code == 0 and f"resuming: {last.relative_to(here)}" in answer.out + answer.err
    assert_same(last, whole / "checkpoints" / "last.ckpt")
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    gaps = {row["step"] for row in rows(here / "cut") if row["train/energy_gap"]}
    assert gaps == {str(step) for step in range(8)}  # the first steps of epochs and of the resumed run included
    assert timeless(rows(here / "cut")) == timeless(rows(whole))


@pytest.mark.thorough
def test_the_command_that_is_named_goes_on(ebmzoo, here):
    told = [f"--trainer.callbacks+={__name__}.Told", "--trainer.callbacks.number=2"]
    answer = ebmzoo(
        "fit", "--config", "vae.yaml", "--data.batch_size", 64, "--run_dir", "cut", *told, "--trust", __name__
    )
    words = answer.out.splitlines()[-1].removeprefix("go on with: ebmzoo ").split()
    # the stored config has the signal as well, at an iteration that has been
    assert ebmzoo(*words).code == 0
    last = read(here / "cut" / "checkpoints" / "last.ckpt")
    assert (last["global_step"], last["ebmzoo"]["config"]["data"]["init_args"]["batch_size"]) == (8, 64)


def test_a_second_ctrl_c_ends_at_once(ebmzoo, here):
    told = [f"--trainer.callbacks+={__name__}.Told", "--trainer.callbacks.number=2", "--trainer.callbacks.times=2"]
    answer = ebmzoo("fit", "--config", "vae.yaml", "--run_dir", "cut", *told)
    assert answer.code == 130
    assert "Ctrl-C again ends at once" in answer.err and answer.out.splitlines()[-1] == "interrupted"
    assert read(here / "cut" / "checkpoints" / "last.ckpt")["global_step"] == 4  # of the validation before


def test_ctrl_c_in_another_verb_is_one_word(ebmzoo, checkpoint, monkeypatch):
    monkeypatch.setattr(package.ECVAE, "sample", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background commands ignore it
    try:
        answer = ebmzoo("sample", "--ckpt_path", checkpoint["ecvae"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (answer.code, answer.err.splitlines()[-1]) == (130, "ebmzoo: interrupted")


BEST = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/fid_20"]
MEASURED = ["--trainer.callbacks+=Evaluate", "--trainer.callbacks.n_val=20"]
VALIDATED = ["--trainer.max_epochs", "-1", "--trainer.limit_train_batches", "1.0", "--trainer.val_check_interval", 5]
VALIDATED += ["--trainer.check_val_every_n_epoch", "null", "--trainer.num_sanity_val_steps", 0]


@pytest.mark.parametrize(
    "rarely",
    [pytest.param([], marks=pytest.mark.thorough), ["--trainer.callbacks.every_n_steps=10"]],
    ids=["every validation", "every second"],
)
def test_a_run_whose_best_is_kept_goes_on_inside_an_epoch(ebmzoo, here, rarely):
    fit = ["fit", "--config", "vae.yaml", "--run_dir", "run", *MEASURED, *rarely, *BEST, *VALIDATED]
    assert ebmzoo(*fit, "--trainer.max_steps", 10).code == 0
    last = here / "run" / "checkpoints" / "last.ckpt"
    assert ebmzoo("fit", "--ckpt_path", last, "--run_dir", "run", "--trainer.max_steps", 25).code == 0
    with (here / "run" / "metrics.csv").open(newline="") as file:
        figures = {int(row["step"]) + 1: float(row["val/fid_20"]) for row in csv.DictReader(file) if row["val/fid_20"]}
    assert set(figures) == ({5, 10, 20, 25} if rarely else {5, 10, 15, 20, 25})
    state = next(v for k, v in read(last)["callbacks"].items() if k.startswith("MonitoredCheckpoint"))
    assert float(state["best_model_score"]) == pytest.approx(min(figures.values()))
    best = min(figures, key=figures.get)
    assert read(state["best_model_path"])["global_step"] == best


@pytest.mark.thorough
def test_weights_that_were_chosen_by_their_averages_hold_them(ebmzoo, here, checkpoint):
    weights = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_weights_only=true"]
    weights += ["--trainer.callbacks.filename={val/mse:.3f}", "--trainer.callbacks.every_n_epochs=1"]
    assert ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "run", *weights).code == 0
    folder = here / "run" / "checkpoints"
    (path,) = [file for file in folder.iterdir() if file.name != "last.ckpt"]
    assert path.name.startswith("val_mse=0.")
    only, whole = read(path), read(folder / "last.ckpt")
    assert only["ebmzoo"] | {"written": 0} == whole["ebmzoo"] | {"written": 0}
    assert not {"optimizer_states", "rng"} & only.keys()
    assert_same(path, folder / "last.ckpt")
    assert package.load(path).ema_active
    only["ebmzoo"]["written"] += 1000  # the newest now, and nothing to go on from
    torch.save(only, path)
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "run", "--resume", "auto", "--trainer.max_epochs", 3)
    assert answer.code == 0 and f"passed over: run/checkpoints/{path.name} has weights alone" in answer.out
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--ckpt_path", path)
    assert answer.code == 2 and answer.err.splitlines()[-1].startswith(f"ebmzoo: error: {path} has weights alone")


def test_a_run_is_found_from_a_checkpoint_at_any_depth(ebmzoo, here, trained):
    deep = here / "run" / "checkpoints" / "best" / "of" / "all.ckpt"
    deep.parent.mkdir(parents=True)
    (here / "run" / "config.yaml").write_bytes((trained["vae"] / "config.yaml").read_bytes())
    deep.write_bytes((trained["vae"] / "checkpoints" / "last.ckpt").read_bytes())
    answer = ebmzoo("validate", "--ckpt_path", deep)
    assert answer.code == 0 and answer.out.splitlines()[-1] == f"run folder: {here / 'run'}"
    assert newest_good(here / "run" / "checkpoints")[0] == deep


@pytest.mark.thorough
def test_resume_auto_takes_the_newest_whole_checkpoint_of_the_newest_run(ebmzoo, here):
    fit = ["fit", "--config", "vae.yaml", "--resume", "auto", "--trainer.max_epochs", "-1", *SAVE_OFTEN]
    answer = ebmzoo(*fit, "--trainer.max_steps", 4)
    assert answer.code == 0 and "resuming: nothing yet" in answer.out + answer.err
    folder = here / "runs" / "vae" / "version_0" / "checkpoints"
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "newer.ckpt").write_bytes(whole[: len(whole) // 2])
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    next(iter(checkpoint["state_dict"].values())).fill_(torch.nan)
    torch.save(checkpoint, folder / "broken.ckpt")
    found, passed_over = newest_good(folder)
    assert found == folder / "last.ckpt"
    assert len(passed_over) == 2 and "broken.ckpt has weights that are not finite" in " ".join(passed_over)
    answer = ebmzoo(*fit, "--trainer.max_steps", 6)
    assert answer.code == 0
    assert answer.err.count("passed over: ") + answer.out.count("passed over: ") == 2
    assert [path.name for path in (here / "runs" / "vae").iterdir()] == ["version_0"]
    assert read(folder / "last.ckpt")["global_step"] == 6


def test_the_newest_checkpoint_of_a_copied_folder_is_the_one_written_last(ebmzoo, here):
    """A copy's files have the times of the copying, in any order."""
    every = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"]
    every += ["--trainer.callbacks.filename={step}"]
    assert ebmzoo("fit", "--config", "vae.yaml", "--run_dir", "run", *every).code == 0
    folder = here / "copy" / "checkpoints"
    shutil.copytree(here / "run" / "checkpoints", folder)
    steps = {path: read(path)["global_step"] for path in folder.iterdir()}
    assert sorted(steps.values()) == [4, 8, 8]
    for second, path in enumerate(sorted(steps, key=steps.get, reverse=True)):
        os.utime(path, (second, second))
    found, passed_over = newest_good(folder)
    assert (steps[found], passed_over) == (8, [])


@pytest.mark.skipif(os.name != "posix", reason="folders are held by posix locks")
@pytest.mark.thorough
def test_two_trainings_do_not_share_a_folder(ebmzoo, here):
    """The second would take away what the first is writing, and they would take turns at last.ckpt."""
    import fcntl

    fit = ["fit", "--config", "vae.yaml", "--run_dir", "run", "--trainer.max_epochs", 1]
    assert ebmzoo(*fit).code == 0
    last = here / "run" / "checkpoints" / "last.ckpt"
    (last.parent / ".last.ckpt.1.part").touch()
    before = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()}
    other = os.open(here / "run", os.O_RDONLY)  # as the first training does
    fcntl.flock(other, fcntl.LOCK_EX)
    for words in (["--resume", "auto"], ["--ckpt_path", last]):
        answer = ebmzoo(*fit, "--trainer.max_epochs", 2, *words)
        line = "ebmzoo: error: another process trains in run: wait for its end, or choose another --run_dir"
        assert (answer.code, answer.err.splitlines()[-1]) == (2, line)
        assert {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()} == before
    os.close(other)
    assert ebmzoo(*fit, "--trainer.max_epochs", 2, "--resume", "auto").code == 0
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"] and read(last)["global_step"] == 8


def test_resume_auto_never_begins_anew_over_broken_checkpoints(ebmzoo, checkpoint, here):
    folder = here / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(checkpoint["vae"].read_bytes()[:5000])
    (folder / "best.ckpt").touch()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    fit = ["fit", "--config", "vae.yaml", "--resume", "auto", "--run_dir"]
    answer = ebmzoo(*fit, "run")
    assert answer.code == 2
    line = answer.err.splitlines()[-1]
    assert line.startswith("ebmzoo: error: --resume auto finds no good checkpoint: ")
    assert all(name in line for name in before) and "move them away, to begin anew, or choose another --run_dir" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_resume_auto_stops_where_a_checkpoint_cannot_be_read(ebmzoo, checkpoint, here, monkeypatch):
    folder = here / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(checkpoint["vae"].read_bytes())

    def fail(archive):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipFile, "testzip", fail)
    answer = ebmzoo("fit", "--config", "vae.yaml", "--resume", "auto", "--run_dir", "run")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == "ebmzoo: error: cannot read run/checkpoints/last.ckpt: Input/output error"


def test_resume_auto_and_a_checkpoint_exclude_each_other(ebmzoo, here):
    answer = ebmzoo("fit", "--config", "vae.yaml", "--resume", "auto", "--ckpt_path", "x.ckpt")
    assert answer.code == 2 and "give it or --ckpt_path, not both" in answer.err
    answer = ebmzoo("fit", "--config", "vae.yaml", "--resume", "never")
    assert answer.code == 2 and "Traceback" not in answer.err


GUARD = ["--trainer.callbacks+=tests.faults.BadBatch", "--trainer.callbacks.step=5"]
GUARD += ["--trainer.callbacks+=Guard", "--trainer.callbacks.every_n_steps=1", "--trainer.callbacks.checkpoint_every=2"]


@pytest.mark.thorough
def test_a_diverged_run_stops_with_the_reason(ebmzoo, here):
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "run", *GUARD)
    assert answer.code == 1
    line = answer.err.splitlines()[-1]
    assert line.startswith("ebmzoo: stopped: training diverged at step 6: the batch of data of step 5 holds values")
    assert "Traceback" not in answer.err
    (entry,) = json.loads((here / "run" / "results.json").read_text())["run"]["guard"]
    assert (entry["step"], entry["action"]) == (6, "stopped")


def test_a_diverged_run_goes_back_and_ends(ebmzoo, here):
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "run", *GUARD, "--trainer.callbacks.rollbacks=1")
    assert answer.code == 0
    assert "guard: step 6: the batch of data of step 5 holds values that are not finite: rolled back" in answer.err
    (entry,) = json.loads((here / "run" / "results.json").read_text())["run"]["guard"]
    assert (entry["action"], entry["steps_times"]) == ("rolled back", 0.5)
    last = read(here / "run" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 8
    assert last["Digits"] == {"seed": 3}  # the order of the data is still that of the run
    assert all(value.isfinite().all() for value in last["state_dict"].values())
    assert last["hyper_parameters"]["sampler"]["init_args"]["step_size"] == 0.05  # half of the config's
    assert [state["param_groups"][0]["lr"] for state in last["optimizer_states"]] == [1e-4, 5e-5]


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
@pytest.mark.thorough
def test_half_weights_are_refused_with_the_reason(ebmzoo, here, precision):
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--trainer.precision", precision)
    assert answer.code == 2
    assert f"precision {precision} keeps the weights in half precision" in answer.err.splitlines()[-1]
    assert not (here / "runs").exists()


# -- files ----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_classes_of_other_modules_need_to_be_trusted(ebmzoo, here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "stranger.py").write_text("from ebmzoo.networks import MLPEncoder\nclass Net(MLPEncoder):\n    pass\n")
    config = yaml.safe_load((here / "vae.yaml").read_text())
    own = {"class_path": "stranger.Net", "init_args": {"width": 8, "depth": 1}}
    config["model"]["init_args"]["vae"]["init_args"]["encoder"] = own
    (here / "own.yaml").write_text(yaml.safe_dump(config))
    assert ebmzoo("fit", "--config", "own.yaml", "--run_dir", "own", "--trainer.max_epochs", 1).code == 0
    last = here / "own" / "checkpoints" / "last.ckpt"
    monkeypatch.delitem(sys.modules, "stranger")
    export = ["export", "--ckpt_path", last, "--out", "m.safetensors"]
    assert ebmzoo(*export).code == 0  # which makes nothing of the names it writes, and so needs no trust
    answer = ebmzoo(*export, "--trust", "stranger")
    assert answer.code == 2 and "no option --trust" in answer.err.splitlines()[-1]
    for verb, file in (("validate", last), ("sample", last), ("sample", "m.safetensors")):
        answer = ebmzoo(verb, "--ckpt_path", file)
        assert answer.code == 2
        assert "names stranger.Net, which is not trusted" in answer.err.splitlines()[-1]
        assert "--trust stranger" in answer.err.splitlines()[-1]
        assert "stranger" not in sys.modules
        assert ebmzoo(verb, "--ckpt_path", file, "--trust", "stranger").code == 0
        monkeypatch.delitem(sys.modules, "stranger", raising=False)
    answer = ebmzoo("sample", "--ckpt_path", last, "--trust", "nobody")
    assert answer.code == 2 and "--trust nobody: cannot import it" in answer.err


# -- Weights & Biases -----------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_resumed_run_goes_on_with_its_wandb_run(ebmzoo, here, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit = ["fit", "--config", "vae.yaml", "--run_dir", "run", "--resume", "auto", "--trainer.logger", "WandbLogger"]
    assert ebmzoo(*fit, "--trainer.max_epochs", 1).code == 0
    first = read(here / "run" / "checkpoints" / "last.ckpt")["ebmzoo"]["wandb_id"]
    assert ebmzoo(*fit, "--trainer.max_epochs", 2).code == 0
    assert read(here / "run" / "checkpoints" / "last.ckpt")["ebmzoo"]["wandb_id"] == first
    files = sorted(here.rglob("run-*.wandb"))
    assert len(files) == 2 and all(path.stem == f"run-{first}" for path in files)


@pytest.mark.thorough
def test_a_run_in_forked_processes_stops_with_the_reason_too(ebmzoo, here):
    words = ["--trainer.devices", 2, "--trainer.strategy", "ddp_fork"]
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "run", *GUARD, *words, "--trainer.accelerator", "cpu")
    assert answer.code == 1
    assert "ebmzoo: stopped: training diverged at step 6: the batch of data of step 5" in answer.err.splitlines()[-1]
    assert json.loads((here / "run" / "results.json").read_text())["run"]["guard"][0]["action"] == "stopped"


def test_the_last_checkpoint_is_the_last_whatever_was_best(ebmzoo, here):
    """Lightning's own save_last writes the best: it saves only beside a checkpoint that is kept."""
    words = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/elbo"]
    words += ["--trainer.callbacks.mode=min", "--trainer.callbacks.save_last=true"]
    short = ["--trainer.max_steps=7", "--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null"]
    assert ebmzoo("fit", "--config", "vae.yaml", *words, *short).code == 0
    folder = here / "runs" / "vae" / "version_0" / "checkpoints"
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in folder.iterdir()}
    assert steps.pop("last.ckpt") == 7
    (best,) = steps.values()
    assert best in (2, 4, 6)
