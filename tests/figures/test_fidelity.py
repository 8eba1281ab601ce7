import pytest
import torch

from ebmzoo.figures.fidelity import Fidelity
from ebmzoo.figures.look import batches_of_samples
from ebmzoo.images import to_uint8
from ebmzoo.metrics import fidelity

from ..callbacks.fakes import Images, measured, model

FID = Fidelity(["fid"])


def test_the_fast_distance_is_of_the_first_thousand(tmp_path):
    tiny = model()
    found, _, _ = measured(tmp_path / "as many", tiny, figures=[FID], n_test=1000)
    assert found["fid_1k"] == pytest.approx(found["fid"], rel=1e-9)
    found, _, _ = measured(tmp_path, tiny, figures=[FID], n_test=1100, batch_size=500)
    with torch.no_grad():
        x = torch.cat(list(batches_of_samples(tiny.eval(), 1100, 500, 0)))
    reference = Images().reference("train")
    assert found["fid"] == pytest.approx(fidelity(to_uint8(x), reference, metrics=["fid"])["fid"], rel=1e-6)
    fast = fidelity(to_uint8(x[:1000]), reference, metrics=["fid"])["fid"]
    assert found["fid_1k"] == pytest.approx(fast, rel=1e-6)


def test_what_is_not_known():
    with pytest.raises(ValueError, match=r"no metrics \['fud'\]: choose from fid, kid"):
        Fidelity(["fid", "fud"])
