"""One line of config logs to Weights & Biases, offline too; the run file is read back record by record."""

import json
import os
import runpy
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lightning import Callback
from PIL import Image

from ebmzoo.cli.main import main

from .conftest import ECVAE

wandb = pytest.importorskip("wandb")
pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")

ROOT = Path(__file__).parents[2]
CALLBACKS = """
    - {class_path: EMA, init_args: {decay: 0.5}}
    - class_path: Evaluate
      init_args: {n_val: 20, n_test: 30, batch_size: 30, figures: {fidelity: {metrics: [fid]}, ood: {n: 20}}}
    - {class_path: Pictures, init_args: {n: 6, every_n_steps: 4}}"""
BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path):
    """The records of a run file: a 7-byte header, then blocks of (crc u32, length u16, type u8) pieces."""
    wandb.teardown()  # W&B's own process closes its files some time after a run has ended; this waits for it
    raw = path.read_bytes()
    assert raw[:4] == b":W&B"
    position, parts = 7, b""
    while position < len(raw):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, position)
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        parts += raw[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (FULL, LAST):
            record = pb.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
    assert not parts


def history(found):
    """Logged values by key, in order."""
    values = {}
    for record in found:
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            values.setdefault(key, []).append(json.loads(item.value_json))
    return values


def config_of(found):
    """What the run's config holds, by its first keys, without W&B's own."""
    updates = [one for record in found for one in (*record.config.update, *record.run.config.update)]
    return {one.key: json.loads(one.value_json) for one in updates if one.key != "_wandb"}


def of_kind(found, kind):
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of EC-VAE with all that the shipped configs have, its records, and those of the test after it."""
    folder = tmp_path_factory.mktemp("whole")
    own = "[{class_path: EMA, init_args: {decay: 0.5}}]"
    assert own in ECVAE
    run = folder / "runs" / "whole" / "version_0"
    few = ["--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0"]
    logger = ["--trainer.logger", "WandbLogger", "--trainer.logger.log_model", "true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        Path("whole.yaml").write_text(ECVAE.replace(own, CALLBACKS))
        assert main(["fit", "--config", "whole.yaml", *logger, *few]) == 0
        last = str(run / "checkpoints" / "last.ckpt")
        assert main(["test", "--ckpt_path", last, "--only", "generation,chains"]) == 0
        return run, *(list(records(path)) for path in sorted(run.rglob("run-*.wandb")))


@pytest.mark.thorough
def test_a_run_holds_all_panels_of_the_dashboard(whole, capfd):
    _, fitted, tested = whole
    logged = history(fitted) | history(tested)
    dashboard = runpy.run_path(str(ROOT / "benchmarks" / "wandb_dashboard.py"))
    made = dashboard["workspace"]("someone", "ebmzoo", "methods", "Digits", "val/fid_20")
    panels = [panel for section in made.sections for panel in section.panels]
    for panel in panels:
        keys = [panel.x, *panel.y] if hasattr(panel, "y") else getattr(panel, "metrics", None) or panel.media_keys
        for key in keys:
            assert key in logged or f"{key}/_type" in logged, key
    # A curve over a key needs both in one row.
    rows = [{item.key or "/".join(item.nested_key) for item in record.item} for record in of_kind(fitted, "history")]
    assert any({"val/fid_20", "train/network_evaluations", "trainer/global_step"} <= row for row in rows)
    # What would be sent: all but the pictures are means over the runs of a method.
    sent = json.dumps(made._to_model().model_dump(by_alias=True, exclude_none=True))
    curves = len(panels) - len(dashboard["PICTURES"])
    assert sent.count('"groupBy": "group", "groupAgg": "mean", "groupArea": "minmax"') == curves
    assert '"name": "tags"}, "op": "IN", "value": ["Digits"]' in sent

    assert dashboard["main"](["--dry_run", "--fid", "val/fid_20"]) == 0
    shown = capfd.readouterr().out
    assert "FID over network evaluations: val/fid_20 over train/network_evaluations" in shown
    assert "pictures/chain" in shown and "mcmc/saturation over trainer/global_step" in shown


def test_all_of_one_moment_stands_at_one_place_of_one_axis(whole):
    _, fitted, tested = whole
    places = {}
    for record in of_kind(fitted + tested, "history"):
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.item}
        for key in row:
            places.setdefault(key, []).append(row["trainer/global_step"])
    # Eight iterations, a validation and pictures after every four, and a test of the last weights.
    assert places["train/loss_vae"] == list(range(8))
    assert places["val/fid_20"] == places["pictures/samples/_type"] == places["pictures/chain/_type"] == [3, 7]
    assert places["test/fid"] == places["pictures/energies/_type"] == [7]
    # Whoever looks at a picture reads of the checkpoint that it is of.
    assert history(fitted)["pictures/samples/captions"] == [[f"samples, after {n} iterations"] for n in (4, 8)]
    axes = {one.name or one.glob_name: one.step_metric for one in of_kind(fitted, "metric")}
    assert axes == {"trainer/global_step": "", "*": "trainer/global_step", "val/fid_20": "trainer/global_step"}


def test_the_summary_of_a_streaming_fid_is_its_minimum(whole):
    _, fitted, _ = whole
    summary = [update for record in of_kind(fitted, "summary") for update in record.update]
    smallest = [json.loads(one.value_json) for one in summary if [*one.nested_key] == ["val/fid_20"]]
    first, second = history(fitted)["val/fid_20"]
    assert smallest == [{"min": first}, {"min": min(first, second)}]


def test_energies_of_data_and_samples_are_one_picture(whole):
    run, fitted, tested = whole
    logged = history(fitted)
    assert [Image.open(run / "energy_histogram.png").width] == logged["pictures/energy_histogram/width"][-1:]
    assert not [key for key in logged | history(tested) if "histogram" in key and not key.startswith("pictures/")]


def test_the_config_stands_in_the_run_once(whole):
    run, fitted, tested = whole
    # The whole config as it is written, and no hyper-parameters of the model's beside it; a test adds nothing.
    assert config_of(fitted) == json.loads(json.dumps(yaml.safe_load((run / "config.yaml").read_text())))
    assert config_of(tested) == {}


def test_a_test_logs_no_picture_that_the_training_has_logged(whole):
    _, fitted, tested = whole
    drawn = [{key.split("/")[1] for key in history(found) if key.startswith("pictures/")} for found in (fitted, tested)]
    assert drawn[0] == {"samples", "reconstructions", "chain", "energy_histogram"}
    assert drawn[1] == {"energies", "chain_energy"}


def test_network_evaluations_are_exact(whole):
    _, fitted, _ = whole
    logged = history(fitted)
    # Batches of 32: encoder 2, decoder 4, energy 8 with a chain of two steps; the run has eight and two validations.
    each = 32 * (2 + 4 + 8)
    assert logged["train/network_evaluations"] == sorted([*(each * n for n in range(1, 9)), each * 4, each * 8])
    assert logged["train/lambda"][0] > 0


def test_a_test_goes_on_in_the_runs_own_and_its_results_are_the_summary(whole):
    run, fitted, tested = whole
    (first,), (second,) = of_kind(fitted, "run"), of_kind(tested, "run")
    assert first.run_id == second.run_id and first.project == second.project == "ebmzoo"
    assert second.display_name == first.display_name == "whole/version_0"
    assert first.run_group == second.run_group == "ECVAE"
    assert first.job_type == second.job_type == "fit"  # a training that has been tested is a training
    tags = ["Digits", "averaged weights", "n 30", "digits features"]
    assert list(first.tags) == list(second.tags) == tags
    summary = {}
    for record in of_kind(tested, "summary"):
        summary |= {
            update.key or "/".join(update.nested_key): json.loads(update.value_json) for update in record.update
        }
    results = json.loads((run / "results.json").read_text())["results"]
    assert len(results) > 10
    for one in results:
        assert summary[f"test/{one['name']}"] == pytest.approx(one["value"], rel=1e-9)
    assert summary["trainer/global_step"] == 7  # that of the weights' last iteration


@pytest.mark.thorough
def test_a_validation_leaves_the_runs_curves_alone(ebmzoo, here, offline, whole):
    run, fitted, _ = whole
    last = run / "checkpoints" / "last.ckpt"
    assert ebmzoo("validate", "--ckpt_path", last, "--run_dir", "again", "--trainer.limit_val_batches", 1).code == 0
    (path,) = here.rglob("run-*.wandb")
    found = list(records(path))
    ((other,), (first,)) = of_kind(found, "run"), of_kind(fitted, "run")
    assert other.run_id != first.run_id and other.run_group == "ECVAE" and other.job_type == "validate"
    # A run of its own says what it is.
    assert config_of(found).keys() == config_of(fitted).keys()


@pytest.mark.thorough
def test_a_test_of_a_run_that_was_not_logged_is_of_its_own_job_type(ebmzoo, here, offline):
    assert ebmzoo("fit", "--config", "vae.yaml", "--trainer.max_epochs", 1).code == 0
    last = here / "runs" / "vae" / "version_0" / "checkpoints" / "last.ckpt"
    assert ebmzoo("test", "--ckpt_path", last, "--trainer.logger", "WandbLogger").code == 0
    (path,) = here.rglob("run-*.wandb")
    found = list(records(path))
    (run,) = of_kind(found, "run")
    assert run.job_type == "test" and config_of(found)["model"]["init_args"]["vae"]["init_args"]["latent_dim"] == 4


def test_checkpoints_become_artifacts_where_they_are_asked_for(whole):
    run, fitted, tested = whole
    (artifact,) = of_kind(fitted, "artifact")
    assert artifact.type == "model" and "latest" in artifact.aliases
    (entry,) = artifact.manifest.contents
    assert entry.size == (run / "checkpoints" / "last.ckpt").stat().st_size
    assert not of_kind(tested, "artifact")


def test_the_dashboards_curves_are_means_over_the_runs_of_a_method(here, capfd):
    for run, method, values in (("a", "ECVAE", (4, 2)), ("b", "ECVAE", (8, 3)), ("c", "VAE", (5, 5))):
        Path(run).mkdir()
        Path(run, "config.yaml").write_text(f"model: {{class_path: ebmzoo.{method}}}")
        rows = [f"{step},{100 * step},{value}," for step, value in zip((9, 19), values, strict=True)]
        columns = "step,train/network_evaluations,val/fid_20,train/lambda"
        Path(run, "metrics.csv").write_text("\n".join([columns, "0,,,0.5", *rows]) + "\n")
    dashboard = runpy.run_path(str(ROOT / "benchmarks" / "wandb_dashboard.py"))
    runs = [Path(name) for name in "abc"]
    lines = dashboard["curve"](runs, "trainer/global_step", "val/fid_20")
    assert lines == {"ECVAE": [(9, 6, 4, 8), (19, 2.5, 2, 3)], "VAE": [(9, 5, 5, 5), (19, 5, 5, 5)]}
    spent = dashboard["curve"](runs, "train/network_evaluations", "val/fid_20")
    assert [point[0] for point in spent["VAE"]] == [900, 1900]

    assert dashboard["main"](["--draw", "curves.png", "a", "b", "c", "--fid", "val/fid_20"]) == 0
    with Image.open("curves.png") as picture:
        assert picture.format == "PNG" and picture.width == 880
    assert dashboard["main"](["--draw", "curves.png", "a", "d"]) == 2
    assert "d is no run of ebmzoo" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"), [([], "--entity is missing"), (["--entity", "someone"], "not saved: No API key configured")]
)
@pytest.mark.thorough
def test_the_dashboard_says_in_a_line_what_it_needs(here, words, why):
    # A process of its own, without any key of the user's: wandb looks for one but once.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(here), "NETRC": str(here / "netrc")}
    command = [sys.executable, str(ROOT / "benchmarks" / "wandb_dashboard.py"), *words]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"wandb_dashboard: error: {why}") and "--dry_run" in line


@pytest.mark.thorough
def test_an_offline_run_holds_losses_images_config_and_one_exit(ebmzoo, here, offline):
    words = ["--trainer.logger", "WandbLogger", "--trainer.callbacks+=Pictures"]
    assert ebmzoo("fit", "--config", "vae.yaml", *words).code == 0

    run = here / "runs" / "vae" / "version_0"
    (path,) = run.rglob("run-*.wandb")
    found = list(records(path))
    kinds = Counter(record.WhichOneof("record_type") for record in found)
    assert kinds["exit"] == 1
    (end,) = (record.exit for record in found if record.WhichOneof("record_type") == "exit")
    assert end.exit_code == 0

    logged = history(found)
    assert len(logged["train/loss_vae"]) == 8
    with (run / "metrics.csv").open() as file:
        columns, *rows = (line.rstrip("\n").split(",") for line in file)
    losses = [float(row[columns.index("train/loss_vae")]) for row in rows if row[columns.index("train/loss_vae")]]
    assert logged["train/loss_vae"] == pytest.approx(losses, rel=1e-12)
    # The newest samples: one image, which lies beside the run file.
    assert logged["pictures/samples/_type"] == ["images/separated"]
    ((name,),) = logged["pictures/samples/filenames"]
    with Image.open(path.parent / "files" / name) as picture:
        assert picture.size == Image.open(run / "samples.png").size
        assert [picture.width] == logged["pictures/samples/width"]

    config = config_of(found)
    assert config == json.loads(json.dumps(yaml.safe_load((run / "config.yaml").read_text())))
    assert config["model"]["init_args"]["vae"]["init_args"]["latent_dim"] == 4
    (name,) = (record.run.display_name for record in found if record.WhichOneof("record_type") == "run")
    assert name == "vae/version_0"
    ((group, tags),) = ((r.run.run_group, list(r.run.tags)) for r in found if r.WhichOneof("record_type") == "run")
    assert (group, tags) == ("VAE", ["Digits", "raw weights"])
    # The config lies in the run's own folder, whatever the logger.
    assert config["trainer"]["logger"]["class_path"].endswith("WandbLogger")


def test_what_the_command_says_of_group_and_tags_holds(ebmzoo, here, offline):
    words = ["--trainer.logger", "WandbLogger", "--trainer.logger.group", "mine", "--trainer.logger.tags", "[a, b]"]
    assert ebmzoo("fit", "--config", "vae.yaml", *words, "--trainer.max_epochs", 1).code == 0
    (path,) = here.rglob("run-*.wandb")
    ((group, tags),) = ((run.run_group, list(run.tags)) for run in of_kind(records(path), "run"))
    assert (group, tags) == ("mine", ["a", "b"])


def test_a_failed_run_ends_with_its_exit_code(ebmzoo, here, offline):
    words = ["--trainer.logger", "WandbLogger", f"--trainer.callbacks+={__name__}.Trouble"]
    code, _, err = ebmzoo("fit", "--config", "vae.yaml", *words)
    assert (code, err.splitlines()[-1]) == (2, "ebmzoo: error: the third batch is no good")
    (path,) = here.rglob("run-*.wandb")
    exits = [record.exit for record in records(path) if record.WhichOneof("record_type") == "exit"]
    assert [end.exit_code for end in exits] == [1]


def test_the_shipped_sweep_sets_options_of_the_command_line(ebmzoo, monkeypatch):
    sweep = yaml.safe_load((ROOT / "benchmarks" / "wandb_sweep.yaml").read_text())
    monkeypatch.chdir(ROOT)
    tried = {}
    for name, values in sweep["parameters"].items():
        if "values" not in values:
            assert values["distribution"] == "log_uniform_values" and 0 < values["min"] < values["max"]
        tried[name] = values["values"][-1] if "values" in values else values["max"]
    # What an agent makes of the command.
    given = {"${env}": [], "${program}": [], "${args}": [f"--{name}={value}" for name, value in tried.items()]}
    words = [word for part in sweep["command"] for word in given.get(part, [part])]
    answer = ebmzoo(*words, "--print_config")
    assert answer.code == 0
    config = yaml.safe_load(answer.out)
    for name, value in tried.items():
        place = config
        for key in name.split("."):
            place = place.get("init_args", place)[key] if key in place.get("init_args", place) else place[key]
        assert place == value, name
    # What it seeks to lessen is logged.
    evaluate = next(c for c in config["trainer"]["callbacks"] if c["class_path"].endswith(".Evaluate"))
    assert sweep["metric"]["name"] == f"val/fid_{evaluate['init_args']['n_val'] // 1000}k.min"
    assert config["trainer"]["logger"]["class_path"].endswith(".WandbLogger")


class Trouble(Callback):
    """Fails in the middle of an epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 2:
            raise ValueError("the third batch is no good")
