"""Two "machines" of one process each on the loopback: torchrun's rendezvous, as on a cluster."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ebmzoo.checkpoints import read

pytestmark = pytest.mark.slow


def machines(folder, *words, seconds=200):
    """The same command on both; what each printed. Nothing of them is left running."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    launch += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    running = [
        subprocess.Popen(
            [*launch, f"--node_rank={rank}", "-m", "ebmzoo.cli.main", *words],
            cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=seconds)[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert [process.returncode for process in running] == [0, 0], printed
    return printed


def test_two_machines_train_save_and_resume(here):
    words = ["fit", "--config", "ecvae.yaml", "--resume", "auto", "--trainer.num_nodes", "2"]
    words += ["--trainer.accelerator", "cpu", "--trainer.max_epochs"]
    first, _ = machines(here, *words, "1")
    assert "Starting with 2 processes" in first and "resuming: nothing yet" in first
    last = here / "runs" / "ecvae" / "version_0" / "checkpoints" / "last.ckpt"
    assert (read(last)["global_step"], len(read(last)["rng"])) == (4, 2)
    second, _ = machines(here, *words, "2")
    assert f"resuming: {last.relative_to(here)}" in second
    assert read(last)["global_step"] == 8
