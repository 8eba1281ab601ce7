"""How well test images are reconstructed, and what a latent chain does for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ebmzoo import metrics
from ebmzoo.methods.capabilities import InfersByChain, Reconstructs

from .base import Figure, Findings, Look, Number, Picture, numbers
from .plots import curves

_MULTIPLES = (0, 0.5, 1, 2, 4)  # of the z chain's length
_N_CHAIN = 300


@dataclass(frozen=True)
class Reconstruction(Figure):
    """MSE, RMSE, PSNR and SSIM on the test split, along the z chain where there is one; MSE alone for points."""

    name, part, needs = "reconstruction", "reconstruction", (Reconstructs,)

    def __call__(self, look: Look) -> Findings:
        model, n = look.model, len(look.data.reference("test"))
        if look.kind != "images":
            errors = look.over(lambda x: _squared(model.reconstruct(x) - x), look.batches("test"))
            how = look.of_data(len(errors), "test", settings={"unit": "data's, squared"})
            yield Number("mse_per_coordinate", errors.mean().item(), how)
            return
        window = metrics.ssim_window(min(model.image_shape[1:]))
        settings = {"unit": "images in [-1, 1]; PSNR in dB, peak 2, mean over images", "ssim_window": window}
        yield from numbers(_means(look, None), look.of_data(n, "test", settings=settings))
        if not isinstance(model, InfersByChain):
            return
        own, n = model.latent_sampler.steps, min(_N_CHAIN, n)
        lengths = sorted({round(own * multiple) for multiple in _MULTIPLES})
        mse: list[float] = []
        for steps in lengths:
            found = _means(look, n, steps=steps, noise=look.seed)
            mse.append(found["mse_per_pixel"])
            protocol = look.of_data(n, "test", seed=look.seed, settings={**settings, "z_steps": steps})
            suffix = "before_z_chain" if steps == 0 else f"z_steps_{steps}"
            names = ("mse_per_pixel", "psnr", "ssim")
            yield from numbers({f"{name}_{suffix}": found[name] for name in names}, protocol)
        title = f"reconstruction along the z chain ({n:,} test images; {own} steps in training)"
        labels = "steps of the z chain", "MSE per pixel, in [-1, 1]"
        yield Picture("reconstruction_along_chain", curves({"MSE": torch.tensor(mse)}, lengths, *labels, title))


def _squared(error: torch.Tensor) -> torch.Tensor:
    return error.double().square().flatten(1).mean(1)


def _means(look: Look, most: int | None, **call: Any) -> dict[str, float]:
    """Means of the errors of all test images, or of the first ``most``."""
    parts = [metrics.reconstruction_errors(x, look.model.reconstruct(x, **call)) for x in look.batches("test", most)]
    mse, psnr, ssim = (torch.cat(values).mean().item() for values in zip(*parts, strict=True))
    return {"mse_per_pixel": mse, "rmse_per_pixel": mse**0.5, "psnr": psnr, "ssim": ssim}
