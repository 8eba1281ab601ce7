"""Pictures during training and evaluation: samples, reconstructions, chains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ebmzoo.callbacks.eval_mode import eval_mode, log_picture, run_folder
from ebmzoo.callbacks.guard import Diverged, Guard
from ebmzoo.figures.chains import chain_frames, chain_titles
from ebmzoo.figures.look import chain_steps
from ebmzoo.figures.plots import histograms, scatter
from ebmzoo.images import grid, save_png, strips
from ebmzoo.mcmc import GeneratorNoise
from ebmzoo.methods.capabilities import HasEnergy, Reconstructs, Samples

_PAIRS_IN_A_ROW = 4


class Pictures(Callback):
    """Draws what the model makes, into the run's folder and to every logger that takes images.

    ``samples.png``, ``reconstructions.png`` (validation data, each beside what became of it) and ``chain.png``
    (one chain a row, from its start on the left) are the newest ones; those of earlier steps lie in ``pictures/``.
    For 2-D data there is a scatter plot of samples beside the data. ``energy_histogram.png`` shows the energies of
    validation data and of samples on one axis, where there is an energy. The noise is the same every time, so that
    pictures of different steps compare; the averaged weights are used if there are any; training goes on bit for bit as
    without this callback. At test the files are drawn anew, and loggers, which have what the training drew, get none.
    Only the first process draws.

    Args:
        n: samples in the grid; the reconstructions are of n / 2 validation images.
        every_n_steps: training steps between pictures; None draws at the end of training alone.
        chain: whether to draw chains, for methods that have them.
        n_chain: number of chains.
        frames: pictures of a chain, its first and last states included.
        n_points: points of a scatter plot.
        seed: of the noise.

    Raises:
        ValueError: if a number is out of range, or samples of a model that is tested are not finite.
        Diverged: if they are not finite in a training.

    Example:
        >>> Pictures(n=16, every_n_steps=500).n
        16
    """

    def __init__(
        self,
        n: int = 64,
        every_n_steps: int | None = 1000,
        chain: bool = True,
        n_chain: int = 8,
        frames: int = 10,
        n_points: int = 5000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(n, n_chain, n_points, 1 if every_n_steps is None else every_n_steps) < 1 or frames < 2:
            raise ValueError(
                "Pictures needs n, every_n_steps, n_chain and n_points of at least 1 and 2 frames or more, "
                f"not {n}, {every_n_steps}, {n_chain}, {n_points} and {frames}"
            )
        self.n, self.every_n_steps, self.chain = n, every_n_steps, chain
        self.n_chain, self.frames, self.n_points, self.seed = n_chain, frames, n_points, seed
        self._folder = Path()
        self._drawn_at = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder, which all processes must ask for."""
        self._folder = run_folder(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self.every_n_steps and step and step % self.every_n_steps == 0:
            # The guard names the cause of broken samples, and may know a way back: the end of training looks again.
            guarded = any(isinstance(one, Guard) for one in trainer.callbacks)  # type: ignore[attr-defined]
            self._draw(trainer, pl_module, keep=True, guarded=guarded)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, keep=self.every_n_steps is not None)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = -1
        self._draw(trainer, pl_module, keep=False)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, keep: bool, guarded: bool = False) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self._drawn_at:
            return
        self._drawn_at = step
        with eval_mode(trainer, pl_module):
            samples = self._samples(pl_module)
            if samples is not None and not samples.isfinite().all():
                if guarded:
                    self._drawn_at = -1
                    return
                _refuse(trainer, samples)
            pictures = {} if samples is None else self._pictures(trainer, pl_module, samples)
            if samples is not None and isinstance(pl_module, HasEnergy):
                pictures |= self._energies(trainer, pl_module, samples)
        for name, picture in pictures.items():
            save_png(picture, self._folder / f"{name}.png")
            if keep:
                save_png(picture, self._folder / "pictures" / f"{name}_step{step:08d}.png")
            if not trainer.testing:
                log_picture(trainer, name, picture, step)

    def _samples(self, pl_module: Any) -> Tensor | None:
        """Images or points of the plane; None of a method that makes neither."""
        plane, samples = tuple(pl_module.image_shape) == (2,), isinstance(pl_module, Samples)
        if not samples or not (plane or len(pl_module.image_shape) == 3):
            return None
        return pl_module.sample(self.n_points if plane else self.n, noise=self._noise(pl_module))

    def _pictures(self, trainer: Trainer, pl_module: Any, samples: Tensor) -> dict[str, Tensor]:
        data = _validation_data(trainer)
        if len(pl_module.image_shape) == 1:
            return {"samples": scatter(samples, None if data is None else data(self.n_points))}
        pictures = {"samples": grid(samples)}
        reconstructs = isinstance(pl_module, Reconstructs)
        if reconstructs and data is not None and self.n > 1:
            x = data(max(1, self.n // 2)).to(pl_module.device, pl_module.dtype)
            pictures["reconstructions"] = _beside(x, pl_module.reconstruct(x))
        if self.chain and (steps := chain_steps(pl_module)):
            shown = chain_frames(pl_module, self.n_chain, steps, self.frames, self._noise(pl_module))
            if len(shown) > 1:
                pictures["chain"] = strips(shown, titles=chain_titles(len(shown), steps, self.frames))
        return pictures

    def _energies(self, trainer: Trainer, model: HasEnergy, samples: Tensor) -> dict[str, Tensor]:
        """Of the samples and of as many validation data, with bins in common; nothing where none is finite."""
        data = _validation_data(trainer)
        groups = {} if data is None else {"validation data": data(len(samples)).to(samples)}
        found = {name: model.energy(x) for name, x in {**groups, "samples": samples}.items()}
        if not torch.cat(list(found.values())).isfinite().any():
            return {}
        return {"energy_histogram": histograms(found, "E(x) (low: likely)", f"energies of {type(model).__name__}")}

    def _noise(self, pl_module: LightningModule) -> GeneratorNoise:
        return GeneratorNoise(torch.Generator(pl_module.device).manual_seed(self.seed))


def _refuse(trainer: Trainer, samples: Tensor) -> NoReturn:
    """Say that a model whose samples are not finite has diverged; a training stops for it."""
    reason = f"{int((~samples.isfinite()).sum()):,} of {samples.numel():,} values of the samples are not finite"
    if not trainer.training:
        raise ValueError(f"no pictures: {reason}; the training of this model has diverged")
    step = trainer.global_step
    raise Diverged(step, reason, [{"step": step, "reason": reason, "action": "stopped"}])


def _validation_data(trainer: Trainer) -> Callable[[int], Tensor] | None:
    module: Any = getattr(trainer, "datamodule", None)
    if not hasattr(module, "reference"):
        return None

    def first(n: int) -> Tensor:
        examples = module.reference("val")
        return torch.stack([examples[i] for i in range(min(n, len(examples)))])

    return first


def _beside(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Pairs of data and what became of them, several in a row."""
    pairs = min(_PAIRS_IN_A_ROW, len(x))
    blank = x.new_ones((-len(x) % pairs, *x.shape[1:]))
    columns = [torch.cat([part, blank])[k::pairs] for k in range(pairs) for part in (x, reconstruction.to(x))]
    return strips(columns, titles=["data", "recon."] * pairs)
