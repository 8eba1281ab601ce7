"""What a sample costs: network evaluations, and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .tally import Tally

__all__ = ["network_evaluations", "seconds"]


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
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
