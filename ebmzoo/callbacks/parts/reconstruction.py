"""How well test images are reconstructed, and what a latent chain does for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ebmzoo.callbacks.figures import curves
from ebmzoo.methods.capabilities import InfersByChain, Reconstructs
from ebmzoo.metrics.reconstruction import ReconstructionErrors, reconstruction_errors, ssim_window

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["reconstructed"]

_MULTIPLES = (0, 0.5, 1, 2, 4)  # of the z chain's length
_N_CHAIN = 300


def reconstructed(e: Evaluation) -> str | None:
    """MSE, RMSE, PSNR and SSIM on the test split; MSE alone for points."""
    model = e.model
    if not isinstance(model, Reconstructs):
        return f"{type(model).__name__} reconstructs nothing"
    if e.kind != "images":
        errors = [(model.reconstruct(x) - x).double().square().flatten(1).mean(1) for x in e.batches("test")]
        protocol = e.of_data(sum(map(len, errors)), split="test", settings={"unit": "data's, squared"})
        e.results.add("mse_per_coordinate", torch.cat(errors).mean().item(), protocol)
        return None
    for name, value in _means(_errors(e, None)).items():
        e.results.add(name, value, e.of_data(len(e.data.reference("test")), split="test", settings=_how(e)))
    if isinstance(model, InfersByChain):
        _along_the_chain(e, model)
    return None


def _errors(e: Evaluation, most: int | None, **call: Any) -> ReconstructionErrors:
    """Errors of all test images, or the first ``most``."""
    parts = [reconstruction_errors(x, e.model.reconstruct(x, **call)) for x in e.batches("test", most)]
    return ReconstructionErrors(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _means(errors: ReconstructionErrors) -> dict[str, float]:
    mse = errors.mse.mean().item()
    psnr, ssim = errors.psnr.mean().item(), errors.ssim.mean().item()
    return {"mse_per_pixel": mse, "rmse_per_pixel": mse**0.5, "psnr": psnr, "ssim": ssim}


def _how(e: Evaluation) -> dict[str, Any]:
    window = ssim_window(min(e.model.image_shape[1:]))
    return {"unit": "images in [-1, 1]; PSNR in dB, peak 2, mean over images", "ssim_window": window}


def _along_the_chain(e: Evaluation, model: Any) -> None:
    """The same before the z chain, and at several lengths of it."""
    own = model.latent_sampler.steps
    lengths = sorted({round(own * multiple) for multiple in _MULTIPLES})
    n = min(_N_CHAIN, len(e.data.reference("test")))
    mse: list[float] = []
    for steps in lengths:
        found = _means(_errors(e, n, steps=steps, noise=e.plan.seed))
        mse.append(found["mse_per_pixel"])
        protocol = e.of_data(n, split="test", seed=e.plan.seed, settings={**_how(e), "z_steps": steps})
        suffix = "before_z_chain" if steps == 0 else f"z_steps_{steps}"
        for name in ("mse_per_pixel", "psnr", "ssim"):
            e.results.add(f"{name}_{suffix}", found[name], protocol)
    title = f"reconstruction along the z chain ({n:,} test images; {own} steps in training)"
    picture = curves({"MSE": torch.tensor(mse)}, lengths, "steps of the z chain", "MSE per pixel, in [-1, 1]", title)
    e.pictures["reconstruction_along_chain"] = picture
