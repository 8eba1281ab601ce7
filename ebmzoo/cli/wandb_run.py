"""What a Weights & Biases run of ours is: beside its folder, named after it, the same one after a resume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lightning import Trainer


def is_wandb(logger: Any) -> bool:
    """Whether a logger's config is one of W&B."""
    return str(getattr(logger, "class_path", "")).endswith(".WandbLogger")


def place(logger: Any, folder: Path, run_id: str | None, config: Any) -> None:
    """Put the W&B run's files into the run's folder, name it after it and group it, where the config does not.

    Args:
        logger: its config, changed in place.
        folder: the run's.
        run_id: of the W&B run that a checkpoint belongs to, which then goes on.
        config: the command's; the method's class is the run's group, the data module's a tag.
    """
    init_args = logger.init_args
    if init_args.save_dir in (None, "."):
        # Absolute: W&B's own process may have been started in another folder.
        init_args.save_dir = str(folder.resolve())
    if init_args.name is None:
        init_args.name = f"{folder.parent.name}/{folder.name}"
    if init_args.project in (None, "lightning_logs"):
        init_args.project = "ebmzoo"
    if init_args.id is None and init_args.version is None:
        init_args.id = run_id
    # What WandbLogger does not know it hands on to wandb.init.
    method, data = (config[part].class_path.rpartition(".")[2] for part in ("model", "data"))
    logger.dict_kwargs = {"group": method, "tags": [data], **dict(getattr(logger, "dict_kwargs", None) or {})}


def id_of(trainer: Trainer) -> str | None:
    """The id of a trainer's W&B run, if it has one."""
    return next((logger.version for logger in _loggers(trainer) if isinstance(logger.version, str)), None)


def finish(trainer: Trainer, exit_code: int) -> None:
    """End the W&B run of this command, so that the next one in this process begins its own."""
    if "wandb" not in sys.modules or not trainer.is_global_zero:
        return
    for logger in _loggers(trainer):
        if sys.modules["wandb"].run is not None:
            logger.experiment.finish(exit_code=exit_code)


def _loggers(trainer: Trainer) -> list[Any]:
    if "wandb" not in sys.modules:
        return []
    from lightning.pytorch.loggers import WandbLogger

    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
