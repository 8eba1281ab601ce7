"""One line of config logs to Weights & Biases, offline too; the run file is read back record by record."""

import json
import struct
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lightning import Callback
from PIL import Image

wandb = pytest.importorskip("wandb")
pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")

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


def test_an_offline_run_holds_losses_images_config_and_one_exit(ebmzoo, here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
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

    config = {}
    for record in found:
        for update in (*record.config.update, *record.run.config.update):
            config[update.key] = json.loads(update.value_json)
    assert config["config"] == json.loads(json.dumps(yaml.safe_load((run / "config.yaml").read_text())))
    assert config["latent_dim"] == 4
    (name,) = (record.run.display_name for record in found if record.WhichOneof("record_type") == "run")
    assert name == "vae/version_0"
    ((group, tags),) = ((r.run.run_group, list(r.run.tags)) for r in found if r.WhichOneof("record_type") == "run")
    assert (group, tags) == ("VAE", ["Digits"])
    # The config lies in the run's own folder, whatever the logger.
    assert config["config"]["trainer"]["logger"]["class_path"].endswith("WandbLogger")


def test_a_failed_run_ends_with_its_exit_code(ebmzoo, here, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = ["--trainer.logger", "WandbLogger", f"--trainer.callbacks+={__name__}.Trouble"]
    code, _, err = ebmzoo("fit", "--config", "vae.yaml", *words)
    assert (code, err.splitlines()[-1]) == (2, "ebmzoo: error: the third batch is no good")
    (path,) = here.rglob("run-*.wandb")
    exits = [record.exit for record in records(path) if record.WhichOneof("record_type") == "exit"]
    assert [end.exit_code for end in exits] == [1]


def test_the_shipped_sweep_sets_options_of_the_command_line(ebmzoo, monkeypatch):
    root = Path(__file__).parents[2]
    sweep = yaml.safe_load((root / "benchmarks" / "wandb_sweep.yaml").read_text())
    monkeypatch.chdir(root)
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
    assert sweep["metric"]["name"] == f"val/fid_{evaluate['init_args']['n_val'] // 1000}k"
    assert config["trainer"]["logger"]["class_path"].endswith(".WandbLogger")


class Trouble(Callback):
    """Fails in the middle of an epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 2:
            raise ValueError("the third batch is no good")
