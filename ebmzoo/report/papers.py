"""Figures that papers report, by the protocol they are reported with: beside one's own, and as a table of the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .cells import markdown

_SETS = {"cifar10": "CIFAR-10", "imagenet32": "ImageNet 32", "celeba-64": "CelebA 64", "celeba-hq-256": "CelebA-HQ 256"}
_SETS |= {"lsun-church-64": "LSUN church 64", "stl10-32": "STL-10 at 32 px", "celeba-32": "CelebA 32"}


@dataclass(frozen=True)
class Published:
    """A figure of a paper, or of released weights.

    Attributes:
        method: its class here, or its name where it is not here.
        reference: the set, as in a protocol, whose training split it is measured against.
        value: the figure.
        steps: of the chain or the solver at test; 0 is one pass of a generator; None where it is not told.
        averages: whether by averaged weights; None where it is not told.
        metric: "fid" or "isc".
        source: "paper", or where else it stands.
        n: samples.
        here: whether the method is here.
    """

    method: str
    reference: str
    value: float
    steps: int | None = None
    averages: bool | None = None
    metric: str = "fid"
    source: str = "paper"
    n: int = 50_000
    here: bool = True

    def is_of(self, protocol: Mapping[str, Any]) -> bool:
        """Whether a protocol is this figure's, as far as its paper tells it."""
        told = {"n": self.n, "extractor": "inception", "reference": f"{self.reference} train"}
        told |= {} if self.steps is None else {"steps": self.steps}
        told |= {} if self.averages is None else {"ema": self.averages}
        return all(protocol.get(name) == value for name, value in told.items())


_ENERGY_MATCHING = "arXiv 2504.10612v3"
_CDRL = "arXiv 2309.05153"
_RELEASED = "released weights"

PUBLISHED: tuple[Published, ...] = (
    Published("ECVAE", "cifar10", 5.20, 0, True),
    Published("ECVAE", "cifar10", 8.02, 0, False),
    Published("ECFlow", "cifar10", 31.12, 0),
    Published("VAE", "cifar10", 105.71, 0, source="EC-VAE's paper"),
    Published("VAEBM", "cifar10", 12.19, 16),
    Published("VAEBM", "cifar10", 8.43, 16, metric="isc"),
    Published("DenoisingEBM", "cifar10", 21.24, 100),
    Published("DenoisingEBM", "cifar10", 7.86, 100, metric="isc"),
    Published("DualMCMC", "cifar10", 9.26, 30, False),
    Published("DualMCMC", "cifar10", 7.86, 70, False, source=_RELEASED),
    Published("DualMCMC", "cifar10", 8.93, 0, False, source=_RELEASED),
    Published("DualMCMC", "cifar10", 8.55, 30, False, metric="isc"),
    Published("BiDVL", "cifar10", 20.75, 0, False),
    Published("Energy Matching", "cifar10", 3.34, 325, source=_ENERGY_MATCHING, here=False),
    Published("CDRL-large", "cifar10", 3.68, 90, source=_CDRL, here=False),
    Published("CDRL", "cifar10", 4.31, 90, source=_CDRL, here=False),
    Published("CDRL", "cifar10", 4.58, 48, source=_CDRL, here=False),
    Published("EGC", "cifar10", 5.36, here=False),
    Published("CLEL-large", "cifar10", 8.61, here=False),
    Published("DRL", "cifar10", 9.58, 180, here=False),
    Published("improved CD", "cifar10", 25.1, here=False),
    Published("ECVAE", "imagenet32", 5.76, 0, True),
    Published("ECVAE", "imagenet32", 8.64, 0, False),
    Published("Energy Matching", "imagenet32", 6.64, 300, source=_ENERGY_MATCHING, here=False),
    Published("CDRL", "imagenet32", 9.35, 90, source=_CDRL, here=False),
    Published("CLEL-large", "imagenet32", 15.47, here=False),
    Published("CLEL-base", "imagenet32", 22.16, here=False),
    Published("improved CD", "imagenet32", 32.48, here=False),
    Published("ECVAE", "celeba-64", 2.71, 0, True),
    Published("ECVAE", "celeba-64", 4.20, 0, False),
    Published("DualMCMC", "celeba-64", 5.15, 30, False),
    Published("VAEBM", "celeba-64", 5.31, 20),
    Published("DenoisingEBM", "celeba-64", 14.1),
    Published("BiDVL", "celeba-64", 17.24, 0, False),
    Published("BiDVL", "celeba-32", 4.47, 0, False),
    Published("DualMCMC", "lsun-church-64", 4.56, 30, False),
    Published("ECVAE", "lsun-church-64", 6.05, 0, True),
    Published("ECVAE", "lsun-church-64", 7.52, 0, False),
    Published("VAEBM", "lsun-church-64", 13.51, 20),
    Published("ECVAE", "stl10-32", 8.39, 0, True),
    Published("ECVAE", "stl10-32", 14.2, 0, False),
    Published("Diffusion-JEBM", "celeba-hq-256", 8.78, source="arXiv 2405.13910", n=30_000, here=False),
    Published("ECVAE", "celeba-hq-256", 12.35, 0, True, n=30_000),
    Published("ECVAE", "celeba-hq-256", 13.62, 0, False, n=30_000),
    Published("DualMCMC", "celeba-hq-256", 15.89, 30, False, n=30_000),
    Published("VAEBM", "celeba-hq-256", 20.38, 24, n=30_000),
)


def published(method: str, metric: str, protocol: Mapping[str, Any]) -> float | None:
    """The paper's number under this protocol; None where the paper has none.

    Example:
        >>> how = {"n": 50_000, "extractor": "inception", "reference": "cifar10 train", "steps": 0, "ema": True}
        >>> published("ECVAE", "fid", how), published("ECVAE", "fid", {**how, "n": 5000})
        (5.2, None)
    """
    for one in PUBLISHED:
        if (one.method, one.metric) == (method, metric) and one.is_of(protocol):
            return one.value
    return None


def leaderboard() -> str:
    """FIDs of unconditional generation by models with an energy, set by set, the least first, as Markdown.

    What differs in steps or in whose weights it is of stands in its own row: such figures are not of one contest.
    """
    parts = []
    for reference, words in _SETS.items():
        rows = [one for one in PUBLISHED if one.reference == reference and one.metric == "fid"]
        lines = []
        for one in sorted(rows, key=lambda one: one.value):
            name = f"**{one.method}**" if one.here else one.method
            averages = {True: "yes", False: "no", None: "not told"}[one.averages]
            steps = {None: "not told", 0: "one pass"}.get(one.steps, str(one.steps))
            lines.append([name, f"{one.value:.2f}", steps, averages, one.source])
        head = ["method", "FID", "steps at test", "averaged weights", "source"]
        parts.append(f"## {words}\n\n{markdown(head, lines)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(leaderboard())
