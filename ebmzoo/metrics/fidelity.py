"""Fidelity of generated images: FID, KID, IS, precision and recall, through torch-fidelity.

One code path for all extractors: samples and reference become bytes by `ebmzoo.images.to_uint8`, and
`torch_fidelity.calculate_metrics` does the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics
from torchmetrics.image.fid import FrechetInceptionDistance

from ebmzoo.metrics.extractors import Extractor, find_extractor
from ebmzoo.metrics.protocol import METRICS

_NAMES = {
    "frechet_inception_distance": "fid",
    "kernel_inception_distance_mean": "kid",
    "kernel_inception_distance_std": "kid_std",
    "inception_score_mean": "isc",
    "inception_score_std": "isc_std",
    "precision": "precision",
    "recall": "recall",
}
_RNG_SEED = 2020  # torch-fidelity's own default: the subsets of KID and the shuffle of IS
_NEIGHBOURS = 3
_PRC_CHUNK = 2000


class ImageSet(Protocol):
    """A dataset of single images: uint8, or floats in [-1, 1]."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


Images = Tensor | ImageSet


class _Bytes(Dataset[Tensor]):
    """Images, or some ``rows`` of them, as an extractor takes them: uint8 ``(C, H, W)``."""

    def __init__(self, images: Images, network: Extractor, rows: Sequence[int] | None = None) -> None:
        self.images, self.network = images, network
        self.rows = range(len(images)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.network.bytes_of(self.images[self.rows[index]])


def metric_settings(metric: str, n: int, n_reference: int, prc_n: int = 10_000) -> dict[str, Any]:
    """What a metric does beyond its name, for its protocol.

    Args:
        metric: one of "fid", "kid", "isc", "prc".
        n: number of samples.
        n_reference: number of reference images.
        prc_n: at most so many samples and reference images enter precision and recall.

    Example:
        >>> metric_settings("prc", 5000, 1500)
        {'k': 3, 'n_used': 1500, 'n_reference_used': 1500}
    """
    if metric == "kid":
        size = min(1000, n, n_reference)
        return {"kernel": "poly3", "subsets": 100, "subset_size": size, "rng_seed": _RNG_SEED}
    if metric == "isc":
        return {"splits": min(10, n), "rng_seed": _RNG_SEED}
    if metric == "prc":
        # k-NN balls shrink as points are added: equal numbers on both sides, or the two would not compare.
        used = min(n, n_reference, prc_n)
        return {"k": _NEIGHBOURS, "n_used": used, "n_reference_used": used}
    return {}


def fidelity(
    samples: Images,
    reference: Images,
    extractor: str = "digits",
    metrics: Sequence[str] = METRICS,
    inception_path: str | Path | None = None,
    *,
    batch_size: int = 100,
    device: torch.device | str = "cpu",
    prc_n: int = 10_000,
    cache: str | Path | None = None,
) -> dict[str, float]:
    """Compare samples with a reference in the features of a network.

    FID: Heusel et al. 2017, Eq. 6. KID: Bińkowski et al. 2018 (polynomial kernel of degree 3). IS: Salimans
    et al. 2016. Precision and recall: Kynkäänniemi et al. 2019 (k = 3), on the first samples and on equally
    spaced reference images, as many of each as `metric_settings` says. Random choices are seeded, and torch's
    global random state is left as it was.

    Args:
        samples: images ``(n, C, H, W)``, or a dataset of ``(C, H, W)``: uint8, or floats in [-1, 1].
        reference: the same, of the real images.
        extractor: a name or a file; see `ebmzoo.metrics.extractors.find_extractor`.
        metrics: some of "fid", "kid", "isc", "prc".
        inception_path: see `ebmzoo.metrics.extractors.find_extractor`.
        batch_size: images at once.
        device: where the network runs: CUDA, or the CPU.
        prc_n: see `metric_settings`.
        cache: a folder for features of the reference, found again by the images' and the weights' own hash.

    Returns:
        "fid" (not below 0), "kid" and "kid_std", "isc" and "isc_std", "precision" and "recall", as asked for.

    Raises:
        FileNotFoundError: the Inception weights are missing.
        ValueError: an unknown extractor or metric, fewer than two images, or images that the network cannot
            take.

    Example:
        >>> import torch
        >>> images = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8)
        >>> fidelity(images, images, metrics=["prc"])
        {'precision': 1.0, 'recall': 1.0}
    """
    if (unknown := sorted(set(metrics) - set(METRICS))) or not metrics:
        said = f"no metrics {', '.join(unknown)}" if unknown else "no metrics given"
        raise ValueError(f"{said}: choose from {', '.join(METRICS)}")
    network = find_extractor(extractor, inception_path)
    ours, theirs = _Bytes(samples, network), _Bytes(reference, network)
    least = _NEIGHBOURS + 1 if "prc" in metrics else 2
    if min(len(ours), len(theirs)) < least:
        raise ValueError(
            f"{', '.join(metrics)} need at least {least} images on each side, not {len(ours)} samples and "
            f"{len(theirs)} reference images"
        )
    prc = metric_settings("prc", len(ours), len(theirs), prc_n)
    apart = "prc" in metrics and (prc["n_used"], prc["n_used"]) != (len(ours), len(theirs))
    together = [metric for metric in metrics if not (apart and metric == "prc")]
    runs = [(together, ours, theirs)] if together else []
    if apart:
        spread = torch.linspace(0, len(theirs) - 1, prc["n_used"], dtype=torch.float64).round().long()
        chosen = _Bytes(samples, network, range(prc["n_used"])), _Bytes(reference, network, spread.tolist())
        runs.append((["prc"], *chosen))
    found: dict[str, float] = {}
    for names, left, right in runs:
        found |= _run(names, left, right, network, batch_size, torch.device(device), cache)
    if "fid" in found:
        found["fid"] = max(0.0, found["fid"])  # rounding can leave -1e-14 where the truth is 0
    return found


def _run(
    metrics: Sequence[str],
    samples: _Bytes,
    reference: _Bytes,
    network: Extractor,
    batch_size: int,
    device: torch.device,
    cache: str | Path | None,
) -> dict[str, float]:
    cuda = device.type == "cuda"
    sizes = len(samples), len(reference)
    options: dict[str, Any] = {
        **{metric: True for metric in metrics},
        **network.options,
        "cuda": cuda,
        "batch_size": batch_size,
        "kid_subset_size": metric_settings("kid", *sizes)["subset_size"],
        "isc_splits": metric_settings("isc", *sizes)["splits"],
        "prc_neighborhood": _NEIGHBOURS,
        "prc_batch_size": _PRC_CHUNK,
        "rng_seed": _RNG_SEED,
        "save_cpu_ram": True,  # no worker processes, and distances of precision/recall in chunks
        "cache": cache is not None,
        "verbose": False,
    }
    if cache is not None:
        options |= {"cache_root": str(cache), "input2_cache_name": _content(reference, network)}
    # A DataLoader draws its seed from the global generator.
    with torch.random.fork_rng(devices=[device] if cuda else []), torch.cuda.device(device if cuda else -1):
        computed = calculate_metrics(input1=samples, input2=reference, **options)
    return {name: float(computed[key]) for key, name in _NAMES.items() if key in computed}


def _content(images: _Bytes, network: Extractor) -> str:
    digest = hashlib.sha256(network.sha256.encode())
    for i in range(len(images)):
        pixels = images[i]
        digest.update(str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes())
    return digest.hexdigest()[:32]


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Exact Fréchet distance of the Gaussians of two sets of features, in float64.

    With A = (a − mean)/√(n−1), and B likewise: |Δmean|² + ‖A‖² + ‖B‖² − 2·(sum of the singular values of
    A·Bᵀ). It never forms a covariance's square root, so singular covariances do no harm.

    Args:
        features_a: ``(n, d)``.
        features_b: ``(m, d)``.

    Returns:
        The distance (squared, as the field reports it), not below 0.

    Raises:
        ValueError: for fewer than two rows, or different d.

    Example:
        >>> import torch
        >>> a = torch.tensor([[-1.0], [0.0], [1.0]])  # mean 0, variance 1
        >>> frechet_distance(a, 3 * a + 2)  # 2² + (3 - 1)²
        8.0
    """
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise ValueError(f"features are (n, d), not {tuple(features_a.shape)} and {tuple(features_b.shape)}")
    if min(len(features_a), len(features_b)) < 2:
        raise ValueError(f"a covariance needs two rows or more, not {len(features_a)} and {len(features_b)}")
    means, factors = [], []
    for features in (features_a, features_b):
        features = features.double()
        mean = features.mean(0)
        factor = (features - mean) / (len(features) - 1) ** 0.5
        # A = QR, and Q changes no singular value: a (d, d) problem whatever the number of rows.
        factors.append(torch.linalg.qr(factor, mode="r").R if len(factor) > factor.shape[1] else factor)
        means.append(mean)
    a, b = factors
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    distance = (means[0] - means[1]).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap
    return max(0.0, distance.item())


class _Features(nn.Module):
    """An extractor in the form that torchmetrics takes."""

    def __init__(self, network: nn.Module, num_features: int) -> None:
        super().__init__()
        self.network, self.num_features = network, num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


class StreamingFID:
    """The same FID in one pass, batch by batch, for validation during training.

    It keeps sums of features and of their products in float64, never images. Under several processes each
    feeds its own share, and `compute`, which all must call, adds the shares. `reset` keeps the reference.

    Args:
        extractor: a name or a file; see `ebmzoo.metrics.extractors.find_extractor`.
        inception_path: see `ebmzoo.metrics.extractors.find_extractor`.
        device: where the network runs.

    Example:
        >>> import torch
        >>> images = torch.rand(100, 1, 8, 8) * 2 - 1
        >>> fid = StreamingFID("digits")
        >>> fid.update(images, real=True)
        >>> fid.update(images, real=False)
        >>> round(fid.compute(), 6)
        0.0
    """

    def __init__(
        self,
        extractor: str = "digits",
        inception_path: str | Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.extractor = find_extractor(extractor, inception_path)
        self.device = torch.device(device)
        network = _Features(self.extractor.build(device), self.extractor.num_features)
        self._fid = FrechetInceptionDistance(feature=network, reset_real_features=False).to(self.device)

    @torch.no_grad()
    def update(self, images: Tensor, real: bool) -> None:
        """Add images ``(B, C, H, W)``, uint8 or floats in [-1, 1], to the reference or to the samples."""
        self._fid.update(self.extractor.bytes_of(images).to(self.device), real=real)

    def compute(self) -> float:
        """The distance of all samples since the last `reset` to the reference."""
        return max(0.0, self._fid.compute().item())

    def reset(self) -> None:
        """Forget the samples, keep the reference."""
        self._fid.reset()
