"""A study as one HTML page; study.html is its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ebmzoo.images import grid, to_uint8

from .charts import COLOURS, Series, chart, densities
from .pictures import contours, picture_uri
from .study import box, energies
from .template import rendered

if TYPE_CHECKING:
    from .study_result import Study

_SIDE, _MARGIN = 160, 0.1  # places of the landscape along an axis; its margin, of the states' extent
_POINTS, _IMAGES = 1000, 64
_BAND = "median", "5th percentile", "95th percentile"


@dataclass(frozen=True)
class _Figure:
    heading: str
    said: str
    drawing: str = ""  # a chart
    picture: str = ""  # or a picture's address
    points: Sequence[tuple[int, int]] = ()  # that lie over it, in thousandths
    legend: Sequence[str] = ()


def study_page(study: Study, title: str, command: str) -> str:
    """The page: numbers, the plane with the chains' states or images of their ends, and energies.

    Args:
        study: what was found.
        title: what the energy is of.
        command: what makes the page again; "" where a program did.
    """
    figures, shape = [], tuple(study.samples.shape[1:])
    if shape == (2,):
        figures.append(_plane(study))
    elif len(shape) == 3 and shape[0] in (1, 3):
        picture = picture_uri(grid(to_uint8(study.samples[:_IMAGES].cpu())))
        figures.append(_Figure("Where the chains ended", f"at most {_IMAGES} of them", picture=picture))
    steps, chains = study.energies.shape
    shares = torch.tensor([0.5, 0.05, 0.95], dtype=study.energies.dtype)
    lines = [
        Series(name, number, range(steps), values.tolist())
        for number, (name, values) in enumerate(zip(_BAND, study.energies.quantile(shares, dim=1), strict=True))
    ]
    drawing = chart(lines, "step", "U before the step")
    figures.append(_Figure("Energy along the chains", f"of {chains:,} chains", drawing, legend=_BAND))
    given = {"exact samples": study.exact, "the other set": study.outside}
    groups = {"the chains, second half": study.energies[steps // 2 :].flatten()}
    groups |= {name: energies(study.potential, x) for name, x in given.items() if x is not None}
    drawing = densities({name: values.numpy() for name, values in groups.items()}, "U")
    said = ", ".join(f"{len(values):,} {name}" for name, values in groups.items())
    figures.append(_Figure("Energies", said, drawing, legend=list(groups)))
    return rendered("study.html", study=study, title=title, command=command, figures=figures, colours=COLOURS)


def _plane(study: Study) -> _Figure:
    states = study.draws.flatten(0, 1).double().cpu()
    low, high = box(states, _MARGIN)
    half = max(b - a for a, b in zip(low, high, strict=True)) / 2  # one scale for both axes
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    low, high = [m - half for m in middle], [m + half for m in middle]
    axes = [torch.linspace(*ends, _SIDE) for ends in zip(low, high, strict=True)]
    values = energies(study.potential, torch.cartesian_prod(*axes).to(study.draws)).view(_SIDE, _SIDE)
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))[:_POINTS]
    points = ((states - torch.tensor(low)) / (torch.tensor(high) - torch.tensor(low)))[order]
    corners = " to ".join(f"({', '.join(f'{value:.3g}' for value in corner)})" for corner in (low, high))
    return _Figure(
        "The plane",
        f"contours of U, low where bright; {len(points):,} states of the chains; from {corners}",
        picture=contours(values.numpy()),
        points=[(round(1000 * x), round(1000 * (1 - y))) for x, y in points.tolist()],
    )
