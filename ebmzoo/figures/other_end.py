"""What the chain of a method does for its samples."""

from __future__ import annotations

from dataclasses import dataclass

from ebmzoo import metrics
from ebmzoo.methods.capabilities import Samples

from .base import Figure, Findings, Look, Number

__all__ = ["OtherEnd"]


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
