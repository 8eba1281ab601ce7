"""What parts need of several processes; they know no trainer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of all processes' values, without a graph; as it is in a single process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Put the mean of all processes' gradients in their places, by one all-reduce; all have them of the same ones."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        mean = mean_over_processes(_flatten_dense_tensors(gradients))
        torch._foreach_copy_(gradients, list(_unflatten_dense_tensors(mean, gradients)))
