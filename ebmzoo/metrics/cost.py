"""What a sample costs: network evaluations, and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from ebmzoo.metrics.chains import swapped

__all__ = ["network_evaluations", "seconds"]


def network_evaluations(model: nn.Module, call: Callable[[], Any]) -> int:
    """Network evaluations of a call, for each example: one forward of a network is one, a gradient through it another.

    A network is a direct child of the model; of a network that is used in parts, the part used most often counts.

    Args:
        model: its networks are its children.
        call: handles all examples together, such as ``lambda: model.sample(2)``.

    Example:
        >>> model = nn.ModuleDict({"energy": nn.Sequential(nn.Linear(2, 3), nn.SiLU(), nn.Linear(3, 1))})
        >>> network_evaluations(model, lambda: model["energy"](torch.zeros(5, 2, requires_grad=True)).sum().backward())
        2
    """
    # A trace would not call the networks' layers.
    with swapped(model, lambda _, sampler: replace(sampler, backend="eager")), _counting(model) as counts:
        call()
    return sum(max(used, default=0) for kind in counts for used in kind)


@contextmanager
def _counting(model: nn.Module) -> Iterator[tuple[list[list[int]], list[list[int]]]]:
    """Forwards and gradients of each layer, by network."""
    forwards: list[list[int]] = []
    gradients: list[list[int]] = []
    handles = []

    def hook(forward: list[int], gradient: list[int], place: int) -> Callable[..., None]:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            forward[place] += 1
            if isinstance(output, Tensor) and output.requires_grad:
                output.register_hook(lambda _: _add(gradient, place))

        return count

    for network in model.children():
        layers = list(_layers(network))
        forwards.append([0] * len(layers))
        gradients.append([0] * len(layers))
        for place, layer in enumerate(layers):
            handles.append(layer.register_forward_hook(hook(forwards[-1], gradients[-1], place)))
    try:
        yield forwards, gradients
    finally:
        for handle in handles:
            handle.remove()


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that hold weights of their own."""
    if isinstance(module, ParametrizationList):
        return  # called whenever a weight is looked at
    if any(True for _ in module.parameters(recurse=False)) or hasattr(module, "parametrizations"):
        yield module
    for name, child in module.named_children():
        if name != "parametrizations":
            yield from _layers(child)


def _add(counts: list[int], place: int) -> None:
    counts[place] += 1


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
