"""Networks as they must be inside a chain: eval mode, no parameter gradients, nothing that moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode without parameter gradients; restore both afterwards, on an exception too.

    In eval mode spectral-norm vectors and BatchNorm statistics do not move, so the potential is the same function at
    every step of the chain. Sub-modules get back the very flags they had.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with frozen(net):
        ...     print(net.training, net[0].weight.requires_grad)
        False False
        >>> net.training, net[0].weight.requires_grad
        (True, True)
    """
    # Lists, not generators: a generator that an optimiser has exhausted freezes nothing.
    parts = [part for module in modules for part in module.modules()]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    training = [part.training for part in parts]
    required = [parameter.requires_grad for parameter in parameters]
    try:
        for part in parts:
            part.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, flag in zip(parts, training, strict=True):
            part.training = flag
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
