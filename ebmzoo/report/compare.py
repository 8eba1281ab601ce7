"""Runs side by side: a row for each setting, a column for each metric under one protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .papers import published
from .results import OF_METHOD, Number, Run

__all__ = ["METRICS", "Cell", "Column", "Table", "compare"]

#: heading, and which way is better; None where a nearer value to the truth is, or neither
METRICS: dict[str, tuple[str, str | None]] = {
    "fid": ("FID", "low"),
    "fid_1k": ("FID of 1,000", "low"),  # of as many for each, where methods draw unlike numbers
    "kid": ("KID", "low"),
    "isc": ("inception score", "high"),
    "precision": ("precision", "high"),
    "recall": ("recall", "high"),
    "sure_share": ("share of sure digits", "high"),
    "class_share_min": ("rarest digit's share", "high"),
    "stacked_modes": ("modes", "high"),
    "stacked_kl": ("KL to the modes", "low"),
    "modes_covered": ("modes covered", "high"),
    "mode_high_quality_share": ("within 4 s of a mode", "high"),
    "mode_least_share": ("rarest mode's share", "high"),
    "mode_kl": ("KL to the modes", "low"),
    "log_density_mean": ("truth's log-density of samples, nats", None),
    "log_likelihood": ("test log-likelihood, nats", "high"),
    "elbo_nats": ("ELBO, nats", "high"),
    "mse_per_pixel": ("reconstruction MSE", "low"),
    "mse_per_coordinate": ("reconstruction MSE", "low"),
    "network_evaluations": ("evaluations per sample", "low"),
    "seconds_50_samples": ("seconds for 50 samples", "low"),
    "fit_network_evaluations": ("evaluations per training image", "low"),
    "fit_cpu_s": ("training, CPU s", "low"),
}
#: what rows are ordered by, the first that most of them share
_QUALITY = ["fid", "fid_1k", "stacked_kl", "mode_high_quality_share"]
_QUALITY += ["log_likelihood", "mse_per_pixel", "mse_per_coordinate"]  # of what draws no samples
_OOD = "ood_auroc_"


@dataclass(frozen=True)
class Cell:
    """The seeds of one row in one column."""

    values: Sequence[float | None]
    paper: float | None = None

    @property
    def finite(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        """None where a seed is not finite."""
        return sum(self.finite) / len(self.finite) if len(self.finite) == len(self.values) else None

    @property
    def deviation(self) -> float:
        """The sample standard deviation; 0 of one seed."""
        mean = sum(self.finite) / max(len(self.finite), 1)
        return math.sqrt(sum((value - mean) ** 2 for value in self.finite) / max(len(self.finite) - 1, 1))

    def __str__(self) -> str:
        """Mean ± standard deviation.

        Example:
            >>> str(Cell([1.0, 2.0, 3.0])), str(Cell([0.51234])), str(Cell([0.5, None]))
            ('2 ± 1', '0.512', 'not finite for 1 of 2 seeds')
        """
        if self.mean is None or len(self.values) > 1:
            return self._spread(3)
        return _number(self.mean)

    def each(self, digits: int = 3) -> str:
        """Mean ± standard deviation, and every seed.

        Example:
            >>> Cell([1.0, 2.0, 3.0]).each()
            '2 ± 1 (1, 2, 3)'
        """
        text = self._spread(digits)
        return text if self.mean is None else f"{text} ({', '.join(_number(one, digits) for one in self.finite)})"

    def _spread(self, digits: int) -> str:
        if self.mean is None:
            return f"not finite for {len(self.values) - len(self.finite)} of {len(self.values)} seeds"
        return f"{_number(self.mean, digits)} ± {self.deviation:.{digits - 1}g}"


@dataclass
class Column:
    """One metric under one protocol."""

    metric: str
    heading: str
    better: str | None
    cells: dict[str, Cell] = field(default_factory=dict)
    protocols: list[tuple[Run, Number]] = field(default_factory=list)

    @property
    def best(self) -> set[str]:
        """The rows with the best mean; none where neither way is better or there is nothing to compare."""
        means = {row: cell.mean for row, cell in self.cells.items() if cell.mean is not None}
        if self.better is None or len(set(means.values())) < 2:
            return set()
        top = (min if self.better == "low" else max)(means.values())
        return {row for row, mean in means.items() if mean == top}

    @property
    def level(self) -> set[str]:
        """Rows of several seeds that overlap the seeds of the best."""
        if not self.best:
            return set()
        top = [value for row in self.best for value in self.cells[row].finite]
        others = {row: cell for row, cell in self.cells.items() if row not in self.best and cell.mean is not None}
        return {row for row, cell in others.items() if _overlap(cell.finite, top)}

    @property
    def order(self) -> list[tuple[str, bool]]:
        """Rows, the best first, and whether each one's seeds overlap those of the row before it."""
        means = {row: cell.mean for row, cell in self.cells.items() if cell.mean is not None}
        rows = sorted(means, key=means.__getitem__, reverse=self.better == "high")
        before = [[], *(self.cells[row].finite for row in rows[:-1])]
        return [(row, _overlap(self.cells[row].finite, other)) for row, other in zip(rows, before, strict=True)]

    @property
    def protocol(self) -> dict[str, Any]:
        """What all of its numbers share, without what is None."""
        first = self.protocols[0][1].protocol
        shared = {name: value for name, value in first.items() if value is not None}
        return {
            name: value
            for name, value in shared.items()
            if all(number.protocol.get(name) == value for _, number in self.protocols)
        }


@dataclass(frozen=True)
class Table:
    """The comparison: rows in their order, columns, the runs behind them, and those that have no numbers."""

    rows: Sequence[str]
    columns: Sequence[Column]
    runs: Sequence[Run]
    left_out: Sequence[Run] = ()

    def of(self, row: str) -> list[Run]:
        """The seeds of a row."""
        return [run for run in self.runs if run.row == row]

    def text(self, column: Column, row: str, bold: Callable[[str], str]) -> str:
        """A cell in words: the best in bold, ≈ where seeds overlap the best's, the paper's number behind it."""
        cell = column.cells.get(row)
        if cell is None:
            return ""
        text = bold(str(cell)) if row in column.best else f"{cell} ≈" if row in column.level else str(cell)
        return text if cell.paper is None else f"{text} (paper: {_number(cell.paper)})"

    def markdown(self) -> str:
        """The table in Markdown, and what its columns were measured with."""
        lines = ["| run | seeds | iterations | sampler | " + " | ".join(one.heading for one in self.columns) + " |"]
        lines += ["|---" * (len(self.columns) + 4) + "|"]
        for row in self.rows:
            cells = [self.text(column, row, lambda text: f"**{text}**") for column in self.columns]
            lines.append("| " + " | ".join([row, *self.facts(row), *cells]) + " |")
        return "\n".join([*lines, "", *self.notes(), "", *(f"* {line}" for line in self.protocols())])

    @property
    def quality(self) -> Column | None:
        """What the rows are ordered by; None where they share nothing that says how good they are."""
        known = [column for name in _QUALITY for column in self.columns if column.metric == name]
        return max(known, key=lambda column: len(column.cells), default=None)

    def notes(self) -> list[str]:
        """How the table is read, and the order of its rows."""
        notes = ["Mean ± standard deviation over seeds; the best of a column is bold."]
        if (quality := self.quality) is not None and len(quality.order) > 1:
            said = "".join(
                f"{' ≈ ' if level else ', ' if number else ''}{row}"
                for number, (row, level) in enumerate(quality.order)
            )
            notes += [f"By {quality.heading}, the best first (≈ where the seeds of two overlap): {said}."]
        if any(column.level for column in self.columns):
            notes += ["≈: the seeds' range overlaps that of the best; the order of these is not settled."]
        if any(len(self.of(row)) == 1 for row in self.rows):
            notes += ["A row of one seed has no spread: how far another seed would lie from it is not known."]
        notes += [f"{run.name}: {run.trouble}." for run in self.runs if run.trouble]
        return notes + [f"{run.name} is left out, it has no numbers: {run.trouble}." for run in self.left_out]

    def protocols(self) -> list[str]:
        """What the columns were measured with; columns of one protocol share a line."""
        lines: dict[str, list[str]] = {}
        for column in self.columns:
            if said := words(column.protocol):
                lines.setdefault(said, []).append(column.heading)
        return [f"{', '.join(headings)}: {said}" for said, headings in lines.items()]

    def facts(self, row: str) -> list[str]:
        """Seeds, training iterations and sampler of a row."""
        protocols = [number.protocol for number in self.of(row)[0].numbers.values()]
        steps = next((one["trained_steps"] for one in protocols if one.get("trained_steps")), None)
        return [str(len(self.of(row))), "?" if steps is None else f"{steps:,}", self.sampler(row)]

    def sampler(self, row: str) -> str:
        """How a row's samples were drawn."""
        for number in self.of(row)[0].numbers.values():
            if name := number.protocol.get("sampler"):
                return f"{number.protocol['steps']} × {name}" if number.protocol.get("steps") else "one step"
        return "?"


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the ranges of two rows of several seeds do; one seed has no range."""
    return min(len(one), len(other)) > 1 and min(one) <= max(other) and min(other) <= max(one)


def compare(runs: Sequence[Run], separate: bool = False) -> Table:
    """Put runs side by side.

    A column takes numbers of one protocol: all of it must agree, but for what is the method's own affair, its sampler
    and its draws, in which only runs of the same method must agree, and the length of training, in which only the
    seeds of a row must.

    Args:
        runs: what `load` found; those without numbers are left out and named in the table's notes.
        separate: give each protocol a column of its own instead of refusing.

    Raises:
        ValueError: runs of different data, or numbers of different protocols, what differs being named.
    """
    left_out = [run for run in runs if not run.numbers]
    runs = [run for run in runs if run.numbers]
    if len(sets := sorted({run.data for run in runs})) > 1:
        raise ValueError(f"runs of different data are not compared: {', '.join(sets)}; give those of one at a time")
    rows = list(dict.fromkeys(run.row for run in runs))
    names = list(dict.fromkeys(name for run in runs for name in run.numbers))
    chosen = [name for name in METRICS if name in names] + [name for name in names if name.startswith(_OOD)]
    columns: list[Column] = []
    for name in chosen:
        heading, better = METRICS.get(name, (f"OOD AUROC, {name.removeprefix(_OOD).replace('_', ' ')}", "high"))
        own: list[Column] = []
        for run in runs:
            if (number := run.numbers.get(name)) is None:
                continue
            place = next((one for one in own if not _difference(one, run, number)), None)
            if place is None:
                if own and not separate:
                    raise ValueError(_refusal(heading, own[0], run, number))
                own.append(place := Column(name, heading, better))
            place.protocols.append((run, number))
        for column in own:
            _fill(column)
            if len(own) > 1:
                apart = {key for a in own for run, number in a.protocols for key in _difference(column, run, number)}
                told = [f"{key} {_short(column.protocols[0][1].protocol.get(key))}" for key in sorted(apart)]
                column.heading = f"{heading} ({', '.join(told)})"
        columns += own
    return Table(rows, columns, runs, left_out)


def _fill(column: Column) -> None:
    for run, number in column.protocols:
        values = [*column.cells[run.row].values, number.value] if run.row in column.cells else [number.value]
        column.cells[run.row] = Cell(values, published(run.method, column.metric, number.protocol))


def _difference(column: Column, run: Run, number: Number) -> dict[str, tuple[Any, Any, Run]]:
    """What of a number's protocol differs from one in the column: the values, and the run there."""
    found: dict[str, tuple[Any, Any, Run]] = {}
    for other, there in column.protocols:
        for key in sorted({*number.protocol, *there.protocol}):
            if (key in OF_METHOD and other.method != run.method) or (key == "trained_steps" and other.row != run.row):
                continue
            if (here := number.protocol.get(key)) != there.protocol.get(key):
                found.setdefault(key, (there.protocol.get(key), here, other))
    return found


def _refusal(heading: str, column: Column, run: Run, number: Number) -> str:
    different = _difference(column, run, number)
    other = next(iter(different.values()))[2]
    if "sampler" in different or "steps" in different:
        different.pop("details", None)  # says the same at length
    said = "; ".join(f"{key} is {_short(there)} and {_short(here)}" for key, (there, here, _) in different.items())
    return (
        f"{heading} of {other.folder} and {run.folder} cannot stand in one column: {said}; measure them alike with "
        f"`ebmzoo test`, or give each protocol a column of its own with --separate"
    )


def _short(value: Any) -> str:
    text = str(value) if value is not None else "not said"
    return f"{text[:12]}…" if len(text) == 64 else text


def _number(value: float, digits: int = 3) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def words(protocol: Mapping[str, Any]) -> str:
    """A protocol as a line.

    Example:
        >>> words({"ema": True, "n": 5000, "extractor": "digits", "extractor_sha256": "5b62ea79bf", "k": 3})
        'n 5,000, extractor digits (sha256 5b62ea79), averaged weights, k 3'
    """
    said = {name: f"{name.replace('_', ' ')} {_short(value)}" for name, value in protocol.items()}
    said |= {name: f"{name.replace('_', ' ')} {value:,}" for name, value in protocol.items() if name.startswith("n")}
    if "reference" in protocol:
        of = f" ({protocol['n_reference']:,})" if "n_reference" in protocol else ""
        said["reference"] = f"against {protocol['reference']}{of}"
    if "extractor_sha256" in protocol:
        said["extractor"] = f"extractor {protocol.get('extractor')} (sha256 {protocol['extractor_sha256'][:8]})"
    if "ema" in protocol:
        said["ema"] = "averaged weights" if protocol["ema"] else "raw weights"
    first = ("n", "reference", "extractor", "resize", "rounding", "ema")
    hidden = {*first, *OF_METHOD, "n_reference", "extractor_sha256", "box", "trained_steps"}
    return ", ".join([*(said[name] for name in first if name in said), *(said[k] for k in said if k not in hidden)])
