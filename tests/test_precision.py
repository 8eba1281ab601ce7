"""TF32 is a decision, and protocols say what was decided."""

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from ebmzoo.metrics.protocol import Protocol
from ebmzoo.precision import PLAIN, decide
from ebmzoo.report.results import flat

from .methods.cases import seeded
from .processes import QUIET

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.delenv("EBMZOO_TF32", raising=False)
    yield
    torch.set_float32_matmul_precision("highest")
    decide(torch.device("cpu"))


def switches():
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def test_fp32_is_fp32_unless_tf32_was_asked_for_and_then_in_both(monkeypatch):
    assert decide(GPU) == PLAIN and switches() == (False, "highest")
    assert decide(GPU, "bf16-mixed") == "bf16-mixed"
    torch.set_float32_matmul_precision("high")
    assert decide(GPU) == "32-true, TF32" and switches() == (True, "high")
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setenv("EBMZOO_TF32", "1")
    assert decide(GPU, "bf16-mixed") == "bf16-mixed, TF32" and switches() == (True, "high")


def test_a_cpu_is_left_as_it_is():
    assert decide(torch.device("cpu")) == PLAIN and switches() == (True, "highest")


def test_a_trainer_decides_and_protocols_say_it():
    fields = {"n": 1, "ema": None, "sampler": None, "steps": None, "step_size": None, "temperature": None, "seed": 0}
    batches = DataLoader([torch.zeros(4, 1, 8, 8)] * 2, batch_size=None)
    Trainer(**QUIET, max_steps=1, precision="bf16-mixed").fit(seeded("ebm"), batches)
    said = Protocol(**fields).as_dict()
    assert said["precision"] == flat(said)["precision"] == "bf16-mixed"
    Trainer(**QUIET, max_steps=1).fit(seeded("ebm"), batches)
    said = Protocol(**fields).as_dict()
    assert said["precision"] == PLAIN
    del said["precision"]  # as older files have it
    assert flat(said) == flat(Protocol(**fields).as_dict())
