"""The comparison as one HTML page that needs nothing but itself; page.html is its template."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .charts import COLOURS, Series, chart, densities
from .compare import Column, Table
from .pictures import data_uri, heat_map
from .results import Run
from .template import rendered

_COSTS = {
    "seconds_50_samples": "seconds for 50 samples",
    "network_evaluations": "network evaluations for a sample",
    "fit_cpu_s": "training, CPU seconds",
    "fit_network_evaluations": "training, network evaluations per image",
}
_WATCHED = ("train/energy_gap", "train/lambda", "mcmc/displacement", "mcmc/grad_norm", "mcmc/saturation")
_SPENT, _SECONDS, _SPEED = "train/network_evaluations", "seconds", "time/steps_per_second"
_OVER = {"step": "iteration", _SECONDS: "seconds of training", _SPENT: "network evaluations"}
_CHAIN = "one chain to a row, from its start on the left"
_LONG = "distance and energy against the length of the chain, with and without Metropolis tests"
_CURVES = 12  # at most
_PLACES = 200  # of a curve
_RANGE = 12.0  # nats of a landscape below its maximum
_UNITS = 1000  # of a landscape's side, for its points


@dataclass(frozen=True)
class Figure:
    """A chart or picture with its heading, its protocol in words, and the commands that make it again."""

    heading: str
    said: str
    commands: Sequence[str]
    drawing: str = ""  # a chart
    picture: str = ""  # or a picture's address
    alt: str = ""
    smooth: bool = False
    chain: str | None = None  # whose points lie over the picture

    @property
    def drawn(self) -> bool:
        return bool(self.drawing or self.picture or self.chain)


class Section:
    """Figures beside each other, as many as fit with their least width, below a legend that they may share."""

    def __init__(
        self, name: str, figures: Iterable[Figure], rows: Sequence[str] = (), shown: Iterable[str] = (), least: int = 20
    ) -> None:
        self.name, self.figures = name, [one for one in figures if one.drawn]
        present = set(shown)
        self.legend = [(number, row) for number, row in enumerate(rows) if row in present]
        self.least, self.slides = f"{least}rem", any(one.chain for one in self.figures)


def page(table: Table, command: str) -> str:
    """The page: tables, samples, costs, curves, energies, scores, chains and landscapes, as far as the runs left them.

    Args:
        table: the comparison.
        command: what makes the page again.

    Returns:
        HTML with everything inside it.
    """
    sections = [
        _pictures("Samples", table, "samples.png", "generation"),
        _costs(table),
        _training(table),
        _energies(table),
        _roc(table),
        _pictures(
            "Chains", table, "chain.png", "chains", said="one chain to a row, from its start on the left", least=24
        ),
        _pictures("Chains that run on", table, "long_run_curves.png", "chains --long_run", said=_LONG, least=36),
        _landscapes(table),
    ]
    return rendered(
        "page.html",
        table=table,
        title=f"ebmzoo: {table.runs[0].data}",
        command=command,
        sections=[one for one in sections if one.figures],
        chains=_chains(table),
        cell_of=lambda column, row: _cell(table, column, row),
        commands_of=lambda row: list(dict.fromkeys(command for run in table.of(row) for command in run.commands)),
        anchor=lambda name: name.lower().replace(" ", "-"),
        colours=COLOURS,
        units=_UNITS,
        zip=zip,
    )


def _cell(table: Table, column: Column, row: str) -> dict[str, str]:
    cell = column.cells.get(row)
    text, _, paper = table.text(column, row, str).partition(" (paper:")
    value = "" if cell is None or cell.mean is None else repr(cell.mean)
    return {"value": value, "text": text, "paper": paper and f"paper:{paper.removesuffix(')')}"}


def _measured(runs: Iterable[Run], part: str) -> list[str]:
    """What measures runs again."""
    return [f"ebmzoo test --ckpt_path '{run.folder}/checkpoints/last.ckpt' --only {part}" for run in runs]


def _first_seeds(table: Table) -> list[Run]:
    return [table.of(row)[0] for row in table.rows]


def _arrays(run: Run) -> dict[str, Any]:
    """What the evaluation left to be drawn."""
    path = run.folder / "arrays.npz"
    if not path.is_file():
        return {}
    with np.load(path) as file:
        return dict(file)


def _seed(run: Run) -> str:
    """Which of a row's runs it is, in words."""
    return f"{run.folder.name.replace('_', ' ')}" if run.folder.name != run.row else "its only run"


# -- sections ---------------------------------------------------------------------------------------------


def _pictures(title: str, table: Table, name: str, part: str, said: str = "", least: int = 16) -> Section:
    figures = []
    for run in _first_seeds(table):
        if (path := run.folder / name).is_file():
            how = "; ".join(filter(None, [f"{table.sampler(run.row)}, {_seed(run)}", said]))
            alt, smooth = f"{title.lower()} of {run.row}", "plane/box" in _arrays(run)
            commands = _measured([run], part)
            figures.append(Figure(run.row, how, commands, picture=data_uri(path), alt=alt, smooth=smooth))
    return Section(title, figures, least=least)


def _costs(table: Table) -> Section:
    # Of a metric under several protocols, the one that most rows share.
    columns = {column.metric: column for column in sorted(table.columns, key=lambda one: len(one.cells))}
    quality, figures = table.quality, []
    for name, label in _COSTS.items():
        if quality is None or (cost := columns.get(name)) is None:
            continue
        series = []
        for number, row in enumerate(table.rows):
            x, y = cost.cells.get(row), quality.cells.get(row)
            if x and y and x.mean and y.mean is not None and x.mean > 0:
                series.append(Series(row, number, [x.mean], [y.mean], [y.deviation]))
        drawn = chart(series, label, quality.heading, points=True, log_x=True)
        said = "means of seeds; bars: ± a standard deviation. " + "; ".join(
            line for line in table.protocols() if line.split(": ")[0].split(", ").count(cost.heading)
        )
        commands = _measured(table.runs, "generation")
        figures.append(Figure(f"{quality.heading} against {label}", said, commands, drawing=drawn))
    return Section("Quality and cost", figures, table.rows, quality.cells if quality else ())


def _training(table: Table) -> Section:
    rows = {run.folder: _rows(run.folder / "metrics.csv") for run in table.runs}
    names = list(dict.fromkeys(name for found in rows.values() for row in found for name in row))
    judged = [name for name in names if name.startswith("val/fid_")]  # what is judged by comes first
    drawn = [(x, name) for name in judged for x in _OVER if x in names]
    others = [*(name for name in names if name.startswith("val/")), *(name for name in _WATCHED if name in names)]
    drawn += [("step", name) for name in others if name not in judged]
    extractors = {number.protocol.get("extractor") for run in table.runs for number in run.numbers.values()}
    own = sorted(name for name in extractors if name not in (None, "inception"))
    of = f" ({', '.join(own)})" if own and "inception" not in extractors else ""
    again = list(dict.fromkeys(run.commands[0] for run in table.runs if run.commands))
    figures = []
    for x, name in drawn[:_CURVES]:
        series = [
            Series(run.row, table.rows.index(run.row), *found)
            for run in table.runs
            if (found := _curve(rows[run.folder], x, name))
        ]
        shown = name + (of if name.startswith("val/fid_") else "")
        heading = shown if x == "step" else f"{shown} over {_OVER[x]}"
        said = "each seed a line, from metrics.csv"
        said += "; without validations, on the machine that trained" if x == _SECONDS else ""
        drawing = chart(series, _OVER[x], shown, log_y=name in judged)
        figures.append(Figure(heading, said, again, drawing=drawing))
    return Section("Training", figures, table.rows, table.rows)


def _rows(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics file, without what is no number; a last row that was cut short is left out."""

    def number(text: object) -> float | None:
        try:
            return float(str(text))
        except ValueError:
            return None

    if not path.is_file():
        return []
    with path.open(newline="") as file:
        lines = csv.DictReader(line for line in file if line.endswith("\n"))
        rows = [{name: x for name, text in row.items() if (x := number(text)) is not None} for row in lines]
    return _timed(rows)


def _timed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The same with the seconds of training until each row: speeds are means since the speed before."""
    speeds = [(row["step"], row[_SPEED]) for row in rows if row.get(_SPEED, 0) > 0 and "step" in row]
    if not speeds:
        return rows
    steps, speed = np.array(speeds).T
    steps = np.concatenate([[-1.0], steps])  # iterations are counted from 0: row k ends the (k + 1)-th
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(steps) / speed)])
    for row in rows:
        if "step" in row:
            row[_SECONDS] = float(np.interp(row["step"], steps, seconds))
    return rows


def _curve(rows: list[dict[str, float]], x: str, y: str) -> tuple[list[float], list[float]] | None:
    """Two columns where both are there, thinned out."""
    both = [(row[x], row[y]) for row in rows if x in row and y in row]
    thin = both[:: max(1, len(both) // _PLACES)]
    return ([a for a, _ in thin], [b for _, b in thin]) if thin else None


def _energies(table: Table) -> Section:
    figures: list[Figure] = []
    names: list[str] = []
    for run in _first_seeds(table):
        groups = {name.removeprefix("energy/"): v for name, v in _arrays(run).items() if name.startswith("energy/")}
        groups = {name: found for name, values in groups.items() if len(found := values[np.isfinite(values)])}
        if not groups:
            continue
        names = names or list(groups)
        drawn = densities(groups, "E(x), low: likely")
        sizes = ", ".join(f"{len(values):,} {name}" for name, values in groups.items())
        figures.append(Figure(run.row, f"{sizes}; {_seed(run)}", _measured([run], "chains"), drawing=drawn))
    return Section("Energies", figures, names, names)


def _roc(table: Table) -> Section:
    runs = _first_seeds(table)
    scores = {run.folder: _arrays(run) for run in runs}
    names = dict.fromkeys(name for found in scores.values() for name in found if name.startswith("score/"))
    figures, shown = [], set()
    for name in [name for name in names if name not in ("score/test", "score/train")]:
        series = []
        for run in runs:
            if name in (found := scores[run.folder]):
                series.append(Series(run.row, table.rows.index(run.row), *_roc_of(found["score/test"], found[name])))
                shown.add(run.row)
        other = name.removeprefix("score/")
        said = f"scores of the test split against {other}; in-distribution is positive, the first seed of a row"
        drawn = chart(series, "false positives", "true positives")
        figures.append(Figure(f"{table.runs[0].data} against {other}", said, _measured(runs, "ood"), drawing=drawn))
    return Section("Out-of-distribution data", figures, table.rows, shown)


def _roc_of(inside: Any, outside: Any) -> tuple[list[float], list[float]]:
    """False and true positives over thresholds of the score."""
    levels = np.quantile(np.concatenate([inside, outside]), np.linspace(1, 0, 101))
    rates = [[0.0, *((values[None, :] >= levels[:, None]).mean(1))] for values in (outside, inside)]
    return rates[0], rates[1]


def _landscapes(table: Table) -> Section:
    def plane(run: Run, heading: str, chain: str, values: Any, alt: str, said: str) -> Figure:
        address = "" if values is None else heat_map(values, _RANGE)
        return Figure(heading, said, _measured([run], "chains"), picture=address, alt=alt, chain=chain)

    runs = [(run, arrays) for run in _first_seeds(table) if "plane/box" in (arrays := _arrays(run))]
    how = f"log-density from its maximum (bright) to {_RANGE:g} nats below (dark)"
    figures = []
    for run, arrays in runs[:1]:
        if "plane/truth" in arrays:
            said = f"{how}; {len(arrays['plane/data'])} test points"
            figures = [plane(run, "the truth", "truth", arrays["plane/truth"], "the true log-density", said)]
    for run, arrays in runs:
        said = f"{how if 'plane/model' in arrays else 'no log-density: samples alone'}; {_seed(run)}"
        figures.append(plane(run, run.row, run.row, arrays.get("plane/model"), f"log-density of {run.row}", said))
    return Section("Landscapes", figures)


def _chains(table: Table) -> dict[str, Any]:
    """Points of chains in units of the panels, for the slider."""
    found: dict[str, Any] = {}
    for run in _first_seeds(table):
        arrays = _arrays(run)
        if "plane/box" not in arrays:
            continue
        low, high = arrays["plane/box"]

        def placed(points: Any, low: Any = low, high: Any = high) -> list[int]:
            share = np.nan_to_num((points - low) / (high - low), nan=-1.0).clip(-1, 2)
            share[:, 1] = 1 - share[:, 1]
            return [int(value) for value in (share * _UNITS).round().flatten()]

        found.setdefault("truth", {"steps": [0], "frames": [placed(arrays["plane/data"])], "says": "test data"})
        frames = arrays.get("plane/chain", arrays["plane/data"][None, :0])
        steps = [int(step) for step in arrays.get("plane/steps", [0])]
        found[run.row] = {"steps": steps, "frames": [placed(frame) for frame in frames], "says": "one step, no chain"}
    return found
