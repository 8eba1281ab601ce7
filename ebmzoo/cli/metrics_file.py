"""The default logger: metrics.csv in the run's folder, continued when a run is resumed in place."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from ebmzoo.files import written_whole


class MetricsFile(Logger):
    """Writes ``<folder>/metrics.csv``: one row per logged step, one column per metric.

    Lightning's own CSV logger deletes the file of a run that is resumed in its folder; this one keeps the
    rows before the step at which logging goes on.

    Args:
        folder: the run's folder.
        flush_every: rows kept in memory before they are written.
    """

    def __init__(self, folder: str | Path, flush_every: int = 50):
        super().__init__()
        self.folder = Path(folder)
        self.flush_every = flush_every
        self._rows: list[dict[str, Any]] = []  # not written yet: a long run's memory does not grow with the file
        self._names: set[str] = set()
        self._columns: list[str] = []
        self._kept_before: int | None = None  # the step at which a resumed run goes on, until the file begins anew
        self._started = False
        self._next = 0

    @property
    def name(self) -> str:
        """Name of the run's group."""
        return self.folder.parent.name

    @property
    def version(self) -> str:
        """Name of the run's folder."""
        return self.folder.name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.folder)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "metrics.csv"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml lies beside the file and holds them all."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Add a row."""
        step = self._next if step is None else step
        self._next = step + 1
        if not self._started:
            self._started, self._kept_before = True, step
            self._names.update(*islice(self._held(), 1))
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self._rows.append({"step": step, **values})
        self._names |= values.keys()
        if len(self._rows) >= self.flush_every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write what is new; the whole file where there are new columns or a resumed run's rows."""
        if not self._rows:
            return
        columns = ["epoch", "step", *sorted(self._names - {"epoch", "step"})]
        self.folder.mkdir(parents=True, exist_ok=True)
        known, self._columns = self._columns, []  # after a write that fails the file is written anew
        if columns == known and self.path.exists():
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(self._rows)
        else:
            with written_whole(self.path) as out:
                file = TextIOWrapper(out, newline="")
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self._held())
                writer.writerows(self._rows)
                file.flush()
                file.detach()  # the block closes it
            self._kept_before = None
        self._columns = columns
        self._rows.clear()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rest."""
        self.save()

    def _held(self) -> Iterator[dict[str, Any]]:
        """The file's rows that stay, one after the other."""
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            # A row without its end was cut short by a kill or a full disk: its step may be another's first digits.
            for row in csv.DictReader(line for line in file if line.endswith("\n")):
                step = row.get("step") or ""
                if step.isdigit() and (self._kept_before is None or int(step) < self._kept_before):
                    yield row
