"""Feature networks whose weights are missing, or another's."""

import urllib.error

import pytest
import torch

from ebmzoo.data.digits import digits
from ebmzoo.metrics.extractors import INCEPTION_FILE, find_extractor
from ebmzoo.metrics.fidelity import StreamingFID, fidelity

from .test_fidelity import Rows


@pytest.fixture(scope="module")
def real():
    return digits("train")[0][:400]


def test_missing_inception_weights_name_the_file(real, tmp_path, monkeypatch):
    given = tmp_path / "inception.pth"
    with pytest.raises(FileNotFoundError, match=f"no Inception weights at {given}.*{INCEPTION_FILE}"):
        fidelity(real, real, "inception", inception_path=given)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError) as caught:
        StreamingFID("inception")
    line = str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / INCEPTION_FILE) in line
    assert "Name or service not known" in line and "inception_path" in line and "\n" not in line


def test_a_foreign_weights_file_is_refused(real, tmp_path):
    broken, other, code = tmp_path / "broken.pth", tmp_path / "other.pth", tmp_path / "code.pth"
    broken.write_bytes(b"nothing of the sort")
    torch.save({"weight": torch.zeros(3)}, other)
    torch.save({"Conv2d_1a_3x3.conv.weight": Rows(real)}, code)  # a pickle that would import and run
    for path in (broken, other, code):
        with pytest.raises(ValueError, match=f"{path.name} does not hold torch-fidelity's Inception"):
            find_extractor("inception", path)
