"""Numbers that the papers report, by the protocol they are reported with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["published"]

_INCEPTION_50K = {"n": 50_000, "extractor": "inception"}
#: method, reference, metric, what the protocol must say beside, value
_PUBLISHED: list[tuple[str, str, str, Mapping[str, Any], float]] = [
    ("ECVAE", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 0, "ema": False}, 8.02),
    ("ECVAE", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 0, "ema": True}, 5.20),
    ("ECFlow", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 0}, 31.12),
    ("VAE", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 0}, 105.71),
    ("VAEBM", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 16}, 12.19),
    ("VAEBM", "cifar10 train", "isc", {"n": 50_000, "extractor": "inception", "steps": 16}, 8.43),
    ("DenoisingEBM", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 100}, 21.24),
    ("DenoisingEBM", "cifar10 train", "isc", {**_INCEPTION_50K, "steps": 100}, 7.86),
    ("DualMCMC", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 30}, 9.26),
    ("DualMCMC", "cifar10 train", "isc", {**_INCEPTION_50K, "steps": 30}, 8.55),
    ("BiDVL", "cifar10 train", "fid", {**_INCEPTION_50K, "steps": 0}, 20.75),
]


def published(method: str, metric: str, protocol: Mapping[str, Any]) -> float | None:
    """The paper's number under this protocol; None where the paper has none.

    Example:
        >>> how = {"n": 50_000, "extractor": "inception", "reference": "cifar10 train", "steps": 0, "ema": True}
        >>> published("ECVAE", "fid", how), published("ECVAE", "fid", {**how, "n": 5000})
        (5.2, None)
    """
    key = method, protocol.get("reference"), metric
    for name, reference, which, how, value in _PUBLISHED:
        if (name, reference, which) == key and all(protocol.get(field) == wanted for field, wanted in how.items()):
            return value
    return None
