"""When a model is measured: a streaming FID in validation, the figures at test."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ebmzoo import metrics
from ebmzoo.callbacks.eval_mode import eval_mode, log_picture, logged_step, run_folder
from ebmzoo.figures import PARTS, Figure, Figures
from ebmzoo.figures.base import Array, Left, Look, Number, Picture, reason_against
from ebmzoo.figures.look import batches_of_samples
from ebmzoo.files import written_whole
from ebmzoo.images import save_png
from ebmzoo.methods.capabilities import Samples
from ebmzoo.metrics import Results, check_extractor, config_hash


class Evaluate(Callback):
    """Measures the model: its FID while it trains, and at test everything it can do and its data allow.

    In validation of images: a streaming FID of ``n_val`` samples against the training split, logged under a
    name that carries the number, ``val/fid_2k`` or ``val/fid_500``, for ModelCheckpoint to monitor. A training that
    ``max_steps`` ends has a last validation there, whatever the interval.

    At test the `ebmzoo.figures`, into ``results.json``, each number with its protocol, as a table on the terminal, and
    with pictures beside it (`docs/metrics.md` says what each number means). What a method cannot do, or a user's
    mistake (missing Inception weights, a missing set) prevents, gives one line; the rest still runs. Samples are
    seeded, and the same under any number of processes. Averaged weights are used if there are any, training is not
    disturbed by validation, and only the first process writes.

    Args:
        extractor: the feature network: "digits", "cifar10", "inception", or a file of ``ebmzoo extractor``; None leaves
            out what needs one.
        n_val: samples in validation; 0 leaves the streaming FID out.
        every_n_steps: training steps between streaming FIDs, measured at the first validation after so many, and at
            the end; None measures at every validation.
        n_test: samples at test, which all figures of samples share; the papers' 50,000 (30,000 for CelebA-HQ).
        batch_size: samples drawn, and examples evaluated, at once.
        seed: of the samples' noise.
        figures: what is measured at test: those of the package, each with its settings, or a list of figures.
        only: the parts of them that are made; None makes all.
        inception_path: torch-fidelity's Inception weights, where they are not in torch's hub folder.
        out: folder of ``results.json``; by default the run's.
        cache: folder for the reference's features; see `ebmzoo.metrics.fidelity.fidelity`.

    Raises:
        ValueError: if a number is out of range or a name unknown.

    Example:
        >>> from ebmzoo.figures import Cost, Figures, Neighbours
        >>> Evaluate(extractor="digits", n_val=500, figures=Figures(neighbours=Neighbours(crop=40), ood=None)).val_name
        'val/fid_500'
        >>> [one.name for one in Evaluate(figures=[Cost()]).figures]
        ['cost of sampling']
    """

    def __init__(
        self,
        extractor: str | None = "digits",
        n_val: int = 2000,
        every_n_steps: int | None = None,
        n_test: int = 5000,
        batch_size: int = 500,
        seed: int = 0,
        figures: Figures | Sequence[Figure] = Figures(),  # noqa: B008 - frozen
        only: Sequence[str] | None = None,
        inception_path: str | Path | None = None,
        out: str | Path | None = None,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()
        if n_test < 1 or n_val < 0 or n_val == 1 or batch_size < 1:
            raise ValueError(
                "Evaluate needs n_test >= 1, batch_size >= 1, and n_val >= 2 (a covariance needs two; 0 "
                f"leaves validation out), not {n_test}, {batch_size} and {n_val}"
            )
        if (every_n_steps is not None and every_n_steps < 1) or seed < 0:
            raise ValueError(f"Evaluate needs every_n_steps >= 1 and seed >= 0, not {every_n_steps} and {seed}")
        if extractor is not None:
            check_extractor(extractor)
        if unknown := sorted(set(only or ()) - {*PARTS, *(one.part for one in figures)}):
            raise ValueError(f"no parts {unknown} of an evaluation: choose from {', '.join(PARTS)}")
        self.extractor, self.inception_path, self.cache = extractor, inception_path, cache
        self.n_val, self.every_n_steps = n_val, every_n_steps
        self.n_test, self.batch_size, self.seed = n_test, batch_size, seed
        self.figures, self.only, self.out = figures, only, out
        self.trained_steps: int | None = None  # of the weights, where they came from a checkpoint
        self.results: Results | None = None
        self._streaming: metrics.StreamingFID | None = None
        self._last: int | None = None  # step of the last streaming FID

    @property
    def val_name(self) -> str:
        """The name of the streaming FID."""
        return fid_name(self.n_val)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fail before the work begins: on missing weights in training, on a broken results file at test."""
        if stage in ("fit", "validate") and self.measures_fid(trainer, pl_module):
            assert self.extractor is not None
            try:
                network = metrics.find_extractor(self.extractor, self.inception_path)
                network.check(_data_of(trainer).image_shape)
            except FileNotFoundError as error:
                without = "n_val: 0 of Evaluate, and no ModelCheckpoint that goes by it"
                raise FileNotFoundError(f"{error}; {without}, trains without them") from error
        if stage == "test":
            path = self._folder(trainer) / "results.json"
            self.results = Results(path) if trainer.is_global_zero else None

    # -- validation -------------------------------------------------------------------------------------

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """See to it that the end is validated."""
        if _at_end(trainer):
            trainer.should_stop = True  # what the loop validates before it leaves; max_steps ends it anyway

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the streaming FID, if it is time for it."""
        if trainer.sanity_checking or not self.measures_fid(trainer, pl_module) or not self._due(trainer):
            return
        self._last = trainer.global_step
        with eval_mode(trainer, pl_module):
            value = self._streaming_fid(trainer, pl_module)
        pl_module.log(self.val_name, value)

    def measures_fid(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether validations have a streaming FID, under `val_name`."""
        data = _data_of(trainer)
        return bool(
            self.n_val
            and self.extractor is not None
            and data is not None
            and data.kind == "images"
            and isinstance(pl_module, Samples)
        )

    def _due(self, trainer: Trainer) -> bool:
        if self._last is None or self.every_n_steps is None or trainer.state.fn != "fit" or _at_end(trainer):
            return True
        return trainer.global_step - self._last >= self.every_n_steps

    def _streaming_fid(self, trainer: Trainer, pl_module: Any) -> float:
        rank, world = trainer.global_rank, trainer.world_size
        if self._streaming is None:
            assert self.extractor is not None
            streaming = metrics.StreamingFID(self.extractor, self.inception_path, pl_module.device)
            reference = _data_of(trainer).reference("train")
            for rows in torch.arange(rank, len(reference), world).split(self.batch_size):
                streaming.update(torch.stack([reference[i] for i in rows.tolist()]), real=True)
            self._streaming = streaming
        self._streaming.reset()
        broken = torch.zeros((), device=pl_module.device)
        for samples in batches_of_samples(
            pl_module, self.n_val, self.batch_size, self.seed, pl_module.device, rank, world
        ):
            if bool(samples.isnan().any()):
                broken.fill_(1)
            else:
                self._streaming.update(samples, real=False)
        # Decided together: a process that left alone would let the others wait for it.
        if trainer.strategy.reduce(broken, reduce_op="sum") > 0:
            return float("nan")
        return self._streaming.compute()

    @property
    def state_key(self) -> str:
        """Two of them in one trainer, such as one of 2,000 samples beside one of 5,000, keep their own states."""
        return self._generate_state_key(n_val=self.n_val, n_test=self.n_test)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = state_dict["last"]

    # -- test -------------------------------------------------------------------------------------------

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the figures."""
        from ebmzoo.callbacks.terminal import show

        began = time.monotonic()
        figures = list(self.figures)
        if self.only is not None:
            figures = [one for part in self.only for one in figures if one.part == part]
        skipped: list[str] = []
        ends: list[int] = []  # how many numbers there were after each figure
        drawn: dict[type, dict[str, Tensor]] = {Picture: {}, Array: {}}
        with eval_mode(trainer, pl_module) as ema:
            look = self._look(trainer, pl_module, ema)
            if look.data is None and any(one.takes != "model" for one in figures):
                skipped.append("all that compares the model with data: the trainer has no data module")
            elif any(one.takes == "samples" for one in figures):
                try:
                    look.draw_samples()
                except ValueError as error:
                    skipped.append(f"all that needs samples: {error}")
            sampled = time.monotonic() - began
            if self.results is None:
                return  # not the first process
            for figure in figures:
                if (reason := reason_against(figure, look)) is not None:
                    skipped += [f"{figure.name}: {reason}"] if reason else []
                    continue
                print(f"measuring: {figure.name}", flush=True)  # it may take minutes
                try:
                    for found in figure(look):
                        if isinstance(found, Number):
                            self.results.add(*found)
                        elif isinstance(found, Left):
                            skipped.append(f"{found.name}: {found.reason}")
                        else:
                            drawn[type(found)][found.name] = found[1]
                except (ValueError, FileNotFoundError) as error:
                    skipped.append(f"{figure.name}: {error}")
                ends.append(len(self.results.added))
        about = {
            "method": type(pl_module).__name__,
            "weights": "averaged (EMA)" if ema else "raw",
            "skipped": skipped,
            "sampling_seconds": round(sampled, 2),
            "seconds": round(time.monotonic() - began, 2),
        }
        self.results.note(**about)
        path = self.results.write()
        step = look.own["trained_steps"] or 0
        for name, picture in drawn[Picture].items():
            save_png(picture, look.folder / f"{name}.png")
            log_picture(trainer, name, picture, step)
        _keep(drawn[Array], look.folder / "arrays.npz")
        show(self.results, about, look.sampler, ends, path)
        for logger in trainer.loggers:
            logged = {f"test/{entry.name}": entry.value for entry in self.results.added if entry.value is not None}
            logger.log_metrics(logged, step=logged_step(step))

    def _look(self, trainer: Trainer, pl_module: LightningModule, ema: bool) -> Look:
        steps = self.trained_steps or trainer.global_step or None
        weights = {"ema": ema, "statistics": getattr(pl_module, "statistics", None)}
        own = {**weights, "config_hash": _config_hash(trainer, pl_module), "trained_steps": steps}
        features, where = (self.extractor, self.inception_path, self.cache), (trainer.global_rank, trainer.world_size)
        drawn = self.n_test, self.batch_size, self.seed
        return Look(pl_module, _data_of(trainer), *drawn, *features, self._folder(trainer), own, *where)

    def _folder(self, trainer: Trainer) -> Path:
        return run_folder(trainer) if self.out is None else Path(self.out)


def _keep(arrays: Mapping[str, Tensor], path: Path) -> None:
    """Write arrays into a file, beside those of other names that it holds; one that cannot be read is replaced."""
    if not arrays:
        return
    held: dict[str, Any] = {}
    if path.is_file():
        with suppress(Exception), np.load(path) as file:  # a damaged file can fail anywhere in the readers
            held = dict(file)
    with written_whole(path) as file:
        np.savez_compressed(file, **(held | {name: values.float().numpy() for name, values in arrays.items()}))


def fid_name(n: int) -> str:
    """The name of a streaming FID of n samples.

    Example:
        >>> fid_name(2000), fid_name(2500)
        ('val/fid_2k', 'val/fid_2500')
    """
    return f"val/fid_{n // 1000}k" if n >= 1000 and n % 1000 == 0 else f"val/fid_{n}"


def _at_end(trainer: Trainer) -> bool:
    return 0 < trainer.max_steps <= trainer.global_step


def _data_of(trainer: Trainer) -> Any:
    """The data module, if it has a reference; a plain loader has none."""
    data = getattr(trainer, "datamodule", None)
    return data if hasattr(data, "reference") else None


def _config_hash(trainer: Trainer, pl_module: LightningModule) -> str:
    """Of the whole config of a command, where a callback keeps it, else of the model's own settings."""
    callbacks: list[Any] = list(getattr(trainer, "callbacks", []))
    configs = [config for one in callbacks if isinstance(config := getattr(one, "config", None), Mapping)]
    if configs:
        return config_hash(configs[0])
    return config_hash({"class": type(pl_module).__qualname__, **dict(pl_module.hparams)})
