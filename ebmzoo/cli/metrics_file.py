"""The default logger: metrics.csv in the run's folder, continued when a run is resumed in place."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
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
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        self._written = 0
        self._started = False

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
        step = len(self._rows) if step is None else step
        if not self._started:
            self._rows = self._rows_before(step)
            self._started = True
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()}
        self._rows.append({"step": step, **values})
        if len(self._rows) - self._written >= self.flush_every:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write what is new; the whole file where there are new columns or a resumed run's rows."""
        if len(self._rows) == self._written:
            return
        columns = ["epoch", "step", *sorted({name for row in self._rows for name in row} - {"epoch", "step"})]
        self.folder.mkdir(parents=True, exist_ok=True)
        if columns == self._columns and self.path.exists():
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(self._rows[self._written :])
        else:
            whole = StringIO(newline="")
            writer = csv.DictWriter(whole, columns)
            writer.writeheader()
            writer.writerows(self._rows)
            with written_whole(self.path) as out:
                out.write(whole.getvalue().encode())
        self._columns, self._written = columns, len(self._rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rest."""
        self.save()

    def _rows_before(self, step: int) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            # A row without its end was cut short by a kill or a full disk: its step may be another's first digits.
            rows = csv.DictReader(line for line in file if line.endswith("\n"))
            return [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < step]
