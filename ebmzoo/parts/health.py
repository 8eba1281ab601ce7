"""What is logged of a training chain."""

from __future__ import annotations

from torch import Tensor

from ebmzoo.mcmc import Chain
from ebmzoo.parts.objectives import squared_error


def health(start: Tensor, end: Tensor, chain: Chain) -> dict[str, Tensor]:
    """How far a chain moved the data, its last gradient, the values at the edge.

    Args:
        start: the data where the chain began, ``(B, …)``.
        end: and where it ended.
        chain: whose gradient and acceptances these are.
    """
    moved, inside = end - start, end.abs() < 1
    found = {
        "mcmc/displacement": squared_error(start, end).sqrt(),
        # Root mean square of a value. Bounds move those beyond them also where a chain stands still.
        "mcmc/movement": ((moved.square() * inside).sum() / inside.sum().clamp_min(1)).sqrt(),
        "mcmc/grad_norm": chain.grad_norm,
        "mcmc/saturation": (end.abs() >= 1).float(),
        "mcmc/acceptance": chain.acceptance,
        "mcmc/proposal_acceptance": chain.proposal_acceptance,
    }
    return {name: value for name, value in found.items() if value is not None}
