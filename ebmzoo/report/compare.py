"""Runs side by side: a row for each setting, a column for each metric under one protocol."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .cells import FIRST, METRICS, QUALITY, SECONDS, Cell, markdown, readable
from .papers import published
from .results import COLLAPSED, OF_METHOD, Number, Run

_OOD = "ood_auroc_"
# What is named after Inception's features, but is measured with those of any extractor.
_OF_FEATURES = ("fid", "fid_1k", "kid", "isc")


@dataclass
class Column:
    """One metric under one protocol."""

    metric: str
    heading: str
    better: str | None
    cells: dict[str, Cell] = field(default_factory=dict)
    protocols: list[tuple[Run, Number]] = field(default_factory=list)
    collapsed: Collection[str] = ()  # rows that are never the best

    @property
    def best(self) -> set[str]:
        """The rows with the best mean; none where neither way is better or there is nothing to compare."""
        means = {row: cell.mean for row, cell in self._fair.items() if cell.mean is not None}
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
        others = {row: cell for row, cell in self._fair.items() if row not in self.best and cell.mean is not None}
        return {row for row, cell in others.items() if _overlap(cell.finite, top)}

    @property
    def _fair(self) -> dict[str, Cell]:
        return {row: cell for row, cell in self.cells.items() if row not in self.collapsed}

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
            if all(one.protocol.get(name) == value for _, one in self.protocols)
        }


@dataclass(frozen=True)
class Table:
    """The comparison: rows in their order, columns, the runs behind them, and those that have no numbers."""

    rows: Sequence[str]
    columns: Sequence[Column]
    runs: Sequence[Run]
    left_out: Sequence[Run] = ()

    FACTS: ClassVar = ("seeds", "iterations", "sampler")
    COUNTS: ClassVar = ("seeds", "iterations")

    def of(self, row: str) -> list[Run]:
        """The seeds of a row."""
        return [run for run in self.runs if run.row == row]

    @property
    def first(self) -> list[Column]:
        """The columns that are looked for first."""
        return [column for column in self.columns if column.metric in FIRST] or list(self.columns)

    @property
    def further(self) -> list[Column]:
        """The other columns."""
        return [column for column in self.columns if column not in self.first]

    def mark(self, row: str) -> str:
        """That a row, or which part of it, has collapsed; "" where none has."""
        runs = self.of(row)
        count = sum(run.collapsed for run in runs)
        return "" if not count else "collapsed" if count == len(runs) else f"collapsed: {count} of {len(runs)} seeds"

    def name(self, row: str) -> str:
        """A row with its mark."""
        return f"{row} ({mark})" if (mark := self.mark(row)) else row

    def text(self, column: Column, row: str, bold: Callable[[str], str]) -> str:
        """A cell in words: the best in bold, ≈ where seeds overlap the best's, the paper's number behind it."""
        cell = column.cells.get(row)
        if cell is None:
            return ""
        text = bold(str(cell)) if row in column.best else f"{cell} ≈" if row in column.level else str(cell)
        return text if cell.paper is None else f"{text} (paper: {readable(cell.paper)})"

    def markdown(self) -> str:
        """The table in Markdown, and what its columns were measured with."""
        rows = []
        for row in self.rows:
            cells = [self.text(column, row, lambda text: f"**{text}**") for column in self.columns]
            rows.append([self.name(row), *self.facts(row), *cells])
        table = markdown(["run", *self.FACTS, *(one.heading for one in self.columns)], rows)
        return "\n".join([table, "", *self.notes(), "", *(f"* {line}" for line in self.protocols())])

    @property
    def quality(self) -> Column | None:
        """What the rows are ordered by; None where they share nothing that says how good they are."""
        known = [column for name in QUALITY for column in self.columns if column.metric == name]
        return max(known, key=lambda column: len(column.cells), default=None)

    def notes(self, best: str = "is bold") -> list[str]:
        """How the table is read, such as that the best of a column ``best``, and the order of its rows."""
        notes = [f"Mean ± standard deviation over seeds; the best of a column {best}."]
        if (quality := self.quality) is not None and len(quality.order) > 1:
            said = "".join(
                f"{' ≈ ' if level else ', ' if place else ''}{self.name(row)}"
                for place, (row, level) in enumerate(quality.order)
            )
            notes += [f"By {quality.heading}, the best first (≈ where the seeds of two overlap): {said}."]
        if any(map(self.mark, self.rows)):
            notes += [
                f"Collapsed: {COLLAPSED}, in one of its seeds at least; never the best, whatever its other figures."
            ]
        if any("_quick" in self.name(row) for row in self.rows):  # of `ebmzoo benchmark --quick`
            notes += [
                "Quick runs train for few iterations: what is behind here, or collapsed, may only be undertrained."
            ]
        if any(column.level for column in self.columns):
            notes += ["≈: the seeds' range overlaps that of the best; the order of these is not settled."]
        if any(len(self.of(row)) == 1 for row in self.rows):
            notes += ["A row of one seed has no spread: how far another seed would lie from it is not known."]
        notes += [f"{run.name}: {run.trouble}." for run in self.runs if run.trouble]
        return notes + [f"{run.name} is left out, it has no numbers: {run.trouble}." for run in self.left_out]

    def protocols(self, columns: Sequence[Column] | None = None) -> list[str]:
        """What some columns were measured with, or all; columns of one protocol share a line."""
        lines: dict[str, list[str]] = {}
        for column in self.columns if columns is None else columns:
            if said := words(column.protocol):
                lines.setdefault(said, []).append(column.heading)
        return [f"{', '.join(headings)}: {said}" for said, headings in lines.items()]

    def facts(self, row: str) -> list[str]:
        """What is known of a row beside its numbers, by `FACTS`."""
        protocols = [one.protocol for one in self.of(row)[0].numbers.values()]
        steps = next((one["trained_steps"] for one in protocols if one.get("trained_steps")), None)
        return [str(len(self.of(row))), "?" if steps is None else f"{steps:,}", self.sampler(row)]

    def sampler(self, row: str) -> str:
        """How a row's samples were drawn."""
        for one in self.of(row)[0].numbers.values():
            if name := one.protocol.get("sampler"):
                return f"{one.protocol['steps']} × {name}" if one.protocol.get("steps") else "one step"
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
    collapsed = {run.row for run in runs if run.collapsed}
    columns: list[Column] = []
    for name in chosen:
        heading, better = METRICS.get(name, (f"OOD AUROC, {name.removeprefix(_OOD).replace('_', ' ')}", "high"))
        own: list[Column] = []
        for run in runs:
            if (found := run.numbers.get(name)) is None:
                continue
            place = next((one for one in own if not _difference(one, run, found)), None)
            if place is None:
                if own and not separate:
                    raise ValueError(_refusal(heading, own[0], run, found))
                own.append(place := Column(name, heading, better, collapsed=collapsed))
            place.protocols.append((run, found))
        for column in own:
            _fill(column)
            apart = {key for a in own for run, other in a.protocols for key in _difference(column, run, other)}
            told = [f"{key} {_short(column.protocols[0][1].protocol.get(key))}" for key in sorted(apart)]
            extractor = column.protocol.get("extractor", "inception")
            if name in _OF_FEATURES and extractor != "inception" and "extractor" not in apart:
                told.insert(0, extractor)
            column.heading = f"{heading} ({', '.join(told)})" if told else heading
        columns += own
    return Table(rows, columns, runs, left_out)


def _fill(column: Column) -> None:
    for run, found in column.protocols:
        values = [*column.cells[run.row].values, found.value] if run.row in column.cells else [found.value]
        paper = published(run.method, column.metric, found.protocol)
        column.cells[run.row] = Cell(values, paper, column.metric in SECONDS)


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
    hidden |= {"unit"} if protocol.get("unit") == "s" else set()  # each cell says its own
    return ", ".join([*(said[name] for name in first if name in said), *(said[k] for k in said if k not in hidden)])
