"""How good images are as a set: FID, KID, IS, precision and recall, against the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ebmzoo import metrics
from ebmzoo.images import save_images
from ebmzoo.metrics import METRICS

from .base import Figure, Findings, Look, Number

__all__ = ["Fidelity", "Saved"]

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
