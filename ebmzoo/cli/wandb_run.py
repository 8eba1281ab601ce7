"""What a Weights & Biases run of ours is: beside its folder, named after it, the same one after a resume."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Trainer

from ebmzoo.callbacks import Evaluate
from ebmzoo.cli.configs import as_list

AXIS = "trainer/global_step"  # of all that Lightning logs


def known(verb: str, checkpoint: Mapping[str, Any] | None) -> str | None:
    """The id of the W&B run that a command goes on in: that of its checkpoint.

    A validation never goes on: W&B would put its figures at iteration 0 of the run's curves.
    """
    return (checkpoint or {}).get("ebmzoo", {}).get("wandb_id") if verb in ("fit", "test") else None


def place(config: Any, verb: str, folder: Path, run_id: str | None) -> None:
    """Put the W&B run's files into the run's folder, name it after it and group it, where the config does not.

    Args:
        config: the command's; its loggers of W&B are changed in place. The method's class is the run's group; the data
            module's and what the evaluation goes by are tags.
        verb: the command's: the job type of a run that it begins. One that it goes on in keeps its own, "fit".
        folder: the run's.
        run_id: of the W&B run that the command goes on in, see `known`.
    """
    for logger in as_list(config.trainer.logger):
        if not str(getattr(logger, "class_path", "")).endswith(".WandbLogger"):
            continue
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
        more = dict(getattr(logger, "dict_kwargs", None) or {})
        ours = {
            "group": _class(config.model),
            "tags": [_class(config.data), *_protocol(config)],
            "job_type": verb if run_id is None else "fit",
        }
        for name, value in ours.items():
            if init_args.get(name) is None:
                more.setdefault(name, value)
        logger.dict_kwargs = more


def _class(part: Any) -> str:
    return str(part.class_path).rpartition(".")[2]


def _protocol(config: Any) -> list[str]:
    """What has to be the same for two runs' figures to be compared, as far as the config says it."""
    callbacks = {_class(one): one.get("init_args") for one in as_list(config.trainer.callbacks)}
    raw = "EMA" not in callbacks or config.get("no_ema")
    tags = ["raw weights" if raw else "averaged weights"]
    if (evaluate := callbacks.get("Evaluate")) is not None:
        tags += [f"n {evaluate.n_test}", f"{evaluate.extractor or 'no'} features"]
    return tags


def summarise(trainer: Trainer) -> None:
    """Make the smallest FID of a training its summary, where W&B would take the last.

    All keys have Lightning's axis, the training iteration.
    """
    names = {one.val_name for one in trainer.callbacks if isinstance(one, Evaluate)}  # type: ignore[attr-defined]
    for logger in _loggers(trainer):
        for name in sorted(names):
            logger.experiment.define_metric(name, step_metric=AXIS, step_sync=True, summary="min")


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
