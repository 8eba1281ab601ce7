"""The script that asks whether a distance is a ruler: its images, its verdict, its floor against the package's own."""

import re

import pytest
import torch

from benchmarks import ruler
from ebmzoo import metrics
from ebmzoo.data import Digits
from ebmzoo.images import to_uint8


def test_noise_and_blur_are_as_wide_as_they_say():
    grey = torch.full((50, 1, 16, 16), 128, dtype=torch.uint8)
    changed = ruler.noisy(grey, 0.2, seed=0).double()
    assert changed.std() == pytest.approx(0.2 * 127.5, rel=0.02)  # bytes are 127.5 a unit
    assert changed[0].ne(changed[1]).any()
    dot = torch.zeros(1, 1, 17, 17, dtype=torch.uint8)
    dot[..., 8, 8] = 255
    weights = torch.exp(-0.5 * torch.arange(-3.0, 4.0).square())
    assert ruler.blurred(dot, 1.0)[0, 0, 8, 8] == pytest.approx(255 * (weights[3] / weights.sum()) ** 2, abs=1)


def test_each_ladder_holds_what_its_names_say():
    x = torch.randint(40, 200, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    noise, blur, mixture, *classes = ruler.ladders(x, labels)
    assert [name for name, _ in noise] == ["test images, 40", *(f"noise {s:g}" for s in ruler.NOISES)]
    assert [name for name, _ in blur] == ["test images, 40", *(f"blur {s:g} px" for s in ruler.BLURS)]
    changed = [int(images.ne(x).flatten(1).any(1).sum()) for _, images in mixture]
    assert changed == [0, 4, 10, 20, 40] and torch.equal(mixture[-1][1], noise[3][1])
    assert len(classes) == 4
    for k, ladder in enumerate(classes):
        assert [len(images) for _, images in ladder] == [10, 10, 10]
        half = x[labels < 2][:10]
        assert torch.equal(ladder[1][1], half) and torch.equal(ladder[2][1], x[labels == k])


def test_the_verdict_names_what_is_no_further(capsys):
    x = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    found = [[("a", x), ("b", x + 1), ("c", x + 1)], [("a", x), ("d", x + 2)]]
    asked = []

    def distance(images):
        asked.append(images)
        return images.double().mean().item()

    values, wrong = ruler.measured(found, distance)
    assert values == {"a": 0.0, "b": 1.0, "c": 1.0, "d": 2.0} and wrong == ["c is no further than b"]
    assert len(asked) == 4 and "| d | 2 |" in capsys.readouterr().out


@pytest.mark.thorough
def test_the_digit_extractor_is_one_but_for_what_it_cannot_see(capsys):
    code = ruler.main(["--extractor", "digits", "--data", "Digits"])
    said = capsys.readouterr().out
    values = {name: float(value) for name, value in re.findall(r"^\| (.*?) \| ([\d.e+]+) \|$", said, re.MULTILINE)}
    data = Digits()
    data.setup("fit")
    train, test = (to_uint8(torch.stack([*data.reference(split)])) for split in ("train", "test"))
    assert values["test images, 297"] == pytest.approx(metrics.fidelity(test, train, metrics=["fid"])["fid"], rel=1e-3)
    assert values["noise 0.1"] < values["noise 0.2"] < values["noise 0.5"]
    assert values["test images, 297"] < values["blur 0.6 px"] < values["blur 1 px"] < values["blur 2 px"]
    # Noise of 0.05 is less than 297 images can tell: the script says so.
    assert code == 1 and "noise 0.05 is no further than test images, 297" in said
