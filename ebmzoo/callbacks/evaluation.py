"""The parts of an evaluation, chosen by what the method can do and what the data allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmzoo.callbacks.looking import sampler_settings
from ebmzoo.callbacks.parts.likelihood import in_the_plane
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import GeneratorNoise
from ebmzoo.methods.base import BoundsLikelihood, Reconstructs
from ebmzoo.metrics import (
    Protocol,
    Results,
    classifier_report,
    fidelity,
    find_extractor,
    metric_settings,
    mode_coverage,
    nearest_neighbours,
)
from ebmzoo.metrics.protocol import ROUNDING

__all__ = ["Evaluation", "Plan"]

_MOST_COMPARISONS = 5e11  # pixels compared in the search for neighbours: a minute or two on a CPU
_MOST_PIXELS = 2e9  # of the training images held for it, a byte each
_PRC_N = 10_000


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


class Evaluation:
    """One evaluation of one model.

    Args:
        model: the method, ready to be looked at.
        data: the data module, or None.
        plan: what to do.
        results: where numbers go.

    Attributes:
        skipped: a line for each part that was left out, and why.
    """

    def __init__(self, model: Any, data: Any, plan: Plan, results: Results) -> None:
        self.model, self.data, self.plan, self.results = model, data, plan, results
        self.skipped: list[str] = []
        self.device = model.device
        self.sampler = sampler_settings(model)

    @property
    def how_sampled(self) -> str:
        """The sampler in words."""
        if not self.sampler["steps"]:
            return "one-step samples" if self.sampler["sampler"] else "samples"
        return f"{self.sampler['steps']} steps of {self.sampler['sampler']}"

    def run(self, samples: Tensor | None, problem: str = "") -> None:
        """Do all parts.

        Args:
            samples: uint8 images ``(n, C, H, W)`` or points ``(n, 2)``; None if there are none.
            problem: why there are none.
        """
        if samples is None:
            self.skipped.append(f"all that needs samples: {problem}")
        elif self.data is None:
            self.skipped.append("all that compares samples with data: the trainer has no data module")
        elif self.data.kind == "images":
            self._part("fidelity", self._fidelity, samples)
            self._part("classifier report", self._classifier, samples)
            self._part("nearest neighbours", self._neighbours, samples)
        else:
            self._part("density and modes", self._density, samples)
        if self.data is not None and self.data.kind == "points" and self.model.image_shape == (2,):
            self._part("likelihood", in_the_plane, self)
        self._part("ELBO", self._elbo)
        self._part("reconstruction", self._reconstruction)

    def _part(self, name: str, part: Callable[..., str | None], *arguments: Any) -> None:
        """Do one part; its reason to do nothing, or a user's mistake, becomes a line."""
        try:
            reason = part(*arguments)
        except (ValueError, FileNotFoundError) as error:
            reason = str(error)
        if reason:
            self.skipped.append(f"{name}: {reason}")

    # -- samples ----------------------------------------------------------------------------------------

    def _fidelity(self, samples: Tensor) -> str | None:
        plan = self.plan
        if plan.extractor is None or not plan.metrics:
            return "no extractor or no metrics asked for"
        network = find_extractor(plan.extractor, plan.inception_path)
        reference = self.data.reference("train")
        values = fidelity(
            samples,
            reference,
            plan.extractor,
            plan.metrics,
            plan.inception_path,
            batch_size=min(plan.batch_size, 100),
            device=self.device,
            prc_n=_PRC_N,
            cache=plan.cache,
        )
        family = {"precision": "prc", "recall": "prc"}
        for name, value in values.items():
            metric = family.get(name, name.removesuffix("_std"))
            settings = metric_settings(metric, len(samples), len(reference), _PRC_N)
            protocol = self.of_samples(
                settings.pop("n_used", len(samples)),
                reference=self.name("train"),
                n_reference=settings.pop("n_reference_used", len(reference)),
                extractor=network.name,
                extractor_sha256=network.sha256,
                resize=network.resize,
                settings=settings,
            )
            self.results.add(name, value, protocol)
        return None

    def _classifier(self, samples: Tensor) -> str | None:
        if self.plan.extractor != "digits":
            return "it needs the digit extractor"
        network = find_extractor("digits")
        protocol = self.of_samples(
            len(samples),
            extractor=network.name,
            extractor_sha256=network.sha256,
            resize=network.resize,
            settings={"sure": 0.9},
        )
        for name, value in classifier_report(samples).items():
            self.results.add(name, value, protocol)
        return None

    def _neighbours(self, samples: Tensor) -> str | None:
        reference, held_out = self.data.reference("train"), self.data.reference("test")
        pixels = samples[0].numel()
        if len(reference) * pixels > _MOST_PIXELS:
            return f"{len(reference):,} training images of {pixels:,} values are more than fit in memory"
        most = max(1, int(_MOST_COMPARISONS / (len(reference) * pixels)))
        device = self.device
        train = self.bytes_of(reference, len(reference)).to(device)
        ours, theirs = samples[:most], self.bytes_of(held_out, most)
        found = {
            "nn_rmse": nearest_neighbours(ours.to(device), train).distance,
            "nn_rmse_test": nearest_neighbours(theirs.to(device), train).distance,
        }
        definition = {"distance": "root mean square over pixels, in [-1, 1]"}
        protocols = {
            "nn_rmse": self.of_samples(len(ours), split="train", settings=definition),
            "nn_rmse_test": self.of_data(
                len(theirs),
                split="train",
                rounding=ROUNDING,
                settings={**definition, "of": self.name("test")},
            ),
        }
        for name, distance in found.items():
            self.results.add(f"{name}_mean", distance.mean().item(), protocols[name])
            self.results.add(f"{name}_median", distance.median().item(), protocols[name])
        return None

    def _density(self, samples: Tensor) -> str | None:
        density = getattr(self.data, "density", None)
        if density is None:
            return f"the density of {self.data.name} is not known"
        protocol = self.of_samples(len(samples), rounding=None, settings={"unit": "nats", "density": "exact"})
        log_density = density.log_prob(samples.double())
        self.results.add("log_density_mean", log_density.mean().item(), protocol)
        self.results.add("log_density_median", log_density.median().item(), protocol)
        test = self.examples("test").double()
        truth = self.of_data(len(test), split="test", settings=protocol.settings)
        self.results.add("log_density_mean_test", density.log_prob(test).mean().item(), truth)
        if not hasattr(density, "means"):
            return None
        found = mode_coverage(samples, density.means, density.std)
        protocol = self.of_samples(
            len(samples), rounding=None, settings={"modes": found.total, "within": "4 s", "std": density.std}
        )
        values = {
            "modes_covered": found.covered,
            "mode_high_quality_share": found.high_quality_share,
            "mode_least_share": found.least_share,
            "mode_kl": found.kl,
            "mode_within_std": found.within_std,
        }
        for name, value in values.items():
            self.results.add(name, value, protocol)
        return None

    # -- the test split ---------------------------------------------------------------------------------

    def _elbo(self) -> str | None:
        model = self.model
        if not isinstance(model, BoundsLikelihood):
            return f"{type(self.model).__name__} bounds no likelihood"
        if self.data is None:
            return "the trainer has no data module"
        noise = GeneratorNoise(torch.Generator(self.device).manual_seed(self.plan.seed))
        bounds = [model.log_likelihood_bound(x, samples=1, noise=noise) for x in self.batches("test")]
        protocol = self.of_data(
            sum(map(len, bounds)), split="test", seed=self.plan.seed, settings={"unit": "nats", "draws": 1}
        )
        self.results.add("elbo_nats", torch.cat(bounds).double().mean().item(), protocol)
        return None

    def _reconstruction(self) -> str | None:
        if not isinstance(self.model, Reconstructs):
            return f"{type(self.model).__name__} reconstructs nothing"
        if self.data is None:
            return "the trainer has no data module"
        errors = [(self.model.reconstruct(x) - x).double().square().flatten(1).mean(1) for x in self.batches("test")]
        protocol = self.of_data(sum(map(len, errors)), split="test", settings={"unit": "data's, squared"})
        name = "mse_per_pixel" if self.data.kind == "images" else "mse_per_coordinate"
        self.results.add(name, torch.cat(errors).mean().item(), protocol)
        return None

    # -- data and protocols -----------------------------------------------------------------------------

    def batches(self, split: str) -> list[Tensor] | Any:
        examples = self.data.reference(split)
        for rows in torch.arange(len(examples)).split(self.plan.batch_size):
            yield torch.stack([examples[i] for i in rows.tolist()]).to(self.device)

    def examples(self, split: str) -> Tensor:
        return torch.cat([x.cpu() for x in self.batches(split)])

    def bytes_of(self, examples: Any, most: int) -> Tensor:
        # One at a time: as floats a large set would take four times the memory.
        return torch.stack([to_uint8(examples[i]) for i in range(min(most, len(examples)))])

    def name(self, split: str) -> str:
        return self.data.reference_name(split) if hasattr(self.data, "reference_name") else split

    def _against(self, split: str | None) -> dict[str, Any]:
        if split is None:
            return {}
        return {"reference": self.name(split), "n_reference": len(self.data.reference(split))}

    def of_samples(self, n: int, split: str | None = None, **more: Any) -> Protocol:
        """Protocol of a number that samples gave."""
        settings = {**more.pop("settings", {}), "batch_size": self.plan.batch_size}
        if self.sampler["details"]:
            settings["sampler"] = self.sampler["details"]
        own = {key: self.sampler[key] for key in ("sampler", "steps", "step_size", "temperature")}
        fields = {"rounding": ROUNDING, **own, **self._against(split), **more}
        return Protocol(
            n=n,
            ema=self.plan.ema,
            seed=self.plan.seed,
            config_hash=self.plan.config_hash,
            settings=settings,
            **fields,
        )

    def of_data(self, n: int, split: str | None, seed: int | None = None, **more: Any) -> Protocol:
        """Protocol of a number that examples gave, without any sampler."""
        none: dict[str, Any] = dict.fromkeys(("sampler", "steps", "step_size", "temperature"))
        return Protocol(
            n=n,
            ema=self.plan.ema,
            seed=seed,
            config_hash=self.plan.config_hash,
            **none,
            **self._against(split),
            **more,
        )
