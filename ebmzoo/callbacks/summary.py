"""The networks of a method, before it trains."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.rank_zero import rank_zero_only

__all__ = ["Summary"]


class Summary(ModelSummary):
    """Name, class and parameters of each network, in a line each.

    Lightning's own also has a column of FLOPs, which is 0 wherever no example input is stored: `ebmzoo doctor` counts
    what an iteration costs.

    Args:
        max_depth: of the networks' parts that are listed.

    Example:
        >>> Summary.summarize([("Name", ["encoder"]), ("Type", ["MLP"]), ("FLOPs", ["0"])], 20_000, 20_000, 0.1, {}, 0)
        encoder  MLP
        20,000 parameters
    """

    def __init__(self, max_depth: int = 1) -> None:
        super().__init__(max_depth)

    @staticmethod
    @rank_zero_only
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Print the table."""
        shown = [[str(cell) for cell in cells] for title, cells in summary_data if title in ("Name", "Type", "Params")]
        widths = [max(map(len, cells), default=0) for cells in shown]
        for row in zip(*shown, strict=True):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            print("  ".join(cells).rstrip())
        frozen = total_parameters - trainable_parameters
        print(f"{total_parameters:,} parameters" + (f", {frozen:,} of them frozen" if frozen else ""), flush=True)
