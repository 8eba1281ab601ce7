"""The parts of an evaluation, chosen by what the method can do and what the data allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmzoo.callbacks.looking import batches_of_samples, sampler_settings, spooled
from ebmzoo.callbacks.parts import (
    chains,
    generation,
    landscape,
    likelihood,
    memorisation,
    ood,
    points,
    reconstruction,
)
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import GeneratorNoise
from ebmzoo.metrics import Protocol, Results
from ebmzoo.metrics.protocol import ROUNDING

__all__ = ["PARTS", "SWITCHES", "Evaluation", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What `Evaluate` was told, and what it found out; see there."""

    extractor: str | None
    metrics: Sequence[str]
    inception_path: str | Path | None
    batch_size: int
    cache: str | Path | None
    seed: int
    ema: bool
    config_hash: str
    trained_steps: int | None
    only: Sequence[str] | None
    ood: Sequence[Any] | None
    n_test: int
    n_scored: int
    crop: int | None
    n_timed: int
    iw_draws: Sequence[int]
    ais_temperatures: int
    long_run: bool
    save_samples: bool
    folder: Path


Part = Callable[..., str | None]

#: by name, as ``only`` of `Evaluate` takes them: what each part needs, and what it does
PARTS: dict[str, list[tuple[str, str, Part]]] = {
    "generation": [
        ("samples of images", "saved samples", generation.saved),
        ("samples of images", "fidelity", generation.fidelity_of_samples),
        ("samples of images", "classifier report", generation.classified),
        ("samples of points", "density and modes", points.density_and_modes),
        ("data", "other end of the chain", generation.other_end),
        ("model", "cost of sampling", generation.cost),
    ],
    "memorisation": [("samples of images", "nearest neighbours", memorisation.neighbours)],
    "likelihood": [
        ("data", "ELBO", likelihood.bounds),
        ("points", "likelihood", likelihood.in_the_plane),
        ("data", "AIS", likelihood.annealed),
    ],
    "reconstruction": [("data", "reconstruction", reconstruction.reconstructed)],
    "ood": [
        ("images", "out-of-distribution", ood.out_of_distribution),
    ],
    "chains": [
        ("model", "chain health", chains.health),
        ("data", "long run", chains.long_run),
        ("data", "energies", landscape.energies),
        ("points", "landscape", landscape.plane),
    ],
}


#: what `ebmzoo test` can switch on beside them, and its words for it
SWITCHES = {
    "long_run": "Also run chains of 10 and 100 times the training length, and see where they go.",
    "save_samples": "Write the samples that are measured into samples/ of the run's folder, a PNG each.",
}


class Evaluation:
    """One evaluation of one model.

    Args:
        model: the method, ready to be looked at.
        data: the data module, or None.
        plan: what to do.
        results: where numbers go.

    Attributes:
        skipped: a line for each part that was left out, and why.
        pictures: what was drawn, uint8 ``(3, H, W)``, by name.
        arrays: what the report draws itself, by name: energies, scores, landscapes.
        ends: how many numbers there were after each part.
    """

    def __init__(self, model: Any, data: Any, plan: Plan, results: Results) -> None:
        self.model, self.data, self.plan, self.results = model, data, plan, results
        self.skipped: list[str] = []
        self.pictures: dict[str, Tensor] = {}
        self.arrays: dict[str, Tensor] = {}
        self.ends: list[int] = []
        self.device = model.device
        self.like = torch.empty(0, dtype=model.dtype, device=model.device)
        self.sampler = sampler_settings(model)

    @property
    def how_sampled(self) -> str:
        """The sampler in words."""
        if not self.sampler["steps"]:
            return "one-step samples" if self.sampler["sampler"] else "samples"
        return f"{self.sampler['steps']} steps of {self.sampler['sampler']}"

    @property
    def kind(self) -> str:
        """What the examples are: "images" or "points"."""
        return self.data.kind if self.data is not None else "images" if len(self.model.image_shape) == 3 else "points"

    def run(self, samples: Tensor | None, problem: str = "") -> None:
        """Do all parts, or those of ``only``.

        Args:
            samples: uint8 images ``(n, C, H, W)`` or points ``(n, 2)``; None if there are none.
            problem: why there are none.
        """
        wanted = list(PARTS) if self.plan.only is None else self.plan.only
        chosen = [part for name in wanted for part in PARTS[name]]
        if samples is None and any(needs.startswith("samples") for needs, _, _ in chosen):
            self.skipped.append(f"all that needs samples: {problem}")
        elif self.data is None and any(needs != "model" for needs, _, _ in chosen):
            self.skipped.append("all that compares the model with data: the trainer has no data module")
        for needs, name, part in chosen:
            of_samples, of_kind = needs.startswith("samples"), needs.removeprefix("samples of ")
            if (of_samples and samples is None) or (needs != "model" and self.data is None):
                continue
            if of_kind in ("images", "points") and of_kind != self.kind:
                continue
            self._do(name, part, *([samples] if of_samples else []))

    def _do(self, name: str, part: Part, *arguments: Any) -> None:
        """Do one part, said before, as it may take minutes; a reason to do nothing, or a mistake, becomes a line."""
        print(f"measuring: {name}", flush=True)
        try:
            reason = part(self, *arguments)
        except (ValueError, FileNotFoundError) as error:
            reason = str(error)
        if reason:
            self.skip(name, reason)
        self.ends.append(len(self.results.added))

    def skip(self, name: str, reason: str) -> None:
        """Leave something out, with a line that says so."""
        self.skipped.append(f"{name}: {reason}")

    # -- what parts work with ---------------------------------------------------------------------------

    def noise(self) -> GeneratorNoise:
        """Random numbers of this evaluation's seed, from their start."""
        return GeneratorNoise(torch.Generator(self.device).manual_seed(self.plan.seed))

    def cpu_noise(self) -> GeneratorNoise:
        """The same on the CPU, for what is made of data before it goes to the device."""
        return GeneratorNoise(torch.Generator().manual_seed(self.plan.seed))

    def draw(self, n: int, steps: int | None = None) -> Tensor:
        """Samples of chains of so many steps: uint8 images in a file, or points.

        Raises:
            ValueError: they cannot become images.
        """
        room: Tensor | None = None
        done = 0
        for batch in batches_of_samples(self.model, n, self.plan.batch_size, self.plan.seed, self.device, steps=steps):
            batch = (to_uint8(batch) if self.kind == "images" else batch).cpu()
            room = spooled(n, batch[0], self.plan.folder) if room is None else room
            room[done : done + len(batch)] = batch
            done += len(batch)
        assert room is not None
        return room

    def batches(self, split: str, most: int | None = None) -> Iterator[Tensor]:
        """The first ``most`` examples of a split, or all, batch by batch, as the model takes them."""
        examples = self.data.reference(split)
        count = len(examples) if most is None else min(most, len(examples))
        for rows in torch.arange(count).split(self.plan.batch_size):
            yield torch.stack([examples[i] for i in rows.tolist()]).to(self.like)

    def examples(self, split: str, most: int | None = None) -> Tensor:
        """The same in one tensor, on the CPU."""
        return torch.cat([x.cpu() for x in self.batches(split, most)])

    def bytes_of(self, split: str, rows: Iterable[int]) -> Tensor:
        """Images of a split as uint8."""
        examples = self.data.reference(split)
        # One at a time: as floats a large set would take four times the memory.
        return torch.stack([to_uint8(examples[i]) for i in rows])

    # -- protocols --------------------------------------------------------------------------------------

    def name(self, split: str) -> str:
        """A split's name in a protocol."""
        return self.data.reference_name(split) if hasattr(self.data, "reference_name") else split

    def _against(self, split: str | None) -> dict[str, Any]:
        if split is None:
            return {}
        return {"reference": self.name(split), "n_reference": len(self.data.reference(split))}

    @property
    def _own(self) -> dict[str, Any]:
        plan = self.plan
        return {"ema": plan.ema, "config_hash": plan.config_hash, "trained_steps": plan.trained_steps}

    def of_samples(self, n: int, split: str | None = None, steps: int | None = None, **more: Any) -> Protocol:
        """Protocol of a number that samples gave, of chains of so many steps if not of the test-time sampler's."""
        sampler = self.sampler if steps is None else sampler_settings(self.model, steps)
        settings = {**more.pop("settings", {}), "batch_size": self.plan.batch_size}
        if sampler["details"]:
            settings["sampler"] = sampler["details"]
        own = {key: sampler[key] for key in ("sampler", "steps", "step_size", "temperature")}
        fields = {"rounding": ROUNDING, **own, **self._against(split), **more}
        return Protocol(n=n, seed=self.plan.seed, settings=settings, **self._own, **fields)

    def of_data(self, n: int, split: str | None, seed: int | None = None, **more: Any) -> Protocol:
        """Protocol of a number that examples gave, without any sampler."""
        none: dict[str, Any] = dict.fromkeys(("sampler", "steps", "step_size", "temperature"))
        return Protocol(n=n, seed=seed, **self._own, **none, **self._against(split), **more)
