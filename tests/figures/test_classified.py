import pytest
import torch

from ebmzoo.data import StackedDigits
from ebmzoo.figures.classified import Classified

from ..callbacks.fakes import Tiny, measured


class Triples(Tiny):
    image_shape = (3, 8, 8)

    def sample(self, n, *, steps=None, noise=None, watch=None):
        return StackedDigits().reference("train")[torch.arange(n)]


def test_modes_of_stacked_digits(tmp_path):
    found, _, _ = measured(tmp_path, Triples(), StackedDigits(), figures=[Classified()], n_test=300)
    modes = StackedDigits().reference("train").modes[:16].unique()  # every batch is the same sixteen
    assert found["stacked_modes"] == pytest.approx(len(modes), abs=1)


def test_modes_of_stacked_mnist_need_its_classifier(tmp_path):
    class Other(StackedDigits):
        classifier = None

    _, skipped, _ = measured(tmp_path, Triples(), Other(), figures=[Classified()])
    assert "the modes of stacked-digits-8 need a classifier of its digits: make one with python -m" in skipped[0]
    Other.classifier = tmp_path / "none.safetensors"
    _, skipped, _ = measured(tmp_path, Triples(), Other(), figures=[Classified()])
    assert "no weights at" in skipped[0]
