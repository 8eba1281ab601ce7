"""What the tests of checkpoints share."""

import pytest

from .saved import ecvae, saved


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model of Python objects, trained by a plain Trainer, and its checkpoint."""
    model = ecvae()
    return model, saved(model, tmp_path_factory.mktemp("plain") / "model.ckpt")
