"""metrics.csv: one row a step, new columns, and what a resumed run keeps."""

import csv
import tracemalloc

import pytest
import torch

from ebmzoo.cli.metrics_file import MetricsFile


def test_rows_and_columns(tmp_path):
    logger = MetricsFile(tmp_path / "run", flush_every=1)
    logger.log_metrics({"a": torch.tensor(1.5), "epoch": 0}, step=0)
    logger.log_metrics({"a": 2.0, "epoch": 0}, step=1)
    logger.log_metrics({"b": 0.25}, step=1)
    logger.finalize("success")
    assert (tmp_path / "run" / "metrics.csv").read_text().splitlines() == [
        "epoch,step,a,b",
        "0,0,1.5,",
        "0,1,2.0,",
        ",1,,0.25",
    ]
    assert (logger.name, logger.version, logger.save_dir) == (tmp_path.name, "run", str(tmp_path / "run"))


def test_a_resumed_run_keeps_the_rows_before_it(tmp_path):
    first = MetricsFile(tmp_path)
    for step in range(5):
        first.log_metrics({"a": step}, step=step)
    first.finalize("success")
    second = MetricsFile(tmp_path)
    second.log_metrics({"a": 30}, step=3)  # steps 3 and 4 were logged, but not in the checkpoint
    second.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "epoch,step,a",
        ",0,0",
        ",1,1",
        ",2,2",
        ",3,30",
    ]


@pytest.mark.parametrize("torn", ["1", "1,", "1,11", "1,11,0.2", "1,1149,0.2"])
def test_a_row_that_was_cut_short_is_no_row(tmp_path, torn):
    """Of ``1,1149,0.25``, whose writing a kill or a full disk ended."""
    (tmp_path / "metrics.csv").write_text(f"epoch,step,a\r\n0,10,0.5\r\n{torn}", newline="")
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"a": 0.125}, step=2000)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["epoch,step,a", "0,10,0.5", ",2000,0.125"]


def test_a_row_without_a_step_is_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,a\n0,10,0.5\n1\n")
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"a": 0.125}, step=2000)
    logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["epoch,step,a", "0,10,0.5", ",2000,0.125"]


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Nor does the work of a row, which was over all rows before it."""
    logger = MetricsFile(tmp_path, flush_every=10)
    held = []
    tracemalloc.start()
    for step in range(3000):
        logger.log_metrics({f"train/{k}": step + k / 7 for k in range(8)}, step=step)
        if step in (999, 2999):
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] - held[0] < 100_000  # two thousand rows take two million bytes
    logger.log_metrics({"late": 1.0}, step=3000)  # a new column: the file is written anew, whole
    logger.finalize("success")
    with logger.path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(3001))
    assert rows[2000]["train/7"] == "2001.0" and rows[-1]["late"] == "1.0" and rows[0]["late"] == ""


def test_a_write_that_failed_leaves_no_row_in_two_pieces(tmp_path, monkeypatch):
    logger = MetricsFile(tmp_path, flush_every=1)
    logger.log_metrics({"a": 0.5}, step=10)
    whole = logger.path.read_bytes()

    def half(writer, rows):
        writer.writer.writerow([""])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", half)
        with pytest.raises(OSError, match="No space"):
            logger.log_metrics({"a": 0.25}, step=20)
    assert logger.path.read_bytes() != whole
    logger.finalize("failed")  # there is room again
    assert logger.path.read_text().splitlines() == ["epoch,step,a", ",10,0.5", ",20,0.25"]


def test_nothing_logged_nothing_written(tmp_path):
    logger = MetricsFile(tmp_path / "run")
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_two_processes_count_their_network_evaluations_together(ebmzoo, here):
    words = ["--trainer.devices", 2, "--trainer.strategy", "ddp_fork"]
    answer = ebmzoo("fit", "--config", "ecvae.yaml", "--run_dir", "run", *words, "--trainer.accelerator", "cpu")
    assert answer.code == 0, answer.err
    with (here / "run" / "metrics.csv").open() as file:
        counts = [float(row["train/network_evaluations"]) for row in csv.DictReader(file) if row["train/energy_gap"]]
    # Two batches of 32: encoder 2, decoder 4, energy 8 with a chain of two steps.
    assert counts == [2 * 32 * (2 + 4 + 8) * n for n in range(1, 9)]
