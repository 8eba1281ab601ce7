"""What of Lightning's Trainer goes with methods that step their optimisers themselves, and what every run has."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.callbacks.spike import SpikeDetection
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from ebmzoo.callbacks import NetworkEvaluations, Progress, Summary
from ebmzoo.callbacks.last import LastCheckpoint, SaveOnTermination
from ebmzoo.callbacks.monitors import monitored
from ebmzoo.cli.configs import as_list
from ebmzoo.cli.errors import UserError
from ebmzoo.cli.runs import CHECKPOINTS

_EMA = "writes averaged weights that no verb knows as such: take EMA, --trainer.callbacks+=EMA"
_STEPS = "each method steps its optimisers itself"
_CALLBACKS = {
    WeightAveraging: _EMA,  # and EMAWeightAveraging
    StochasticWeightAveraging: _EMA,
    GradientAccumulationScheduler: f"accumulates nothing here, where {_STEPS}: take a larger --data.batch_size",
    BatchSizeFinder: "does not work here: set --data.batch_size; `ebmzoo doctor` says what memory it takes",
    LearningRateFinder: f"finds nothing here, where {_STEPS}: set their lr, as in --model.optimizer.lr 1e-3",
    SpikeDetection: f"sees no loss here, where {_STEPS}: take Guard, --trainer.callbacks+=Guard",
    BackboneFinetuning: "needs a model with a backbone, which no method here is",
}

# The strategies that start processes of their own kind; players' gradients are reduced by us, so their twins that look
# for unused parameters are the same.
_DDP = ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
_TWINS = {f"{name}_find_unused_parameters_{end}" for name in _DDP for end in ("true", "false")}
_STRATEGIES = {"auto", "single_device", *_DDP, *_TWINS}

# What Lightning logs that would only be in the way on the terminal.
_CHATTER = (
    "💡",
    "Trainer already configured with model summary",
    "GPU available",
    "TPU available",
    "`weights_only`",
    "\nDetected KeyboardInterrupt",
)


def check_trainer(trainer: Any) -> None:
    """Refuse, before a training begins, what could not work or would do something else than it says.

    Args:
        trainer: the settings of a Trainer, its callbacks made.

    Raises:
        UserError: what is wrong, and what to take instead.
    """
    for callback in as_list(trainer.callbacks):
        for kind, words in _CALLBACKS.items():
            if isinstance(callback, kind):
                raise UserError(f"{type(callback).__name__} {words}")
    if (norm := trainer.gradient_clip_val) is not None or trainer.gradient_clip_algorithm is not None:
        raise UserError(f"trainer clips no gradients here, where {_STEPS}: --model.grad_clip {norm or 1.0} clips norms")
    if trainer.accumulate_grad_batches != 1:
        raise UserError(f"trainer accumulates no gradients here, where {_STEPS}: take a larger --data.batch_size")
    if trainer.barebones:
        raise UserError("trainer.barebones forbids the checkpoints and figures that a run is here for: leave it out")
    if trainer.profiler == "xla":
        raise UserError("trainer.profiler xla is for TPUs: there are simple, advanced, pytorch")
    for name in ("val_check_interval", "check_val_every_n_epoch"):
        if getattr(trainer, name) == 0:
            raise UserError(f"trainer.{name} must be positive: --trainer.limit_val_batches 0 leaves validation out")


def _check_strategy(strategy: Any) -> None:
    theirs = isinstance(strategy, Strategy) and type(strategy).__module__.startswith("lightning.")
    if theirs and not isinstance(strategy, DDPStrategy | SingleDeviceStrategy):
        name = type(strategy).__name__
    elif isinstance(strategy, str) and strategy.lower() not in _STRATEGIES:
        name = strategy
    else:
        return
    raise UserError(
        f"trainer.strategy {name} is not one of those that work here, where every process has whole networks: auto, "
        f"single_device, {', '.join(_DDP)}"
    )


def for_processes(trainer: Any) -> dict[str, Any]:
    """What training with several processes needs, where the config leaves it to us.

    Args:
        trainer: the settings of a Trainer, its strategy made if it is not a name.

    Raises:
        UserError: the strategy is none that works here.
    """
    _check_strategy(trainer.strategy)
    found: dict[str, Any] = {}
    several = str(trainer.devices) != "1" or trainer.num_nodes > 1
    auto = str(trainer.strategy).lower() == "auto"
    if auto and several and (torch.cuda.is_available() or str(trainer.devices).isdigit()):
        found["strategy"] = "ddp"
    if several and torch.cuda.is_available() and trainer.accelerator != "cpu":
        found["sync_batchnorm"] = True  # there is none for CPUs
    return found


def with_ours(trainer: Any, verb: str, folder: Path, record: Callback) -> list[Callback]:
    """The callbacks of a config, and those that every run has beside them.

    Args:
        trainer: the Trainer's settings.
        verb: what is done.
        folder: the run's.
        record: keeps the run's config in its checkpoints.
    """
    callbacks: list[Callback] = [monitored(one) for one in as_list(trainer.callbacks)]
    added: list[Callback] = [record]
    if verb == "predict":
        from ebmzoo.cli.predictions import Predictions

        added.append(Predictions(folder))

    def lacks(kind: type) -> bool:
        return not any(isinstance(one, kind) for one in callbacks)

    if trainer.enable_progress_bar is not False and lacks(ProgressBar):
        added.append(Progress())
    if trainer.enable_model_summary is not False and lacks(ModelSummary) and verb == "fit":
        added.append(Summary())
    if trainer.enable_checkpointing is not False and lacks(ModelCheckpoint):
        added.append(ModelCheckpoint(save_top_k=0))  # or Lightning would add one that keeps every epoch's
    if trainer.enable_checkpointing is not False and verb == "fit":
        last = LastCheckpoint(folder.resolve() / CHECKPOINTS / "last.ckpt")
        added += [last, SaveOnTermination(last)]
    for callback in [*callbacks, *added]:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str((folder / CHECKPOINTS).resolve())
    if verb == "fit" and lacks(NetworkEvaluations):
        callbacks = [NetworkEvaluations(), *callbacks]
    return [*callbacks, *added]


def filter_messages() -> None:
    """Keep advertisements and other people's deprecations off the terminal."""
    warnings.filterwarnings("ignore", message=r"(?s).*(JSONARGPARSE_DEPRECATION_WARNINGS|was deprecated in v4)")
    warnings.filterwarnings("ignore", message=".*(does not have many workers|isinstance.treespec, LeafSpec)")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # A resumed run may have a folder of its own, and methods log by training iterations, not within epochs.
    warnings.filterwarnings("ignore", message="The dirpath has changed|.*smaller than the logging interval")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_CHATTER)
