"""The figures of ``ebmzoo restore``, each with its protocol."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ebmzoo.checkpoints import read
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.methods import Method
from ebmzoo.metrics import Protocol, Results, config_hash, fidelity, find_extractor
from ebmzoo.metrics.protocol import ROUNDING
from ebmzoo.tasks import Degradation, Restorer

_ROUNDING_ERROR = (2 / 255) ** 2 / 12  # mean square of an error uniform over one step of a byte, in [-1, 1]


def write_scores(
    options: argparse.Namespace,
    model: Method,
    restorer: Restorer,
    degradation: Degradation,
    images: Mapping[str, Tensor],
    reference: Tensor | None,
    path: Path,
) -> list[str]:
    """Measure what was restored, write it, and say it.

    Args:
        options: the command's.
        model: what restored.
        restorer: how.
        degradation: of the first image, for the protocol.
        images: ``(n, C, H, W)``: "degraded" (A⁺y), "image" (restored), and the predictions "start", "latent" and
            "prediction", completed with y and, under the same name with " alone", as they are; and "error" ``(n, 3)``:
            the largest and the summed distance of A x̂ to y, and the latter after rounding to bytes.
        reference: the undamaged images, if they are there.
        path: of ``results.json``.

    Returns:
        Lines for the terminal.
    """
    results = Results(path, run={"method": type(model).__name__, "checkpoint": str(options.ckpt_path)})
    n = len(images["image"])
    settings: dict[str, Any] = {"task": options.task, **_of_operator(options, degradation), **_of_restorer(restorer)}
    common: dict[str, Any] = {
        "n": n,
        "ema": model.ema_active,
        "sampler": "Langevin in z",
        "steps": restorer.steps,
        "step_size": restorer.step_size,
        "temperature": restorer.temperature,
        "seed": options.seed,
        "config_hash": _config_hash(options.ckpt_path),
        "settings": settings,
    }
    error = images["error"].double()
    floats = Protocol(**common, rounding="none")
    rounded = Protocol(**common, rounding=ROUNDING)
    results.add("consistency_max", error[:, 0].max().item(), floats)
    results.add("consistency_l1", error[:, 1].mean().item(), floats)
    results.add("consistency_l1", error[:, 2].mean().item(), rounded)
    lines = [
        f"consistency |A x - y|: largest {error[:, 0].max():.2g}, summed {error[:, 1].mean():.3g} an image "
        f"(as PNG {error[:, 2].mean():.3g}), in [-1, 1]"
    ]
    if reference is None:
        lines.append("PSNR, SSIM and FID were left out: no --reference, no --degrade")
    else:
        lines += _against(options, images, reference, common, results)
    return [*lines, f"each number with its protocol: {results.write()}"]


def _against(
    options: argparse.Namespace,
    images: Mapping[str, Tensor],
    reference: Tensor,
    common: dict[str, Any],
    results: Results,
) -> list[str]:
    named = {
        "reference": "the inputs" if options.degrade else str(options.reference),
        "n_reference": len(reference),
        "rounding": ROUNDING,
    }
    stages = {"": "image", "_degraded": "degraded", "_before_chains": "start"}
    if common["settings"]["x_chain"] is not None:
        stages["_after_z_chain"] = "latent"
    # Dual-MCMC's figure 5 scores the predictions themselves, visible pixels included.
    alone = {"_predicted": "prediction alone"}
    alone |= {f"{ending}_predicted": f"{stage} alone" for ending, stage in stages.items() if f"{stage} alone" in images}
    stages |= alone
    size = _window(reference)
    settings: dict[str, dict[str, Any]] = {
        "psnr": {"data_range": 2.0, "mean_over": "images", "least_squared_error": _ROUNDING_ERROR},
        "ssim": {"data_range": 2.0, "window": size, "sigma": 1.5},
    }
    lines = []
    for metric, extra in settings.items():
        protocol = Protocol(**{**common, **named, "settings": {**common["settings"], **extra}})
        found = {}
        for ending, stage in stages.items():
            x = from_uint8(to_uint8(images[stage]))
            found[ending] = psnr(x, reference) if metric == "psnr" else ssim(x, reference, size)
            results.add(metric + ending, found[ending], protocol)
        words = ", ".join(f"{name.strip('_').replace('_', ' ')} {value:.4g}" for name, value in found.items() if name)
        lines.append(f"{metric.upper()} {found['']:.4g} ({words})")
    if options.extractor is None:
        return [*lines, "FID was left out: no --extractor"]
    network = find_extractor(options.extractor, options.inception_path)
    if len(reference) <= network.num_features:
        enough = f"{network.num_features:,} features need more than so many images for a covariance"
        return [*lines, f"FID was left out: {enough}, there are {len(reference)}"]
    value = fidelity(images["image"], reference, options.extractor, ["fid"], options.inception_path)["fid"]
    about = {"extractor": network.name, "extractor_sha256": network.sha256, "resize": network.resize}
    results.add("fid", value, Protocol(**{**common, **named, **about}))
    return [*lines, f"FID {value:.4g} ({network.name}, {len(reference):,} images against their references)"]


def psnr(x: Tensor, reference: Tensor) -> float:
    """Mean over images of the peak signal-to-noise ratio, dB, of images in [-1, 1].

    An image's mean squared error counts as no less than that of rounding to bytes: one that is restored to the byte
    has 58.9 dB, and not infinitely many, which no mean survives.

    Example:
        >>> x = torch.zeros(2, 1, 4, 4)
        >>> round(psnr(x, x + 0.2), 3), round(psnr(x, x), 1)
        (20.0, 58.9)
    """
    error = (x.double() - reference.double()).square().mean((1, 2, 3)).clamp_min(_ROUNDING_ERROR)
    return (10 * torch.log10(4 / error)).mean().item()


def ssim(x: Tensor, reference: Tensor, window: int) -> float:
    """Mean over images of the structural similarity with a Gaussian window, of images in [-1, 1]."""
    found = structural_similarity_index_measure(x, reference, data_range=2.0, kernel_size=window)
    assert isinstance(found, Tensor)  # not the pair with the full image, which was not asked for
    return found.item()


def _window(images: Tensor) -> int:
    """11 px, as published; the largest odd size within half an image where that is smaller."""
    half = min(images.shape[2:]) // 2
    return min(11, half - 1 + half % 2)


def _of_operator(options: argparse.Namespace, degradation: Degradation) -> dict[str, Any]:
    if options.task == "superres":
        return {"scale": degradation.scale}  # type: ignore[attr-defined]
    return {"mask": options.mask} if options.task == "inpaint" else {}


def _of_restorer(restorer: Restorer) -> dict[str, Any]:
    x_chain = None if restorer.x_sampler is None else {"class": type(restorer.x_sampler).__name__}
    if restorer.x_sampler is not None and x_chain is not None:
        x_chain |= asdict(restorer.x_sampler) | ({} if restorer.x_steps is None else {"steps": restorer.x_steps})
    return {
        "sigma": restorer.sigma,
        "energy_temperature": restorer.energy_temperature,
        "start": restorer.start,
        "step_size": restorer.step_size or "half of the largest that the likelihood's curvature allows",
        "x_chain": x_chain,
    }


def _config_hash(path: str) -> str:
    checkpoint = read(path)
    return config_hash(checkpoint["ebmzoo"].get("config") or checkpoint.get("hyper_parameters") or {})
