"""How good samples are, before and after the chain, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmzoo.callbacks.looking import chain_steps
from ebmzoo.images import save_images
from ebmzoo.methods.capabilities import Samples
from ebmzoo.metrics import (
    classifier_report,
    fidelity,
    find_extractor,
    load_digit_classifier,
    metric_settings,
    mode_coverage,
    stacked_report,
)
from ebmzoo.metrics.cost import network_evaluations, seconds
from ebmzoo.metrics.digit_classifier import WEIGHTS, sha256_of

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["classified", "cost", "fidelity_of_samples", "other_end", "saved"]

_PRC_N = 10_000
_FAST_N = 1000
_TIMES = 3


def saved(e: Evaluation, samples: Tensor) -> str | None:
    """The samples themselves as PNGs, so that anybody can measure them again."""
    if e.plan.save_samples:
        save_images(samples, e.plan.folder / "samples")
    return None


def fidelity_of_samples(e: Evaluation, samples: Tensor) -> str | None:
    """FID, KID, IS, precision and recall against the training split, and the FID of the first 1,000 samples."""
    plan = e.plan
    if plan.extractor is None or not plan.metrics:
        return "no extractor or no metrics asked for"
    network = find_extractor(plan.extractor, plan.inception_path)
    n_reference = len(e.data.reference("train"))
    family = {"precision": "prc", "recall": "prc"}
    for name, value in compare(e, samples, plan.metrics).items():
        metric = family.get(name, name.removesuffix("_std"))
        settings = metric_settings(metric, len(samples), n_reference, _PRC_N)
        protocol = e.of_samples(
            settings.pop("n_used", len(samples)),
            reference=e.name("train"),
            n_reference=settings.pop("n_reference_used", n_reference),
            settings=settings,
            **about(network),
        )
        e.results.add(name, value, protocol)
    if "fid" in plan.metrics and len(samples) >= _FAST_N:
        value = compare(e, samples[:_FAST_N], ["fid"])["fid"]
        e.results.add("fid_1k", value, e.of_samples(_FAST_N, split="train", **about(network)))
    return None


def compare(e: Evaluation, samples: Tensor, metrics: Sequence[str]) -> dict[str, float]:
    """`fidelity` of samples against the training split, as this evaluation was told."""
    plan = e.plan
    return fidelity(
        samples,
        e.data.reference("train"),
        plan.extractor or "digits",
        metrics,
        plan.inception_path,
        batch_size=min(plan.batch_size, 100),
        device=e.device,
        prc_n=_PRC_N,
        cache=plan.cache,
    )


def about(network: Any) -> dict[str, Any]:
    """What a protocol says of an extractor."""
    return {"extractor": network.name, "extractor_sha256": network.sha256, "resize": network.resize}


def classified(e: Evaluation, samples: Tensor) -> str | None:
    """What the digit classifier says of the samples; of stacked digits, which have one in each channel, their modes."""
    stacked = hasattr(e.data.reference("train"), "modes")
    if e.plan.extractor != "digits" and not stacked:
        return "it needs the digit extractor"
    path = getattr(e.data, "classifier", WEIGHTS) if stacked else WEIGHTS
    if path is None:
        return (
            f"the modes of {e.data.name} need a classifier of its digits: make one with python -m "
            "ebmzoo.metrics.digit_classifier --mnist ROOT --out FILE, and give FILE as data.init_args.classifier"
        )
    network = load_digit_classifier(path)
    resize = f"area average to {network.side}x{network.side}"
    protocol = e.of_samples(
        len(samples), extractor="digits", extractor_sha256=sha256_of(path), resize=resize, settings={"sure": 0.9}
    )
    report = stacked_report(samples, network=network) if stacked else classifier_report(samples)
    for name, value in report.items():
        e.results.add(name, value, protocol)
    return None


def other_end(e: Evaluation) -> str | None:
    """The same distance at the other end of the chain: before it, or after it where samples are made in one step."""
    own, steps = int(e.sampler["steps"] or 0), chain_steps(e.model)
    if not isinstance(e.model, Samples) or not steps:
        return None
    name, steps = ("before_chain", 0) if own else ("after_chain", steps)
    n = e.plan.n_test
    if e.kind == "images":
        if e.plan.extractor is None or "fid" not in e.plan.metrics:
            return None
        network = find_extractor(e.plan.extractor, e.plan.inception_path)
        value = compare(e, e.draw(n, steps), ["fid"])["fid"]
        protocol = e.of_samples(n, split="train", steps=steps, **about(network))
        e.results.add(f"fid_{name}", value, protocol)
        return None
    density = getattr(e.data, "density", None)
    if density is None or not hasattr(density, "means"):
        return None
    found = mode_coverage(e.draw(n, steps), density.means, density.std)
    protocol = e.of_samples(n, rounding=None, steps=steps, settings={"within": "4 s", "std": density.std})
    e.results.add(f"mode_high_quality_share_{name}", found.high_quality_share, protocol)
    return None


def cost(e: Evaluation) -> str | None:
    """Network evaluations for a sample, and seconds for as many samples as the papers time."""
    if not isinstance(e.model, Samples):
        return f"{type(e.model).__name__} does not sample"
    model: Any = e.model
    n = e.plan.n_timed
    found = network_evaluations(model, lambda n: model.sample(n, noise=e.noise()))
    e.results.add("network_evaluations", found, e.of_samples(2, rounding=None))
    times = [seconds(lambda: model.sample(n, noise=e.noise()), e.device) for _ in range(_TIMES)]
    device = torch.cuda.get_device_name(e.device) if e.device.type == "cuda" else "cpu"
    where = {"unit": "s", "median of": _TIMES, "device": device, "threads": torch.get_num_threads()}
    e.results.add(f"seconds_{n}_samples", median(times), e.of_samples(n, rounding=None, settings=where))
    return None
