"""What a figure asks for decides whether it is made; what it has yielded stays when it fails."""

from dataclasses import dataclass

import pytest
import torch

from ebmzoo.callbacks import Evaluate
from ebmzoo.figures import PARTS, Figure, Figures, Number
from ebmzoo.figures.base import Left, Look, reason_against
from ebmzoo.methods.capabilities import Decodes, HasEnergy, Samples

from ..callbacks.fakes import Images, Tiny, measured, model, trainer


@dataclass(frozen=True)
class Half(Figure):
    """Yields a number and a line, and fails."""

    value: float = 2.0

    name, takes = "half", "model"

    def __call__(self, look):
        yield Number("first", self.value, look.of_samples(1))
        yield Left("half, second", "no reason")
        raise ValueError("no more")


def test_what_was_found_before_a_mistake_is_kept_and_the_rest_goes_on(tmp_path):
    found, skipped, _ = measured(
        tmp_path, model(), figures=Figures(cost=None, more=[Half(3.0), Half(4.0)]), only=["more"]
    )
    assert found == {"first": 4.0}  # one number of one protocol: the last holds
    assert skipped == ["half, second: no reason", "half: no more"] * 2


def test_others_mistakes_are_not_hidden(tmp_path):
    @dataclass(frozen=True)
    class Wrong(Figure):
        name, takes = "wrong", "model"

        def __call__(self, look):
            yield Number("x", 1.0, look.of_samples(1))
            raise KeyError("a mistake in the figure")

    with pytest.raises(KeyError, match="a mistake in the figure"):
        trainer(tmp_path, [Evaluate(figures=[Wrong()])]).test(model(), Images(), verbose=False)


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        ({}, None),
        ({"of": "images"}, None),
        ({"of": "points"}, ""),
        ({"takes": "samples"}, ""),  # none were drawn
        ({"needs": (Samples, Decodes)}, "Tiny is no Decodes"),
        ({"needs": (Samples, HasEnergy)}, "Tiny has no energy"),
        ({"needs": (HasEnergy,), "quiet": True}, ""),
    ],
)
def test_why_a_figure_is_not_made(asks, reason):
    figure = type("Asking", (Figure,), {"name": "asking", **asks})()
    assert reason_against(figure, Look(Tiny(), Images())) == reason


def test_without_data_only_the_model_is_measured():
    look = Look(Tiny())
    assert [one.name for one in Figures() if reason_against(one, look) is None] == ["cost of sampling", "chain health"]


def test_samples_make_figures_of_samples():
    look = Look(Tiny().eval(), Images(), n=4)
    with torch.no_grad():
        look.draw_samples()
    figure = type("Asking", (Figure,), {"name": "asking", "takes": "samples"})()
    assert reason_against(figure, look) is None and look.samples.shape == (4, 1, 8, 8)


def test_parts_are_chosen_in_the_order_asked_for(tmp_path):
    assert PARTS == ("generation", "memorisation", "likelihood", "reconstruction", "ood", "chains")
    _, _, held = measured(tmp_path, model(), only=["reconstruction", "likelihood"])
    names = [entry["name"] for entry in held["results"]]
    assert names == ["mse_per_pixel", "rmse_per_pixel", "psnr", "ssim", "elbo_nats", "iw_bound_100_nats"]
