"""Optimisers and learning-rate schedules that papers on the shelf need and torch does not have."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

_FUSED = (Adam, AdamW, SGD)


class ThreeSigmaAdam(Adam):
    """Adam whose gradients are first clipped, element by element, to ±(3·√v̂ + 0.1).

    v̂ is Adam's bias-corrected second moment of the element before this step; the first step is not clipped. It is the
    clip of IGEBM (Du and Mordatch, 2019) that VAEBM's appendix E takes over; 0.1 is its published code's. Weight decay
    comes after it.

    Args:
        params: what is optimised.
        sigmas: the factor on √v̂.
        floor: what is added, so that parameters that were still so far can begin to move.
        **settings: Adam's own.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = ThreeSigmaAdam([weight], lr=0.1, betas=(0.0, 0.0))
        >>> for gradient in (1.0, 50.0):
        ...     weight.grad = torch.full((1,), gradient)
        ...     optimizer.step()
        >>> round(weight.grad.item(), 4)
        3.1
    """

    def __init__(self, params: Any, sigmas: float = 3.0, floor: float = 0.1, **settings: Any) -> None:
        super().__init__(params, **settings)
        # In the groups, where the checkpoint keeps them.
        for group in self.param_groups:
            group.update(sigmas=sigmas, floor=floor)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Clip, then Adam's step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            met = defaultdict(list)  # gradients and second moments, by the number of steps that they have seen
            for parameter in group["params"]:
                state = self.state[parameter]
                if parameter.grad is not None and "exp_avg_sq" in state:
                    met[float(state["step"])].append((parameter.grad, state["exp_avg_sq"]))  # a number of the host's
            for step, pairs in met.items():
                gradients, moments = map(list, zip(*pairs, strict=True))
                bounds = torch._foreach_div(moments, 1 - group["betas"][1] ** step)
                torch._foreach_sqrt_(bounds)
                torch._foreach_mul_(bounds, group["sigmas"])
                torch._foreach_add_(bounds, group["floor"])
                torch._foreach_minimum_(gradients, bounds)
                torch._foreach_neg_(bounds)
                torch._foreach_maximum_(gradients, bounds)
        super().step()
        return loss


def fused(optimizer: Optimizer) -> Optimizer:
    """The optimiser, which updates all parameters in one kernel where it can and was not told otherwise.

    Example:
        >>> fused(Adam([torch.nn.Parameter(torch.zeros(1))])).param_groups[0]["fused"]
        True
    """
    for group in optimizer.param_groups:
        unsaid = group.get("fused", False) is None and group.get("foreach") is None
        if type(optimizer) in _FUSED and unsaid and all(p.is_floating_point() for p in group["params"]):
            group["fused"] = True
            optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]
    return optimizer


class WarmupCosine(LambdaLR):
    """A learning rate that rises linearly over ``warmup`` iterations, then falls as a cosine until ``total``.

    NVAE's schedule, with iterations in the place of epochs.

    Args:
        optimizer: whose rate it is; the rate given there is the peak.
        total: iterations until the end of the fall; constant afterwards.
        warmup: iterations of the rise.
        final: the rate at the end over the peak (NVAE: 1e-2).

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = WarmupCosine(optimizer, total=8, warmup=2, final=0.1)
        >>> rates = []
        >>> for _ in range(9):
        ...     rates.append(round(schedule.get_last_lr()[0], 2))
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.5, 1.0, 1.0, 0.94, 0.78, 0.55, 0.33, 0.16, 0.1]
    """

    def __init__(self, optimizer: Optimizer, total: int, warmup: int = 0, final: float = 0.01) -> None:
        if not 0 <= warmup < total:
            raise ValueError(f"a rise of {warmup} iterations does not fit into {total}")

        def factor(iteration: int) -> float:
            if iteration < warmup:
                return (iteration + 1) / warmup
            done = min((iteration - warmup) / (total - warmup), 1.0)
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, factor)


def ready(optimizer: Optimizer, device: torch.device) -> Optimizer:
    """The optimiser as a player's: one kernel a step on CUDA.

    Raises:
        ValueError: it takes several losses a step, such as L-BFGS: a player has one.
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} evaluates its loss several times a step, and a player has one loss a step: "
            f"take one that does not, such as Adam"
        )
    return fused(optimizer) if device.type == "cuda" else optimizer
