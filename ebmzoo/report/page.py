"""The comparison as one HTML page that needs nothing but itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .compare import Column, Table
from .pictures import data_uri, heat_map
from .pieces import anchor, arrays_of, cards, charts, details, figure, first_seeds, measured, seed_of
from .svg import Series, chart

__all__ = ["page"]

_COSTS = {
    "seconds_50_samples": "seconds for 50 samples",
    "network_evaluations": "network evaluations for a sample",
    "fit_cpu_s": "training, CPU seconds",
    "fit_network_evaluations": "training, network evaluations per image",
}
_WATCHED = ("train/energy_gap", "train/lambda", "mcmc/displacement", "mcmc/grad_norm", "mcmc/saturation")
_SPENT = "train/network_evaluations"
_CURVES = 12  # at most
_PLACES = 200  # of a curve
_RANGE = 12.0  # nats of a landscape below its maximum
_UNITS = 1000  # of a landscape's side, for its points


def page(table: Table, command: str) -> str:
    """The page: tables, samples, costs, curves, energies, scores, chains and landscapes, as far as the runs left them.

    Args:
        table: the comparison.
        command: what makes the page again.

    Returns:
        HTML with everything inside it.
    """
    makers: dict[str, Callable[[Table], str]] = {
        "Ranking": _ranking,
        "Samples": lambda one: _pictures(one, "samples.png", "generation"),
        "Quality and cost": _costs,
        "Training": _training,
        "Energies": _energies,
        "Out-of-distribution data": _roc,
        "Chains": lambda one: _pictures(one, "chain.png", "chains", wide=True),
        "Landscapes": _landscapes,
    }
    sections = {name: html for name, make in makers.items() if (html := make(table))}
    protocols = "".join(f"<li>{escape(line)}</li>" for line in table.protocols())
    sections["Protocols"] = f"<p>What each column was measured with.</p><ul>{protocols}</ul>"
    sections["The runs"] = _runs(table)
    about = f"{len(table.runs)} runs in {len(table.rows)} rows, data: {table.runs[0].data}."
    title = f"ebmzoo: {table.runs[0].data}"
    links = "".join(f'<a href="#{anchor(name)}">{name}</a>' for name in sections)
    body = [f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p><nav>{links}</nav>"]
    body.append(f"{details('Make this page again', [command])}</header><main>")
    body += [f'<section id="{anchor(name)}"><h2>{name}</h2>{html}</section>' for name, html in sections.items()]
    template = (resources.files("ebmzoo.report") / "page.html").read_text()
    chains = json.dumps(_chains(table), separators=(",", ":")).replace("</", "<\\/")
    filled = template.replace("{{title}}", escape(title)).replace("{{body}}", "\n".join(body) + "</main>")
    return filled.replace("{{chains}}", chains)


# -- sections ---------------------------------------------------------------------------------------------


def _ranking(table: Table) -> str:
    def head(name: str, better: str = "") -> str:
        arrow = {"low": " ↓", "high": " ↑"}.get(better, "")
        said = {"low": "lower is better", "high": "higher is better"}.get(better, "sort")
        button = f'<button title="{said}">{escape(name)}{arrow}</button>'
        return f'<th scope="col" aria-sort="none" data-better="{better}">{button}</th>'

    def grid(columns: Sequence[Column], facts: Sequence[str]) -> str:
        # On a phone what matters stands beside the names; what is known beside it comes last.
        heads = [head("run"), *(head(one.heading, one.better or "") for one in columns), *map(head, facts)]
        lines = []
        for row in table.rows:
            mark = f" <small>{escape(mark)}</small>" if (mark := table.mark(row)) else ""
            name = escape(row).replace("_", "_<wbr>")
            cells = [f'<th scope="row" data-value="{escape(row)}">{name}{mark}</th>']
            cells += [_cell(table, column, row) for column in columns]
            for fact, said in zip(facts, table.facts(row), strict=False):
                value, text = (said.replace(",", ""), "") if fact in table.COUNTS else (said, ' class="text"')
                cells.append(f'<td{text} data-value="{escape(value)}">{escape(said)}</td>')
            lines.append(f"<tr>{''.join(cells)}</tr>")
        inside = f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(lines)}</tbody>"
        name = "ranking" if facts else "further columns"
        held = f'<table class="sorts" aria-describedby="hint">{inside}</table>'
        return f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">{held}</div>'

    hint = "<p class='soft' id='hint'>A click on a heading sorts. ↓ lower is better, ↑ higher is better.</p>"
    notes = "".join(f"<p class='soft'>{escape(note)}</p>" for note in table.notes())
    count = len(table.further)
    more = f"{count} further column{'s' if count > 1 else ''}"
    further = f"<details><summary>{more}</summary>{grid(table.further, ())}</details>" if count else ""
    return f"{hint}{grid(table.first, table.FACTS)}{further}{notes}"


def _cell(table: Table, column: Column, row: str) -> str:
    cell = column.cells.get(row)
    value = "" if cell is None or cell.mean is None else repr(cell.mean)
    text = escape(table.text(column, row, lambda words: words))
    text = text.replace(" (paper:", "<small>paper:").replace(")", "</small>") if "(paper:" in text else text
    best = ' class="best"' if row in column.best else ""
    return f'<td data-value="{value}"{best}>{text}</td>'


def _pictures(table: Table, name: str, part: str, wide: bool = False) -> str:
    figures = []
    for run in first_seeds(table):
        if (path := run.folder / name).is_file():
            smooth = ' class="smooth"' if "plane/box" in arrays_of(run) else ""
            kind = "chains of" if wide else "samples of"
            picture = f'<img{smooth} src="{data_uri(path)}" alt="{kind} {escape(run.row)}" loading="lazy">'
            said = f"{table.sampler(run.row)}, {seed_of(run)}"
            said += "; one chain to a row, from its start on the left" if wide else ""
            figures.append(figure(run.row, picture, said, measured([run], part)))
    return cards(figures, "24rem" if wide else "16rem")


def _costs(table: Table) -> str:
    # Of a metric under several protocols, the one that most rows share.
    columns = {column.metric: column for column in sorted(table.columns, key=lambda one: len(one.cells))}
    if (quality := table.quality) is None:
        return ""
    figures = []
    for name, label in _COSTS.items():
        if (cost := columns.get(name)) is None:
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
        figures.append(drawn and figure(f"{quality.heading} against {label}", drawn, said, _all(table, "generation")))
    return charts(table.rows, quality.cells, figures)


def _all(table: Table, part: str) -> list[str]:
    return measured(table.runs, part)


def _training(table: Table) -> str:
    rows = {run.folder: _rows(run.folder / "metrics.csv") for run in table.runs}
    names = list(dict.fromkeys(name for found in rows.values() for row in found for name in row))
    drawn = [("step", "iteration", name) for name in names if name.startswith("val/")]
    drawn += [("step", "iteration", name) for name in _WATCHED if name in names]
    drawn += [
        (_SPENT, "network evaluations", name) for name in names if name.startswith("val/fid_") and _SPENT in names
    ]
    drawn.sort(key=lambda one: not one[2].startswith("val/fid_"))  # what is judged by comes first
    extractors = {number.protocol.get("extractor") for run in table.runs for number in run.numbers.values()}
    of = " (digits)" if "digits" in extractors and "inception" not in extractors else ""
    figures = []
    for x, label, name in drawn[:_CURVES]:
        series = [
            Series(run.row, table.rows.index(run.row), *found)
            for run in table.runs
            if (found := _curve(rows[run.folder], x, name))
        ]
        said = "each seed a line, from metrics.csv"
        again = [run.commands[0] for run in table.runs if run.commands]
        shown = name + (of if name.startswith("val/fid_") else "")
        heading = shown if x == "step" else f"{shown} over {label}"
        figures.append(figure(heading, drawing, said, again) if (drawing := chart(series, label, shown)) else "")
    return charts(table.rows, table.rows, figures)


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
        rows = csv.DictReader(line for line in file if line.endswith("\n"))
        return [{name: x for name, text in row.items() if (x := number(text)) is not None} for row in rows]


def _curve(rows: list[dict[str, float]], x: str, y: str) -> tuple[list[float], list[float]] | None:
    """Two columns where both are there, thinned out."""
    both = [(row[x], row[y]) for row in rows if x in row and y in row]
    thin = both[:: max(1, len(both) // _PLACES)]
    return ([a for a, _ in thin], [b for _, b in thin]) if thin else None


def _energies(table: Table) -> str:
    figures: list[str] = []
    names: list[str] = []
    for run in first_seeds(table):
        groups = {name.removeprefix("energy/"): v for name, v in arrays_of(run).items() if name.startswith("energy/")}
        groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
        if not (groups := {name: values for name, values in groups.items() if len(values)}):
            continue
        names = names or list(groups)
        everything = np.concatenate(list(groups.values()))
        low, high = np.quantile(everything, [0.005, 0.995])
        edges = np.linspace(float(low), float(high), 41)
        if edges[0] == edges[-1]:
            continue
        middles = ((edges[1:] + edges[:-1]) / 2).tolist()
        series = [
            Series(name, number, middles, np.histogram(values, edges)[0] / (len(values) * (edges[1] - edges[0])))
            for number, (name, values) in enumerate(groups.items())
        ]
        sizes = ", ".join(f"{len(values):,} {name}" for name, values in groups.items())
        said = f"{sizes}; {seed_of(run)}"
        drawn = chart(series, "E(x), low: likely", "density", filled=True)
        figures.append(figure(run.row, drawn, said, measured([run], "chains")))
    return charts(names, names, figures)


def _roc(table: Table) -> str:
    scores = {run.folder: arrays_of(run) for run in first_seeds(table)}
    names = dict.fromkeys(name for found in scores.values() for name in found if name.startswith("score/"))
    figures, shown = [], set()
    for name in [name for name in names if name not in ("score/test", "score/train")]:
        series = []
        for run in first_seeds(table):
            if name in (found := scores[run.folder]):
                series.append(Series(run.row, table.rows.index(run.row), *_roc_of(found["score/test"], found[name])))
                shown.add(run.row)
        other = name.removeprefix("score/")
        said = f"scores of the test split against {other}; in-distribution is positive, the first seed of a row"
        drawn = chart(series, "false positives", "true positives")
        figures.append(
            figure(f"{table.runs[0].data} against {other}", drawn, said, measured(first_seeds(table), "ood"))
        )
    return charts(table.rows, shown, figures)


def _roc_of(inside: Any, outside: Any) -> tuple[list[float], list[float]]:
    """False and true positives over thresholds of the score."""
    levels = np.quantile(np.concatenate([inside, outside]), np.linspace(1, 0, 101))
    rates = [[0.0, *((values[None, :] >= levels[:, None]).mean(1))] for values in (outside, inside)]
    return rates[0], rates[1]


def _landscapes(table: Table) -> str:
    runs = [(run, arrays) for run in first_seeds(table) if "plane/box" in (arrays := arrays_of(run))]
    if not runs:
        return ""
    how = f"log-density from its maximum (bright) to {_RANGE:g} nats below (dark)"
    points = len(runs[0][1]["plane/data"])
    figures = []
    if "plane/truth" in runs[0][1]:
        plane = _plane(runs[0][1]["plane/truth"], "truth", "the true log-density")
        said = f"{how}; {points} test points"
        figures.append(figure("the truth", plane, said, measured([runs[0][0]], "chains")))
    for run, arrays in runs:
        plane = _plane(arrays.get("plane/model"), run.row, f"log-density of {run.row}")
        said = how if "plane/model" in arrays else "no log-density: samples alone"
        plane += '<div class="step" aria-live="off"></div>'
        figures.append(figure(run.row, plane, f"{said}; {seed_of(run)}", measured([run], "chains")))
    slider = '<label for="along">Along the chains</label>'
    slider += (
        '<input id="along" type="range" min="0" max="15" value="15" step="1"><output id="share" for="along"></output>'
    )
    return f'<div class="slider">{slider}</div>{cards(figures)}'


def _plane(values: Any, name: str, said: str) -> str:
    picture = "" if values is None else f'<img src="{heat_map(values, _RANGE)}" alt="{escape(said)}">'
    over = f'<svg viewBox="0 0 {_UNITS} {_UNITS}" aria-hidden="true"></svg>'
    return f'<div class="plane" data-chain="{escape(name)}">{picture}{over}</div>'


def _chains(table: Table) -> dict[str, Any]:
    """Points of chains in units of the panels, for the slider."""
    found: dict[str, Any] = {}
    for run in first_seeds(table):
        arrays = arrays_of(run)
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


def _runs(table: Table) -> str:
    items = []
    for row in table.rows:
        runs = table.of(row)
        commands = [command for run in runs for command in run.commands]
        folders = ", ".join(f"<code>{escape(str(run.folder))}</code>" for run in runs)
        items.append(
            f"<li><b>{escape(row)}</b> ({escape(runs[0].method)}): {folders}{details('commands', commands)}</li>"
        )
    return f"<ul>{''.join(items)}</ul>"
