"""Papers' figures stand beside one's own under their own protocol alone, and the page of the field is made of them."""

from pathlib import Path

import pytest

import ebmzoo.methods
from ebmzoo.report.papers import PUBLISHED, leaderboard, published

PAGE = Path(__file__).parents[2] / "docs" / "leaderboard.md"
DUAL = {"n": 50_000, "extractor": "inception", "reference": "cifar10 train", "steps": 30, "ema": False}


def test_a_figure_stands_beside_its_own_protocol_alone():
    assert published("DualMCMC", "fid", DUAL) == 9.26
    assert published("DualMCMC", "fid", {**DUAL, "steps": 0}) == 8.93
    assert published("DualMCMC", "isc", DUAL) == 8.55
    others = [{"steps": 1}, {"n": 10_000}, {"extractor": "digits"}, {"reference": "cifar10 test"}, {"ema": True}]
    assert [published("DualMCMC", "fid", {**DUAL, **other}) for other in others] == [None] * 5


def test_no_two_figures_of_a_method_claim_one_protocol():
    keys = [(one.method, one.metric, one.reference, one.steps, one.averages) for one in PUBLISHED]
    assert len(keys) == len(set(keys))


def test_methods_that_are_said_to_be_here_are():
    assert {one.method for one in PUBLISHED if one.here} <= set(ebmzoo.methods.__all__)
    assert not {one.method for one in PUBLISHED if not one.here} & set(ebmzoo.methods.__all__)


def test_the_page_is_made_of_them():
    page = PAGE.read_text()
    assert page.endswith(leaderboard() + "\n")
    assert page.count("| **") == sum(one.here and one.metric == "fid" for one in PUBLISHED)


@pytest.mark.parametrize("heading", ["CIFAR-10", "ImageNet 32", "CelebA 64"])
def test_a_set_is_ordered_by_its_figures(heading):
    part = leaderboard().split(f"## {heading}\n\n")[1].split("\n\n")[0]
    values = [float(line.split("|")[2]) for line in part.splitlines()[2:]]
    assert values == sorted(values) and len(values) >= 5
