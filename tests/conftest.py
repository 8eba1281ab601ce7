import lightning.pytorch  # noqa: F401 - its log handler keeps the stream of its first import: not a test's
import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    """A test draws the same numbers in whatever order, and on however many workers, the tests run."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # left by a seed_everything of the test before
    torch.manual_seed(0)
