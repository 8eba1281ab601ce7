"""How good samples are as a set: images against the training split, points against the density of their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ebmzoo import metrics
from ebmzoo.images import save_images
from ebmzoo.methods.capabilities import Samples
from ebmzoo.metrics import METRICS

from .base import Figure, Findings, Look, Number, numbers

_FAST_N = 1000
_FAMILY = {"precision": "prc", "recall": "prc"}


@dataclass(frozen=True)
class Saved(Figure):
    """The samples themselves in ``samples/``, a PNG each, so that anybody can measure them again."""

    name, part, of, takes = "saved samples", "generation", "images", "samples"

    def __call__(self, look: Look) -> Findings:
        save_images(look.samples, look.folder / "samples")
        yield from ()


@dataclass(frozen=True)
class Fidelity(Figure):
    """FID, KID, IS, precision and recall of samples against the training split, and the FID of the first 1,000.

    Args:
        metrics: some of "fid", "kid", "isc", "prc".

    Raises:
        ValueError: for another name.
    """

    metrics: Sequence[str] = METRICS

    name, part, of, takes = "fidelity", "generation", "images", "samples"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.metrics) - set(METRICS)):
            raise ValueError(f"no metrics {unknown}: choose from {', '.join(METRICS)}")

    def __call__(self, look: Look) -> Findings:
        samples = look.samples
        if look.extractor is None or not self.metrics:
            raise ValueError("Evaluate has no extractor (inception, of 91 MB, digits, cifar10, a file), or no metrics")
        for name, value in look.compare(samples, self.metrics).items():
            metric = _FAMILY.get(name, name.removesuffix("_std"))
            n_reference = len(look.data.reference("train"))
            settings = metrics.metric_settings(metric, len(samples), n_reference)
            n, against = settings.pop("n_used", len(samples)), settings.pop("n_reference_used", n_reference)
            how = {"n_reference": against, "settings": settings, **look.by_features}
            yield Number(name, value, look.of_samples(n, "train", **how))
        if "fid" in self.metrics and len(samples) >= _FAST_N:
            value = look.compare(samples[:_FAST_N])["fid"]
            yield Number("fid_1k", value, look.of_samples(_FAST_N, "train", **look.by_features))


@dataclass(frozen=True)
class Classified(Figure):
    """What the extractor, as a classifier, says of samples; of stacked digits, one in each channel, the modes."""

    name, part, of, takes = "classifier report", "generation", "images", "samples"

    def __call__(self, look: Look) -> Findings:
        samples, data = look.samples, look.data
        stacked = hasattr(data.reference("train"), "modes")
        if look.extractor != "digits" and not stacked:
            if look.extractor in (None, "inception"):
                raise ValueError("it needs an extractor that is a classifier: digits, or a file of ebmzoo extractor")
            found = metrics.classifier_report(samples, network=look.features.classifier())
            yield from numbers(found, look.of_samples(len(samples), settings={"sure": 0.9}, **look.by_features))
            return
        own = {"path": data.classifier} if stacked and hasattr(data, "classifier") else {}
        if own.get("path", "") is None:
            raise ValueError(
                f"the modes of {data.name} need a classifier of its digits: make one with python -m "
                "ebmzoo.metrics.digit_classifier --mnist ROOT --out FILE, and give FILE as data.init_args.classifier"
            )
        network = metrics.load_digit_classifier(**own)
        how: dict[str, Any] = {"extractor": "digits", "extractor_sha256": metrics.sha256_of(**own)}
        how["resize"] = f"area average to {network.side}x{network.side}"
        found = metrics.stacked_report(samples, network=network) if stacked else metrics.classifier_report(samples)
        yield from numbers(found, look.of_samples(len(samples), settings={"sure": 0.9}, **how))


@dataclass(frozen=True)
class Points(Figure):
    """The samples' log-density under the truth, and which of its modes they cover."""

    name, part, of, takes = "density and modes", "generation", "points", "samples"

    def __call__(self, look: Look) -> Findings:
        samples, density = look.samples, look.density
        if density is None:
            raise ValueError(f"the density of {look.data.name} is not known")
        how: dict[str, Any] = {"unit": "nats", "density": "exact"}
        log_density = density.log_prob(samples.double())
        found = {"log_density_mean": log_density.mean().item(), "log_density_median": log_density.median().item()}
        yield from numbers(found, look.of_samples(len(samples), rounding=None, settings=how))
        test = look.examples("test").double()
        value = density.log_prob(test).mean().item()
        yield Number("log_density_mean_test", value, look.of_data(len(test), "test", settings=how))
        if look.modes is None:
            return
        modes = metrics.mode_coverage(samples, *look.modes)
        found = {
            "modes_covered": modes.covered,
            "mode_high_quality_share": modes.high_quality_share,
            "mode_least_share": modes.least_share,
            "mode_kl": modes.kl,
            "mode_within_std": modes.within_std,
        }
        how = {"modes": modes.total, "within": "4 s", "std": density.std}
        yield from numbers(found, look.of_samples(len(samples), rounding=None, settings=how))
        # The few samples between modes make the mean above: those within show how well the modes are met.
        inside = (torch.cdist(samples.double(), density.means.double()) <= 4 * density.std).any(1)
        if inside.any():
            protocol = look.of_samples(int(inside.sum()), rounding=None, settings=how | {"unit": "nats"})
            yield Number("log_density_within", log_density[inside].mean().item(), protocol)


@dataclass(frozen=True)
class OtherEnd(Figure):
    """The same distance at the other end of the chain: before it, or after it where samples are made in one step.

    Of images the FID, of points the share of samples in modes.
    """

    name, part, needs, quiet = "other end of the chain", "generation", (Samples,), True

    def __call__(self, look: Look) -> Findings:
        chain, images, n = look.chain_steps, look.kind == "images", look.n
        modes = look.modes
        if not chain or (look.extractor is None if images else modes is None):
            return
        end, steps = ("before_chain", 0) if look.sampler["steps"] else ("after_chain", chain)
        samples = look.drawn(n, steps)
        if images:
            value = look.compare(samples)["fid"]
            yield Number(f"fid_{end}", value, look.of_samples(n, "train", steps=steps, **look.by_features))
            return
        assert modes is not None
        value, std = metrics.mode_coverage(samples, *modes).high_quality_share, modes[1]
        how = {"within": "4 s", "std": std}
        protocol = look.of_samples(n, steps=steps, rounding=None, settings=how)
        yield Number(f"mode_high_quality_share_{end}", value, protocol)
