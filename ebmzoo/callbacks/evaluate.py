"""When a model is measured: a streaming FID in validation, the whole evaluation at test."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from ebmzoo.callbacks.evaluation import PARTS, Evaluation, Plan
from ebmzoo.callbacks.looking import batches_of_samples, looking_at, run_folder, spooled
from ebmzoo.callbacks.pictures import log_picture, place_of
from ebmzoo.callbacks.terminal import show
from ebmzoo.files import written_whole
from ebmzoo.images import save_png, to_uint8
from ebmzoo.methods.capabilities import Samples
from ebmzoo.metrics import METRICS, Results, StreamingFID, config_hash, find_extractor
from ebmzoo.metrics.ood import check_made

__all__ = ["Evaluate", "fid_name"]

PartName = Literal["generation", "memorisation", "likelihood", "reconstruction", "ood", "chains"]
Made = Literal["interpolations", "uniform noise", "constants"]
_FOUND_OUT = ("ema", "config_hash", "folder")
_PLANNED = [field.name for field in fields(Plan) if field.name not in _FOUND_OUT]


class Evaluate(Callback):
    """Measures the model: its FID while it trains, and at test everything it can do and its data allow.

    In validation of images: a streaming FID of ``n_val`` samples against the training split, logged under a
    name that carries the number, ``val/fid_2k`` or ``val/fid_500``, for ModelCheckpoint to monitor. A training that
    ``max_steps`` ends has a last validation there, whatever the interval.

    At test, into ``results.json``, each number with its protocol, as a table on the terminal, and with pictures beside
    it (`docs/metrics.md` says what each number means), by parts that ``only`` chooses from:

    * generation: FID, KID, IS, precision and recall against the training split, and the same FID of 1,000 samples; at
      the chain's other end too; with the digit extractor what the classifier says of the samples; the modes of stacked
      digits; of points with a known density their log-density and covered modes; network evaluations and seconds;
    * memorisation: distances to the nearest training images, in pixels and in features, beside those of test images;
    * likelihood: ELBO and importance-weighted bounds; in the plane the exact one, log Z by a lattice; log Z by annealed
      importance sampling, where ``ais_temperatures`` asks for it;
    * reconstruction: squared error, PSNR and SSIM of the test split, along the z chain where there is one;
    * ood: the score of the test split against that of other sets, and against that of the training split;
    * chains: energies of data and samples, in the plane the landscape (in ``arrays.npz``, for the report); the chains'
      energy, displacement, drift against noise, acceptance, R-hat and effective sample size; with
      ``long_run`` what becomes of them at 10 and 100 times their training length.

    What a method cannot do, or a user's mistake (missing Inception weights, a missing set) prevents, gives one line;
    the rest still runs. Samples are seeded, and the same under any number of processes. Averaged weights are used if
    there are any, training is not disturbed by validation, and only the first process writes.

    Args:
        extractor: the feature network, "digits" or "inception"; None leaves out what needs one.
        n_val: samples in validation; 0 leaves the streaming FID out.
        every_n_steps: training steps between streaming FIDs, measured at the first validation after so many, and at
            the end; None measures at every validation.
        n_test: samples at test; the papers' 50,000 (30,000 for CelebA-HQ).
        batch_size: samples drawn, and examples evaluated, at once.
        metrics: some of "fid", "kid", "isc", "prc".
        inception_path: torch-fidelity's Inception weights, where they are not in torch's hub folder.
        seed: of the samples' noise.
        only: the parts that are done, of those above; None does all.
        ood: sets that the score is held against: data modules, or "interpolations" (midpoints of pairs), "uniform
            noise" and "constants"; None takes what the data module names, and these three.
        n_scored: at most so many examples of each set are scored, and bounded with more than one draw.
        crop: px of the centre of images that neighbours are compared by; None compares whole images.
        n_timed: samples that the sampling time is for; the papers: 50 (VAEBM), 64 (Denoising-EBM).
        iw_draws: draws of the importance-weighted bounds.
        ais_temperatures: of annealed importance sampling; 0 leaves it out.
        long_run: run chains of 1, 10 and 100 times the training length.
        save_samples: write the images that are measured into ``samples/``, a PNG each, for other tools to measure.
        out: folder of ``results.json``; by default the run's.
        cache: folder for the reference's features; see `ebmzoo.metrics.fidelity.fidelity`.

    Raises:
        ValueError: if a number is out of range or a name unknown.

    Example:
        >>> Evaluate(extractor="digits", n_val=500).val_name
        'val/fid_500'
    """

    def __init__(
        self,
        extractor: Literal["digits", "inception"] | None = "digits",
        n_val: int = 2000,
        every_n_steps: int | None = None,
        n_test: int = 5000,
        batch_size: int = 500,
        metrics: Sequence[str] = METRICS,
        inception_path: str | Path | None = None,
        seed: int = 0,
        out: str | Path | None = None,
        cache: str | Path | None = None,
        only: Sequence[PartName] | None = None,
        ood: Sequence[Made | LightningDataModule] | None = None,
        n_scored: int = 1000,
        crop: int | None = None,
        n_timed: int = 50,
        iw_draws: Sequence[int] = (100,),
        ais_temperatures: int = 0,
        long_run: bool = False,
        save_samples: bool = False,
    ) -> None:
        super().__init__()
        if n_test < 1 or n_val < 0 or n_val == 1 or batch_size < 1:
            raise ValueError(
                "Evaluate needs n_test >= 1, batch_size >= 1, and n_val >= 2 (a covariance needs two; 0 "
                f"leaves validation out), not {n_test}, {batch_size} and {n_val}"
            )
        if (every_n_steps is not None and every_n_steps < 1) or seed < 0:
            raise ValueError(f"Evaluate needs every_n_steps >= 1 and seed >= 0, not {every_n_steps} and {seed}")
        if extractor not in ("digits", "inception", None):
            raise ValueError(f"there is no feature extractor {extractor!r}: digits, inception")
        if unknown := sorted(set(metrics) - set(METRICS)):
            raise ValueError(f"no metrics {unknown}: choose from {', '.join(METRICS)}")
        if min(n_scored, n_timed) < 2 or min([1, *iw_draws]) < 1 or ais_temperatures < 0 or ais_temperatures == 1:
            raise ValueError(
                "Evaluate needs n_scored and n_timed of at least 2, iw_draws of at least 1, and ais_temperatures of 0 "
                f"or at least 2, not {n_scored}, {n_timed}, {list(iw_draws)} and {ais_temperatures}"
            )
        if unknown := sorted(set(only or ()) - set(PARTS)):
            raise ValueError(f"no parts {unknown} of an evaluation: choose from {', '.join(PARTS)}")
        check_made([one for one in ood or () if isinstance(one, str)])
        self.extractor, self.inception_path = extractor, inception_path
        self.n_val, self.every_n_steps = n_val, every_n_steps
        self.n_test, self.batch_size, self.metrics = n_test, batch_size, tuple(metrics)
        self.seed, self.out, self.cache = seed, out, cache
        self.only: Sequence[str] | None = only
        self.ood, self.n_scored, self.crop = ood, n_scored, crop
        self.n_timed, self.iw_draws, self.ais_temperatures = n_timed, tuple(iw_draws), ais_temperatures
        self.long_run, self.save_samples = long_run, save_samples
        self.trained_steps: int | None = None  # of the weights, where they came from a checkpoint
        self.results: Results | None = None
        self._streaming: StreamingFID | None = None
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
                find_extractor(self.extractor, self.inception_path)
            except FileNotFoundError as error:
                without = "n_val: 0 of Evaluate, and no ModelCheckpoint that goes by it"
                raise FileNotFoundError(f"{error}; {without}, trains without them") from error
        if stage == "test":
            folder = run_folder(trainer) if self.out is None else Path(self.out)
            self.results = Results(folder / "results.json") if trainer.is_global_zero else None

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
        with looking_at(trainer, pl_module):
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
            streaming = StreamingFID(self.extractor, self.inception_path, pl_module.device)
            reference = _data_of(trainer).reference("train")
            for rows in torch.arange(rank, len(reference), world).split(self.batch_size):
                streaming.update(torch.stack([reference[i] for i in rows.tolist()]), real=True)
            self._streaming = streaming
        self._streaming.reset()
        options = self.n_val, self.batch_size, self.seed, pl_module.device, rank, world
        broken = torch.zeros((), device=pl_module.device)
        for samples in batches_of_samples(pl_module, *options):
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
        """The whole evaluation."""
        began = time.monotonic()
        folder = run_folder(trainer) if self.out is None else Path(self.out)
        with looking_at(trainer, pl_module) as ema:
            samples, problem = self._samples(trainer, pl_module, folder)
            drawn = time.monotonic() - began
            if self.results is None:
                return  # not the first process
            plan = Plan(
                ema=ema,
                config_hash=_config_hash(trainer, pl_module),
                folder=folder,
                **{field: getattr(self, field) for field in _PLANNED},
            )
            plan = replace(plan, trained_steps=plan.trained_steps or trainer.global_step or None)
            evaluation = Evaluation(pl_module, _data_of(trainer), plan, self.results)
            evaluation.run(samples, problem)
        about = {
            "method": type(pl_module).__name__,
            "weights": "averaged (EMA)" if ema else "raw",
            "skipped": evaluation.skipped,
            "sampling_seconds": round(drawn, 2),
            "seconds": round(time.monotonic() - began, 2),
        }
        self.results.note(**about)
        path = self.results.write()
        step = plan.trained_steps or 0
        for name, picture in evaluation.pictures.items():
            save_png(picture, folder / f"{name}.png")
            log_picture(trainer, name, picture, step)
        _keep(evaluation.arrays, folder / "arrays.npz")
        show(self.results, evaluation, about, path)
        for logger in trainer.loggers:
            values = {f"test/{entry.name}": entry.value for entry in self.results.added if entry.value is not None}
            logger.log_metrics(values, step=place_of(step))

    def _samples(self, trainer: Trainer, pl_module: Any, folder: Path) -> tuple[Tensor | None, str]:
        """This run's samples, of all processes, on the first one: uint8 images in a file, or points."""
        if self.only is not None and not any(
            needs.startswith("samples") for p in self.only for needs, _, _ in PARTS[p]
        ):
            return None, "none were asked for"
        if not hasattr(pl_module, "sample"):
            return None, f"{type(pl_module).__name__} does not sample"
        if trainer.is_global_zero:
            print(f"drawing {self.n_test:,} samples", flush=True)
        model, data = pl_module, _data_of(trainer)
        images = data.kind == "images" if data is not None else len(model.image_shape) == 3
        rank, world = trainer.global_rank, trainer.world_size
        options = self.n_test, self.batch_size, self.seed, model.device, rank, world
        batches = batches_of_samples(model, *options)
        room: Tensor | None = None
        done = 0
        # Batch b is drawn by process b mod w: every round each process has one, but perhaps in the last.
        for _ in range(-(-self.n_test // (self.batch_size * world))):
            mine: Tensor | None = None
            problem = ""
            try:
                batch = next(batches, None)
                mine = None if batch is None else (to_uint8(batch) if images else batch).cpu()
            except ValueError as error:
                problem = str(error)
            everybody: list[Any] = [(mine, problem)]
            if world > 1:
                everybody = [None] * world
                torch.distributed.all_gather_object(everybody, (mine, problem))
            if problem := next((words for _, words in everybody if words), ""):
                return None, problem
            if rank != 0:
                continue
            for batch in (batch for batch, _ in everybody if batch is not None):
                room = spooled(self.n_test, batch[0], folder) if room is None else room
                room[done : done + len(batch)] = batch
                done += len(batch)
        return room, ""


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
