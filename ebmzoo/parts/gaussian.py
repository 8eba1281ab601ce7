"""Diagonal Gaussians, in the one convention of this package: a mean and the logarithm of the standard deviation."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class Gaussian(NamedTuple):
    """N(mean, diag σ²), one for each example; both broadcast to what it is a density of.

    Attributes:
        mean: ``(B, …)``.
        log_sigma: log σ.

    Example:
        >>> import torch
        >>> q = Gaussian(torch.ones(1, 2), torch.zeros(1, 2))
        >>> q.kl().item(), q.kl(q).item(), q.draw(torch.zeros(1, 2)).tolist()
        (1.0, 0.0, [[1.0, 1.0]])
    """

    mean: Tensor
    log_sigma: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """mean + σ·noise, of white noise."""
        return self.mean + self.log_sigma.exp() * noise

    def white(self, x: Tensor) -> Tensor:
        """The noise that `draw` turns into x."""
        return (x - self.mean) * (-self.log_sigma).exp()

    def log_prob(self, x: Tensor) -> Tensor:
        """log-density of x, ``(B,)`` nats."""
        return -(0.5 * self.white(x).square() + self.log_sigma + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def kl(self, other: Gaussian | None = None) -> Tensor:
        """KL(self ‖ other), ``(B,)`` nats; None is N(0, I)."""
        if other is None:
            log_variance = 2 * self.log_sigma
            return 0.5 * (self.mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        square = (2 * (self.log_sigma - other.log_sigma)).exp() + other.white(self.mean).square()
        return (other.log_sigma - self.log_sigma + 0.5 * (square - 1)).flatten(1).sum(1)

    def entropy(self) -> Tensor:
        """``(B,)`` nats; both attributes have the batch."""
        return 0.5 * (2 * self.log_sigma + math.log(2 * math.pi) + 1).flatten(1).sum(1)
