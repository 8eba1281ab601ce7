"""What a classifier says of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ebmzoo import metrics

from .base import Figure, Findings, Look, numbers

__all__ = ["Classified"]


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
