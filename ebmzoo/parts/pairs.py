"""Which pairs of codes and revised samples a generator learns from, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from ebmzoo.mcmc import ReplayBuffer


class Pairs(nn.Module):
    """The updates that a generator makes on the pairs (z, x̃) of a chain.

    Args:
        updates: how many a chain gives; the papers: 1.
        memory: they take the newest so many pairs, of this chain and those before it; 0 takes this chain's alone.

    Raises:
        ValueError: there is no update.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> z, revised = torch.zeros(3, 2), torch.ones(3, 2)
        >>> [(mean.shape, x.shape) for mean, x in Pairs(updates=2, memory=5)(nn.Identity(), z, z, revised)]
        [(torch.Size([3, 2]), torch.Size([3, 2])), (torch.Size([3, 2]), torch.Size([3, 2]))]
    """

    def __init__(self, updates: int = 1, memory: int = 0):
        super().__init__()
        if updates < 1:
            raise ValueError(f"a chain gives at least 1 update, not {updates}")
        self.updates, self.buffer = updates, ReplayBuffer(memory) if memory else None

    def forward(
        self, decode: Callable[[Tensor], Tensor], z: Tensor, generated: Tensor, revised: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x̂, x̃) for each update, x̂ made anew from the codes by the decoder as it is then.

        Args:
            decode: of codes to x̂.
            z: codes of this chain's samples.
            generated: x̂ as the chain began, with its graph.
            revised: x̃, where it ended.
        """
        z, revised = self.kept(z, revised)
        for update in range(self.updates):
            yield generated if self.buffer is None and not update else decode(z).to(revised.dtype), revised

    def kept(self, *pairs: Tensor) -> tuple[Tensor, ...]:
        """The pairs that updates take: these, or the newest of all."""
        if self.buffer is None:
            return pairs
        self.buffer.push(*pairs)
        return self.buffer.leaves
