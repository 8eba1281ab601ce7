"""The one source of noise: every random number of a chain or a method comes from one of these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Noise:
    """Random numbers, batch first, from the global generator.

    Methods and kernels never call ``torch.randn`` themselves: they are handed a noise and draw from it, so that a
    caller decides whether a run is seeded, whether two processes share one stream, or whether each image has its own.

    Example:
        >>> noise = as_noise(0)
        >>> noise.normal((4, 2)).shape
        torch.Size([4, 2])
    """

    generator: torch.Generator | None = None

    def normal(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Standard normal numbers of ``shape`` (batch first), with the dtype and device of ``like``."""
        return self.normal_(_empty(shape, like))

    def uniform(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Numbers uniform in [0, 1) of ``shape`` (batch first), with the dtype and device of ``like``."""
        return self.uniform_(_empty(shape, like))

    def integers(self, high: int, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Integers (int64) uniform in [0, high) of ``shape`` (batch first), on the device of ``like``."""
        out = torch.empty(tuple(shape), dtype=torch.int64, device=None if like is None else like.device)
        return self.integers_(high, out)

    def normal_(self, out: Tensor) -> Tensor:
        """Fill ``out`` with standard normal numbers, in place: the hot loop's form, which allocates nothing."""
        return out.normal_(generator=self.generator)

    def uniform_(self, out: Tensor) -> Tensor:
        """Fill ``out`` with numbers uniform in [0, 1), in place."""
        return out.uniform_(generator=self.generator)

    def integers_(self, high: int, out: Tensor) -> Tensor:
        """Fill the int64 tensor ``out`` with integers uniform in [0, high), in place."""
        return out.random_(0, high, generator=self.generator)


class GlobalNoise(Noise):
    """Draws from torch's global generator of the tensor's device."""


class GeneratorNoise(Noise):
    """Draws from one ``torch.Generator``, which must live on the device of what is drawn."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator


class JointNoise(Noise):
    """Draws for the joint batch of all processes and keeps this process's rows.

    Two processes that hold equally seeded generators then see, together, exactly the numbers that one process would
    draw for the joined batch.

    Args:
        generator: equally seeded in every process.
        rank: this process, 0 ≤ rank < world_size.
        world_size: number of processes.

    Example:
        >>> one = GeneratorNoise(torch.Generator().manual_seed(0)).normal((4, 3))
        >>> two = [JointNoise(torch.Generator().manual_seed(0), rank, 2).normal((2, 3)) for rank in range(2)]
        >>> torch.equal(one, torch.cat(two))
        True
    """

    def __init__(self, generator: torch.Generator, rank: int, world_size: int):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} does not lie in [0, {world_size})")
        self.generator, self.rank, self.world_size = generator, rank, world_size

    def _rows(self, out: Tensor) -> tuple[Tensor, slice]:
        joint = out.new_empty((self.world_size * out.shape[0], *out.shape[1:]))
        return joint, slice(self.rank * out.shape[0], (self.rank + 1) * out.shape[0])

    def normal_(self, out: Tensor) -> Tensor:
        joint, rows = self._rows(out)
        return out.copy_(super().normal_(joint)[rows])

    def uniform_(self, out: Tensor) -> Tensor:
        joint, rows = self._rows(out)
        return out.copy_(super().uniform_(joint)[rows])

    def integers_(self, high: int, out: Tensor) -> Tensor:
        joint, rows = self._rows(out)
        return out.copy_(super().integers_(high, joint)[rows])


class SharedNoise(GeneratorNoise):
    """The same draw for every example of a batch, so that what it decides of one does not depend on the others.

    Example:
        >>> a, b = SharedNoise(torch.Generator().manual_seed(0)).normal((2, 3))
        >>> torch.equal(a, b)
        True
    """

    def normal_(self, out: Tensor) -> Tensor:
        return out.copy_(super().normal_(torch.empty_like(out[:1])))

    def uniform_(self, out: Tensor) -> Tensor:
        return out.copy_(super().uniform_(torch.empty_like(out[:1])))

    def integers_(self, high: int, out: Tensor) -> Tensor:
        return out.copy_(super().integers_(high, torch.empty_like(out[:1])))

    @classmethod
    def of_seed(cls, seed: int, device: torch.device | str = "cpu") -> SharedNoise:
        """From a generator of its own."""
        return cls(torch.Generator(device).manual_seed(seed))


class PerImageNoise(Noise):
    """One generator per example, so that an image does not depend on the batch it is drawn in.

    Every draw must have as many rows as there are seeds.

    Example:
        >>> together = PerImageNoise([7, 8]).normal((2, 3))
        >>> torch.equal(together[1:], PerImageNoise([8]).normal((1, 3)))
        True
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self.generators = [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]

    @classmethod
    def of_rows(cls, seed: int, rows: Iterable[int], device: torch.device | str = "cpu") -> PerImageNoise:
        """The noise of the images with these numbers in a set that one seed decides.

        Within a set of up to 2³² images no two seeds are equal; the sets of two seeds begin at unrelated places.

        Example:
            >>> whole = PerImageNoise.of_rows(0, range(5)).normal((5, 2))
            >>> torch.equal(whole[3:], PerImageNoise.of_rows(0, [3, 4]).normal((2, 2)))
            True
        """
        # PyTorch's generator on the CPU looks at the lower 32 bits alone.
        first = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "little")
        return cls([(first + row) % 2**32 for row in rows], device)

    def _pairs(self, out: Tensor) -> list[tuple[Tensor, torch.Generator]]:
        if out.shape[0] != len(self.generators):
            raise ValueError(f"{out.shape[0]} rows asked of a noise with {len(self.generators)} seeds, one an image")
        return list(zip(out, self.generators, strict=True))

    def normal_(self, out: Tensor) -> Tensor:
        for row, generator in self._pairs(out):
            row.normal_(generator=generator)
        return out

    def uniform_(self, out: Tensor) -> Tensor:
        for row, generator in self._pairs(out):
            row.uniform_(generator=generator)
        return out

    def integers_(self, high: int, out: Tensor) -> Tensor:
        for row, generator in self._pairs(out):
            row.random_(0, high, generator=generator)
        return out


def as_noise(source: None | int | torch.Generator | Noise, device: torch.device | str = "cpu") -> Noise:
    """A noise from what users hand in: nothing (global), a seed, a generator, or a noise.

    Args:
        source: ``None``, a seed, a ``torch.Generator`` or a `Noise`.
        device: where a seed's generator lives; it must be the device of what is drawn.
    """
    if source is None:
        return GlobalNoise()
    if isinstance(source, Noise):
        return source
    if isinstance(source, torch.Generator):
        return GeneratorNoise(source)
    return GeneratorNoise(torch.Generator(device).manual_seed(source))


def _empty(shape: Sequence[int], like: Tensor | None) -> Tensor:
    if like is None:
        return torch.empty(tuple(shape))
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
