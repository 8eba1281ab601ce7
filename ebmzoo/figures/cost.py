"""What a sample costs: network evaluations, and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from ebmzoo.methods.capabilities import Samples

from .base import Figure, Findings, Look, Number
from .tally import Tally

__all__ = ["Cost", "network_evaluations", "seconds"]

_TIMES = 3


@dataclass(frozen=True)
class Cost(Figure):
    """Network evaluations for a sample, and seconds for as many samples as the papers time.

    Args:
        n: samples that the time is for, 2 or more; the papers: 50 (VAEBM), 64 (Denoising-EBM).
    """

    n: int = 50

    name, part, takes, needs = "cost of sampling", "generation", "model", (Samples,)

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"the cost of sampling needs n of at least 2, not {self.n}")

    def __call__(self, look: Look) -> Findings:
        def draw(n: int) -> Any:
            return look.model.sample(n, noise=look.noise())

        found = network_evaluations(look.model, draw)
        yield Number("network_evaluations", found, look.of_samples(2, rounding=None))
        times = [seconds(lambda: draw(self.n), look.device) for _ in range(_TIMES)]
        device = torch.cuda.get_device_name(look.device) if look.device.type == "cuda" else "cpu"
        where = {"unit": "s", "median of": _TIMES, "device": device, "threads": torch.get_num_threads()}
        yield Number(f"seconds_{self.n}_samples", median(times), look.of_samples(self.n, rounding=None, settings=where))


def network_evaluations(model: nn.Module, call: Callable[[int], Any], n: int = 2) -> int:
    """Network evaluations for an example: one forward of a network is one, a gradient through it another.

    Args:
        model: its networks are its children; see `Tally`.
        call: handles so many examples together, such as ``model.sample``.
        n: of examples.

    Example:
        >>> model = nn.ModuleDict({"energy": nn.Sequential(nn.Linear(2, 3), nn.SiLU(), nn.Linear(3, 1))})
        >>> network_evaluations(model, lambda n: model["energy"](torch.zeros(n, 2)))
        2
    """
    with Tally(model) as tally:
        call(n)
    return round(tally.total / n)


def seconds(call: Callable[[], Any], device: torch.device | str = "cpu") -> float:
    """Wall-clock seconds of a call, all of its work on the device done."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda _: None
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began
