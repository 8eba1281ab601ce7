"""predictions.npz of several processes: that of one, every example once and in the data's order."""

import numpy as np
import torch

from ebmzoo.cli.predictions import Predictions
from ebmzoo.data import Digits
from tests.methods.test_contract import METHODS
from tests.processes import trainer, two_processes


def predicted(rank, folder, world):
    torch.manual_seed(0)
    trainer(world, callbacks=[Predictions(folder)]).predict(
        METHODS["ecvae"](), Digits(batch_size=64 // world), return_predictions=False
    )


def test_two_processes_write_what_one_writes(tmp_path, capfd):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    predicted(0, one, 1)
    capfd.readouterr()
    two_processes(predicted, two, 2)
    assert capfd.readouterr().out.count("predictions.npz") == 1
    expected, found = (np.load(folder / "predictions.npz", allow_pickle=False) for folder in (one, two))
    assert len(np.unique(expected["energy"])) == len(expected["energy"]) == 297  # an odd number of rows
    assert set(found.files) == set(expected.files) == {"energy", "score", "reconstruction"}
    for name in expected.files:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    assert [path.name for path in two.iterdir()] == ["predictions.npz"]
