import lightning.pytorch  # noqa: F401 - its log handler keeps the stream of its first import: not a test's
import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """A test draws the same numbers in whatever order, and on however many workers, the tests run."""
    torch.manual_seed(0)
