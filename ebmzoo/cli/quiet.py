"""What other packages say that would only be in the way on the terminal."""

from __future__ import annotations

import logging
import warnings

_CHATTER = (
    "💡",
    "Trainer already configured with model summary",
    "GPU available",
    "TPU available",
    "`weights_only`",
    "\nDetected KeyboardInterrupt",
)


def quieten() -> None:
    """Keep advertisements and other people's deprecations off the terminal."""
    warnings.filterwarnings("ignore", message=r"(?s).*(JSONARGPARSE_DEPRECATION_WARNINGS|was deprecated in v4)")
    warnings.filterwarnings("ignore", message=".*(does not have many workers|isinstance.treespec, LeafSpec)")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # A resumed run may have a folder of its own, and methods log by training iterations, not within epochs.
    warnings.filterwarnings("ignore", message="The dirpath has changed|.*smaller than the logging interval")
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if not any(isinstance(one, _Chatter) for one in logger.filters):
        logger.addFilter(_Chatter())


class _Chatter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_CHATTER)
