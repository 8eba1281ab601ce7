"""BatchNorm's running statistics: of a training's batches, or of what a model generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def running_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Means and variances that BatchNorm layers normalise by in eval mode, by their names in the state_dict.

    Example:
        >>> running_statistics(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))).keys()
        dict_keys(['1.running_mean', '1.running_var'])
    """
    return {
        f"{name}.{kind}" if name else kind: statistic
        for name, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, _BatchNorm)
        for kind in ("running_mean", "running_var")
        if (statistic := getattr(layer, kind)) is not None
    }


@contextmanager
def normalising_by(module: nn.Module, statistics: Mapping[str, Tensor]) -> Iterator[None]:
    """Meanwhile BatchNorm layers have these statistics, by their names in the state_dict, and then their own again.

    Example:
        >>> norm = nn.BatchNorm1d(1).eval()
        >>> with normalising_by(norm, {"running_mean": torch.tensor([3.0])}):
        ...     norm(torch.tensor([[3.0]])).item()
        0.0
        >>> norm.running_mean.item()
        0.0
    """
    found = running_statistics(module) if statistics else {}
    own = {name: statistic.clone() for name, statistic in found.items()}
    try:
        for name, statistic in statistics.items():
            found[name].copy_(statistic)
        yield
    finally:
        for name, statistic in own.items():
            found[name].copy_(statistic)


def fitted(module: nn.Module, batch: Callable[[], object], batches: int) -> dict[str, Tensor]:
    """The statistics that `refit` would leave, by their names in the state_dict; none if nothing reaches such a layer.

    Example:
        >>> norm = nn.BatchNorm1d(1).eval()
        >>> fitted(norm, lambda: norm(torch.tensor([[2.0], [6.0]])), batches=3)["running_var"].item()
        8.0
        >>> norm.running_var.item()
        1.0
    """
    found = running_statistics(module)
    with torch.inference_mode(False), normalising_by(module, found):
        reached = refit(module, batch, batches)
        return {name: statistic.clone() for name, statistic in found.items()} if reached else {}


@torch.no_grad()
def refit(module: nn.Module, batch: Callable[[], object], batches: int) -> bool:
    """Give BatchNorm layers the statistics of what passes through them, with the weights as they are.

    Meanwhile each layer normalises by the batch's own statistics, as in training, whatever its mode; it is left with
    their mean over the batches. Nothing else of it moves, and layers that nothing reaches keep theirs.

    Args:
        module: whose layers.
        batch: sends one batch through them.
        batches: how many.

    Returns:
        Whether anything has reached such a layer.

    Example:
        >>> norm = nn.BatchNorm1d(1).eval()
        >>> refit(norm, lambda: norm(torch.tensor([[2.0], [6.0]])), batches=3)
        True
        >>> norm.running_mean.item(), norm.running_var.item()
        (4.0, 8.0)
    """
    found: dict[_BatchNorm, list[tuple[Tensor, Tensor]]] = {}

    def own(layer: _BatchNorm, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        variance, mean = torch.var_mean(x.to(layer.running_mean), [0, *range(2, x.dim())])
        found.setdefault(layer, []).append((mean, variance))
        _set(layer, mean, variance)

    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
    hooks = [layer.register_forward_pre_hook(own) for layer in layers]
    try:
        for _ in range(batches if layers else 0):
            batch()
    finally:
        for hook in hooks:
            hook.remove()
    for layer, seen in found.items():
        means, variances = zip(*seen, strict=True)
        _set(layer, torch.stack(means).mean(0), torch.stack(variances).mean(0))
    return bool(found)


def _set(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
