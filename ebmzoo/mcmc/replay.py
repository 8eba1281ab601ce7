"""The replay buffer of persistent chains: first in, first out, plain tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .noise import Noise


class ReplayBuffer:
    """The newest ``capacity`` examples, each a tuple of tensors, drawn uniformly with replacement.

    The tensors are plain attributes, not module buffers: DDP would overwrite those with rank 0's. A method saves
    `state_dict` with its checkpoint.

    Args:
        capacity: number of examples kept.

    Example:
        >>> from ebmzoo.mcmc import as_noise
        >>> buffer = ReplayBuffer(3)
        >>> buffer.push(torch.arange(5.0).view(5, 1))
        >>> len(buffer), sorted(buffer.leaves[0].flatten().tolist())
        (3, [2.0, 3.0, 4.0])
        >>> (x,) = buffer.draw(8, as_noise(0))
        >>> x.shape
        torch.Size([8, 1])
    """

    def __init__(self, capacity: int):
        if capacity < 1:
            raise ValueError(f"a replay buffer holds at least one example, not {capacity}")
        self.capacity = capacity
        self.leaves: tuple[Tensor, ...] = ()
        self._next = 0

    def __len__(self) -> int:
        return len(self.leaves[0]) if self.leaves else 0

    def push(self, *leaves: Tensor) -> None:
        """Add a batch of examples (each leaf ``(B, …)``); the oldest go when the buffer is full."""
        leaves = tuple(leaf.detach()[-self.capacity :] for leaf in leaves)
        self._follow(leaves)
        room = self.capacity - len(self)
        if room:
            fresh = tuple(leaf[:room] for leaf in leaves)
            self.leaves = (
                tuple(torch.cat(pair) for pair in zip(self.leaves, fresh, strict=True))
                if self.leaves
                else tuple(leaf.clone() for leaf in fresh)
            )
            leaves = tuple(leaf[room:] for leaf in leaves)
        count = len(leaves[0])
        if count:
            slots = (torch.arange(count, device=leaves[0].device) + self._next) % self.capacity
            for kept, leaf in zip(self.leaves, leaves, strict=True):
                kept[slots] = leaf
            self._next = (self._next + count) % self.capacity

    def draw(self, n: int, noise: Noise) -> tuple[Tensor, ...]:
        """``n`` examples drawn uniformly with replacement, copied."""
        if not len(self):
            raise ValueError("nothing was pushed into this replay buffer yet")
        rows = noise.integers(len(self), (n,), like=self.leaves[0])
        return tuple(leaf[rows] for leaf in self.leaves)

    def mix(self, fresh: tuple[Tensor, ...], probability: float, noise: Noise) -> tuple[Tensor, ...]:
        """The fresh examples, each replaced with a probability by a kept one; an empty buffer replaces none.

        Example:
            >>> from ebmzoo.mcmc import as_noise
            >>> buffer = ReplayBuffer(2)
            >>> buffer.push(torch.ones(2, 1))
            >>> buffer.mix((torch.zeros(5, 1),), 0.6, as_noise(0))[0].sum().item()
            4.0
        """
        if not len(self) or not probability:
            return fresh
        self._follow(fresh)
        old = noise.uniform((len(fresh[0]),), fresh[0]) < probability
        kept = self.draw(len(fresh[0]), noise)
        return tuple(torch.where(old.view(-1, *[1] * (f.dim() - 1)), k, f) for f, k in zip(fresh, kept, strict=True))

    def _follow(self, leaves: tuple[Tensor, ...]) -> None:
        """Move to where examples now come from, in their dtype: a checkpoint is read on the CPU."""
        self.leaves = tuple(kept.to(leaf) for kept, leaf in zip(self.leaves, leaves, strict=False))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` restores exactly."""
        return {"leaves": list(self.leaves), "next": self._next, "capacity": self.capacity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: the state belongs to a buffer of another capacity.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(f"this replay buffer holds {self.capacity} examples, the saved one {state['capacity']}")
        self.leaves = tuple(leaf.clone() for leaf in state["leaves"])
        self._next = int(state["next"])

    def load_share(self, states: Sequence[dict[str, Any]], rank: int, world_size: int) -> None:
        """Restore one process's buffer of those that several processes saved.

        As many processes as there were get each its own back; of another number, each gets its share of all examples.

        Args:
            states: what `state_dict` gave, in rank order.
            rank: this process.
            world_size: number of processes now.
        """
        if len(states) == world_size:
            self.load_state_dict(states[rank])
            return
        self.leaves, self._next = (), 0
        oldest_first = [[leaf.roll(-state["next"], 0) for leaf in state["leaves"]] for state in states]
        if not (filled := [leaves for leaves in oldest_first if leaves]):
            return
        # Age by age over all processes: a smaller buffer then keeps the newest of each.
        ages = torch.cat([torch.arange(-len(leaves[0]), 0) for leaves in filled])
        mine = ages.argsort(stable=True)[rank::world_size]
        self.push(*(torch.cat(parts)[mine] for parts in zip(*filled, strict=True)))
