"""The figures of ``ebmzoo restore``, each with its protocol."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmzoo.checkpoints import read
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.methods import Method
from ebmzoo.metrics import Protocol, Results, config_hash, fidelity, find_extractor
from ebmzoo.metrics.protocol import ROUNDING
from ebmzoo.metrics.reconstruction import reconstruction_errors, ssim_window
from ebmzoo.tasks import Degradation, Restoration, Restorer

_ROUNDING_ERROR = (2 / 255) ** 2 / 12  # mean square of an error uniform over one step of a byte, in [-1, 1]


class Scores:
    """Collects what is measured of restored images, batch by batch; images are kept for the FID alone, as bytes.

    Args:
        options: the command's.
        model: what restores.
        restorer: how, its step size settled.

    Raises:
        FileNotFoundError: the weights of the FID's feature network are missing.
        ValueError: there is no such network, or it takes no such images.
    """

    def __init__(self, options: argparse.Namespace, model: Method, restorer: Restorer):
        self.options, self.model, self.restorer = options, model, restorer
        name, weights = options.extractor, options.inception_path
        self.extractor = None if name is None else find_extractor(name, weights)
        if self.extractor is not None:
            self.extractor.check(model.image_shape)
        self._values: dict[str, list[Tensor]] = {}  # one per image
        self._restored: list[Tensor] = []
        self._references: list[Tensor] = []
        self._window = 0

    def update(self, degradation: Degradation, y: Tensor, found: Restoration, reference: Tensor | None) -> None:
        """Measure a batch.

        Args:
            degradation: A.
            y: what was given, ``(B, ...)``.
            found: what was made of it.
            reference: the undamaged images, if they are there.
        """
        exact = degradation.complete(y, found.prediction)  # clamping, as of the image, would change A x
        error = (degradation.degrade(exact) - y).abs().flatten(1)
        self._add("consistency_max", error.amax(1))
        self._add("consistency_l1", error.sum(1))
        self._add("consistency_l1 of bytes", (degradation.degrade(_rounded(found.image)) - y).abs().flatten(1).sum(1))
        if reference is None:
            return
        # Dual-MCMC's figure 5 scores the predictions by themselves, visible pixels included.
        images = {"": found.image, "_degraded": degradation.lift(y), "_predicted": found.prediction}
        images["_before_chains"] = degradation.complete(y, found.start)
        images["_before_chains_predicted"] = found.start
        if self.restorer.x_sampler is not None:
            images["_after_z_chain"] = degradation.complete(y, found.latent)
            images["_after_z_chain_predicted"] = found.latent
        self._window = ssim_window(min(reference.shape[2:]))
        for ending, image in images.items():
            x = _rounded(image)
            self._add(f"psnr{ending}", psnr(x, reference))
            self._add(f"ssim{ending}", reconstruction_errors(reference, x).ssim)
        if self.extractor is not None:
            self._restored.append(to_uint8(found.image).cpu())
            self._references.append(to_uint8(reference).cpu())

    def _add(self, name: str, values: Tensor) -> None:
        self._values.setdefault(name, []).append(values.double().cpu())

    def write(self, path: Path, skipped: Sequence[str] = ()) -> list[str]:
        """Write ``results.json``, with a line for each image that could not be read; return lines for the terminal."""
        about = {
            "method": type(self.model).__name__,
            "checkpoint": str(self.options.ckpt_path),
            "skipped": list(skipped),
        }
        results = Results(path, run=about)
        values = {name: torch.cat(parts) for name, parts in self._values.items()}
        common = self._common(len(values["consistency_max"]))
        floats, rounded = (Protocol(**common, rounding=rounding) for rounding in ("none", ROUNDING))
        largest = values["consistency_max"].max().item()
        summed, of_bytes = (values[f"consistency_l1{of}"].mean().item() for of in ("", " of bytes"))
        results.add("consistency_max", largest, floats)
        results.add("consistency_l1", summed, floats)
        results.add("consistency_l1", of_bytes, rounded)
        lines = [
            f"consistency |A x - y| in [-1, 1]: largest {largest:.2g}, summed {summed:.3g} an image "
            f"({of_bytes:.3g} as PNG)"
        ]
        if "psnr" in values:
            lines += self._against(values, common, results)
        else:
            lines.append("PSNR, SSIM and FID were left out: no --reference, no --degrade")
        return [*lines, f"each number with its protocol: {results.write()}"]

    def _common(self, n: int) -> dict[str, Any]:
        restorer = self.restorer
        of_x: dict[str, Any] | None = None
        if restorer.x_sampler is not None:
            steps = {} if restorer.x_steps is None else {"steps": restorer.x_steps}
            of_x = {"class": type(restorer.x_sampler).__name__, **asdict(restorer.x_sampler), **steps}
        settings = {
            "task": self.options.task,
            "scale": self.options.scale,
            "mask": self.options.mask,
            "sigma": restorer.sigma,
            "energy_temperature": restorer.energy_temperature,
            "start": restorer.start,
            "x_chain": of_x,
        }
        return {
            "n": n,
            "ema": self.model.ema_active,
            "sampler": "Langevin in z",
            "steps": restorer.steps,
            "step_size": restorer.step_size,
            "temperature": restorer.temperature,
            "seed": self.options.seed,
            "config_hash": _config_hash(self.options.ckpt_path),
            "settings": settings,
        }

    def _against(self, values: Mapping[str, Tensor], common: dict[str, Any], results: Results) -> list[str]:
        n = len(values["psnr"])
        reference = "the inputs" if self.options.degrade else str(self.options.reference)
        named = {**common, "reference": reference, "n_reference": n, "rounding": ROUNDING}
        extra: dict[str, dict[str, Any]] = {
            "psnr": {"data_range": 2.0, "mean_over": "images", "least_squared_error": _ROUNDING_ERROR},
            "ssim": {"data_range": 2.0, "mean_over": "images", "ssim_window": self._window},
        }
        lines = []
        for metric, more in extra.items():
            protocol = Protocol(**{**named, "settings": {**common["settings"], **more}})
            means = {name: found.mean().item() for name, found in values.items() if name.startswith(metric)}
            for name, mean in means.items():
                results.add(name, mean, protocol)
            others = {name.removeprefix(f"{metric}_").replace("_", " "): mean for name, mean in means.items()}
            del others[metric]
            words = ", ".join(f"{name} {mean:.4g}" for name, mean in others.items())
            lines.append(f"{metric.upper()} {means[metric]:.4g} ({words})")
        return [*lines, self._fid(named, n, results)]

    def _fid(self, named: dict[str, Any], n: int, results: Results) -> str:
        network = self.extractor
        if network is None:
            return "FID was left out: no --extractor"
        if n <= network.num_features:
            enough = f"{network.num_features:,} features need more than so many images for a covariance"
            return f"FID was left out: {enough}, there are {n}"
        images, references = torch.cat(self._restored), torch.cat(self._references)
        how = self.options.extractor, ["fid"], self.options.inception_path
        value = fidelity(images, references, *how, device=self.model.device)["fid"]
        named = {**named, "extractor": network.name, "extractor_sha256": network.sha256, "resize": network.resize}
        results.add("fid", value, Protocol(**named))
        return f"FID {value:.4g} ({network.name}, {n:,} images against their references)"


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in [-1, 1], ``(B,)`` dB.

    A mean squared error counts as no less than that of rounding to bytes: an image that is restored to the byte has
    58.9 dB, and not infinitely many, which no mean survives.

    Example:
        >>> x = torch.zeros(1, 1, 4, 4)
        >>> psnr(x, x + 0.2), psnr(x, x)
        (tensor([20.0000], dtype=torch.float64), tensor([58.9226], dtype=torch.float64))
    """
    error = (x.double() - reference.double()).square().mean((1, 2, 3)).clamp_min(_ROUNDING_ERROR)
    return 10 * torch.log10(4 / error)


def _rounded(x: Tensor) -> Tensor:
    return from_uint8(to_uint8(x))


def _config_hash(path: str) -> str:
    checkpoint = read(path)
    return config_hash(checkpoint["ebmzoo"].get("config") or checkpoint.get("hyper_parameters") or {})
