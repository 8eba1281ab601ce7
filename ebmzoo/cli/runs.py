"""One folder per run: where it lies, what is written first, how nothing stays of one that never began, and the end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ebmzoo.callbacks.last import Terminated
from ebmzoo.cli import wandb_run
from ebmzoo.cli.metrics_file import MetricsFile

ROOT = Path("runs")
CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
_claimed: dict[Path, int] = {}  # folders that this process trains in, and the handles that hold them


def run_name(configs: list[str], checkpoint: str | None, model: str, data: str) -> str:
    """Name of a run's group: its config file's, that of the run it goes on from, or method and data.

    Example:
        >>> run_name(["configs/mine.yaml"], None, "ECVAE", "Digits")
        'mine'
        >>> run_name(["runs/mine/version_3/config.yaml"], None, "ECVAE", "Digits")
        'mine'
        >>> run_name([], "runs/mine/version_3/checkpoints/last.ckpt", "ECVAE", "Digits")
        'mine'
        >>> run_name([], None, "ECVAE", "Digits")
        'ecvae_digits'
    """
    if configs and Path(configs[0]).name != CONFIG:
        return Path(configs[0]).stem
    if configs or checkpoint:
        folder = Path(configs[0]).resolve().parent if configs else folder_of(Path(str(checkpoint)).resolve())
        return folder.parent.name if folder.name.startswith("version_") else folder.name
    return f"{model}_{data}".lower()


def folder_of(checkpoint: str | Path) -> Path:
    """The folder of the run that wrote a checkpoint: the nearest above it that holds a config and checkpoints.

    Example:
        >>> folder_of("runs/vae_digits/version_0/checkpoints/last.ckpt").as_posix()
        'runs/vae_digits/version_0'
        >>> folder_of("shared/vae.ckpt").as_posix()
        'shared'
    """
    parent = Path(checkpoint).parent
    for folder in (parent, *parent.parents):
        if (folder / CONFIG).is_file() and (folder / CHECKPOINTS).is_dir():
            return folder
    return parent.parent if parent.name == CHECKPOINTS else parent


class Run:
    """The folder of one command.

    Args:
        folder: where it is.
        fresh: whether this command made it, so that it may take it away again.
    """

    def __init__(self, folder: Path, fresh: bool = False):
        self.folder, self.fresh = folder, fresh

    @classmethod
    def new(cls, name: str) -> Run:
        """Make ``runs/<name>/version_N``, N being the first number that nobody has taken.

        Raises:
            ValueError: the folder cannot be written.
        """
        group = ROOT / name
        if not _first_process():
            # Only the first process writes; what the others write to is broadcast by Lightning.
            return cls(group)
        number = 0
        while True:
            try:
                (group / f"version_{number}").mkdir(parents=True)
                return cls(group / f"version_{number}", fresh=True)
            except FileExistsError as error:
                if not group.is_dir():
                    raise _unwritable(group, error) from error
                number += 1
            except OSError as error:
                raise _unwritable(group, error) from error

    @classmethod
    def newest(cls, name: str) -> Run | None:
        """The last ``runs/<name>/version_N``, if there is one."""
        found = [path for path in (ROOT / name).glob("version_*") if path.name.removeprefix("version_").isdigit()]
        newest = max(found, key=lambda path: int(path.name.removeprefix("version_")), default=None)
        return None if newest is None else cls(newest)

    @classmethod
    def at(cls, folder: str | Path, resumed: str | Path | None = None, empty: bool = False) -> Run:
        """Use a folder that the user named; a training run's must be empty, or the one that it goes on from.

        Raises:
            ValueError: the folder cannot be written, or holds another run.
        """
        folder = Path(folder)
        fresh = not folder.exists()
        taken = empty and folder.is_dir() and any(folder.iterdir())
        if taken and (resumed is None or folder.resolve() not in Path(resumed).resolve().parents):
            raise ValueError(
                f"{folder} is not empty: to go on with the run in it give --ckpt_path "
                f"{folder / CHECKPOINTS / 'last.ckpt'}, or choose another --run_dir"
            )
        if _first_process():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / f".probe{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise _unwritable(folder, error) from error
        return cls(folder, fresh)

    def claim(self) -> None:
        """Hold the folder for a training, and take away what killed ones left half written, until `release`.

        Two trainings in one folder would write over each other's checkpoints, and each would take the other's
        half-written ones away. The system lets go of a folder whose process has ended, however it did.

        Raises:
            ValueError: another process of this machine trains in it.
        """
        folder = self.folder.resolve()
        if folder in _claimed or not _first_process() or not folder.is_dir():
            return
        if os.name == "posix":
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(handle)
                raise ValueError(
                    f"another process trains in {self.folder}: wait for its end, or choose another --run_dir"
                ) from error
            except OSError:  # a file system without locks
                os.close(handle)
            else:
                _claimed[folder] = handle
        for half_written in (folder / CHECKPOINTS).glob(".*.part"):
            half_written.unlink(missing_ok=True)

    def release(self) -> None:
        """Let go of the folder, if this process holds it."""
        if (handle := _claimed.pop(self.folder.resolve(), None)) is not None:
            os.close(handle)

    def discard_if_unused(self) -> None:
        """Take away a folder of this command in which nothing was written but the config."""
        if not self.fresh or not _first_process() or not self.folder.is_dir():
            return
        if all(path.name == CONFIG for path in self.folder.rglob("*") if not path.is_dir()):
            shutil.rmtree(self.folder)
            if self.folder.parent.parent == ROOT and not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()
                if not any(ROOT.iterdir()):
                    ROOT.rmdir()


class RunRecord(Callback):
    """Keeps a run's config where it is needed: in its folder, in its checkpoints, and with its loggers.

    Args:
        folder: the run's folder.
        config: the whole config of the command, plain data.
        wandb_id: of the W&B run that the command goes on in, if any.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], wandb_id: str | None = None):
        self.folder, self.config, self.wandb_id = folder, dict(config), wandb_id
        self._saved = False

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Write config.yaml when training begins, and tell the loggers of a run that begins what it is."""
        for part in (pl_module, trainer.datamodule):
            part._log_hyperparams = False  # they stand in the config: Lightning would log them a second time
        if not trainer.is_global_zero:
            return
        if stage == "fit":
            Run(self.folder).claim()
            (self.folder / CONFIG).write_text(yaml.safe_dump(self.config, sort_keys=False, width=110))
        elif self.wandb_id is not None:
            return  # the run has its training's config
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                logger.log_hyperparams(self.config)
        if stage == "fit":
            wandb_run.summarise(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the folder."""
        Run(self.folder).release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the folder."""
        Run(self.folder).release()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the config into the checkpoint, which is then enough for every verb, and the W&B run's id."""
        about = checkpoint.setdefault("ebmzoo", {})
        about["config"] = self.config
        if (run_id := wandb_run.id_of(trainer)) is not None:
            about["wandb_id"] = run_id
        self._saved = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put metrics.csv on the disk once there is a checkpoint: a run that is killed goes on from both."""
        if self._saved:
            self._saved = False
            for logger in trainer.loggers:
                if isinstance(logger, MetricsFile):
                    logger.save()


def say(line: str) -> None:
    """Print a line, once for all processes."""
    if _first_process():
        print(line, flush=True)


def say_what_next(trainer: Trainer, folder: Path, trust: str = "") -> None:
    """After a training: its last figures, the best that was kept, and what may be done with it.

    Args:
        trainer: that has ended.
        folder: the run's.
        trust: options that other verbs must be given to trust the run's classes.
    """
    last = folder / CHECKPOINTS / "last.ckpt"
    say(f"run folder: {folder}")
    for saver in trainer.checkpoint_callbacks:
        if isinstance(saver, ModelCheckpoint) and saver.monitor and saver.best_model_score is not None:
            name = os.path.relpath(saver.best_model_path)
            say(f"best {saver.monitor}: {float(saver.best_model_score):.4g}, in {name}")
    if not last.is_file():
        return
    say(f"next: ebmzoo test --ckpt_path {last}{trust}")
    say(f"      ebmzoo sample --ckpt_path {last}{trust} --n 64 --out samples.png")
    say(f"      ebmzoo compare {folder} OTHER_RUN ...          (of runs that were tested)")


def say_ending(error: BaseException, folder: Path, trust: str = "") -> None:
    """Say what a signal left, and give the exit the code that shells know the signal by; nothing for other errors.

    Args:
        error: what a run ended by.
        folder: the run's.
        trust: the options of ``--trust``, which going on needs again.
    """
    if isinstance(error, Terminated):
        last = folder / CHECKPOINTS / "last.ckpt"
        say(f"{error}\ngo on with: ebmzoo fit --ckpt_path {last} --run_dir {folder}{trust}")
    elif isinstance(error, SIGTERMException):
        # Lightning leaves it without a code, which would tell a shell that all went well.
        error.code = 128 + signal.SIGTERM
        say("terminated")
    elif isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        error.code = 128 + signal.SIGINT
        say("interrupted")


def _first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _unwritable(folder: Path, error: OSError) -> ValueError:
    file = next((part for part in (folder, *folder.parents) if part.is_file()), None)
    why = f"{file} is a file" if file else error.strerror or str(error)
    return ValueError(f"cannot write to {folder}: {why}; choose another place with --run_dir")
