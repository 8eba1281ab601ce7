"""The order of batches: a pure function of (seed, epoch), with any workers, processes and resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from ebmzoo.seeds import FLIPS, ORDER, mixed


class Rows(NamedTuple):
    """One batch to be read: which rows (int64 ``(B,)``), in which epoch (augmentation depends on it)."""

    numbers: Tensor
    epoch: int


def flips(n: int, probability: float, seed: int, epoch: int) -> Tensor:
    """Which of ``n`` rows are mirrored in this epoch.

    A function of its arguments alone: the same with any number of workers, in any order, after any resume.

    Args:
        n: number of rows of the training set.
        probability: of a flip, for each row independently.
        seed: of the run.
        epoch: counted from 0.

    Returns:
        bool ``(n,)``.

    Example:
        >>> flips(10_000, 0.5, seed=0, epoch=3).float().mean().round(decimals=1)
        tensor(0.5000)
    """
    return torch.rand(n, generator=torch.Generator().manual_seed(mixed(seed, epoch, FLIPS))) < probability


class EpochBatches(DistributedSampler[Rows]):
    """Batches of row numbers, shuffled by a permutation that depends on (seed, epoch) only.

    Under several processes a global batch of ``world * batch_size`` consecutive rows of the permutation is
    cut contiguously by rank, so that the processes together see what one process with the joined batch would
    see. It is used with ``DataLoader(dataset, sampler=EpochBatches(...), batch_size=None)``: the dataset gets
    the whole batch.

    It derives from `DistributedSampler` because Lightning leaves such a sampler alone, whatever
    ``use_distributed_sampler`` says, and calls its ``set_epoch``.

    Args:
        n: number of rows.
        batch_size: rows in a batch of one process.
        seed: of the permutations.
        drop_last: leave out the last, smaller global batch. If kept, it is cut as evenly as can be; where it
            has fewer rows than there are processes it joins the batch before, so that no process gets an
            empty batch.
        rank: this process; by default that of torch.distributed, or 0.
        world: number of processes; by default that of torch.distributed, or 1.
        shuffle: ``False`` keeps the rows' own order.

    Attributes:
        skip: batches of the current epoch that were consumed already, before a resume. They are left out
            once, of the next pass; the length does not change.

    Raises:
        ValueError: if no batch comes out, or a number is out of range.

    Example:
        >>> batches = EpochBatches(10, batch_size=4, seed=0)
        >>> batches.set_epoch(2)
        >>> first, second = batches
        >>> first.numbers.shape, first.epoch, len(batches)
        (torch.Size([4]), 2, 2)
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = True,
        rank: int | None = None,
        world: int | None = None,
        shuffle: bool = True,
    ) -> None:
        if n < 1 or batch_size < 1 or seed < 0:
            raise ValueError(f"n >= 1, batch_size >= 1, seed >= 0 are needed, not {n}, {batch_size}, {seed}")
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = (torch.distributed.get_world_size() if distributed else 1) if world is None else world
        rank = (torch.distributed.get_rank() if distributed else 0) if rank is None else rank
        super().__init__(cast(Dataset, range(n)), world, rank, shuffle, seed, drop_last)
        self.n, self.batch_size, self.skip = n, batch_size, 0
        whole, rest = divmod(n, world * batch_size)
        if drop_last and whole == 0:
            raise ValueError(
                f"a batch of {batch_size} on {world} process(es) needs {world * batch_size} training rows, "
                f"there are {n}: lower --data.batch_size"
            )
        if not drop_last and n < world:
            raise ValueError(f"{n} rows cannot be shared by {world} processes: use fewer")
        self._batches = whole if drop_last or (rest < world and whole) else whole + 1

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Rows]:
        # A generator: epoch and skip are read when the first batch is asked for, not when the iterator is
        # made, which Lightning does before it sets the epoch of a resumed run.
        epoch, skip, self.skip = self.epoch, self.skip, 0
        size = self.num_replicas * self.batch_size
        order = None
        if self.shuffle:
            order = torch.randperm(self.n, generator=torch.Generator().manual_seed(mixed(self.seed, epoch, ORDER)))
        for i in range(skip, self._batches):
            stop = self.n if i == self._batches - 1 and not self.drop_last else (i + 1) * size
            rows = torch.arange(i * size, stop) if order is None else order[i * size : stop]
            yield Rows(torch.tensor_split(rows, self.num_replicas)[self.rank], epoch)


class OrderedBatches(EpochBatches, SequentialSampler):  # type: ignore[misc]  # yields Rows, not int
    """The rows in their own order, every one of them; for evaluation.

    Also a `SequentialSampler`, because Lightning replaces any other sampler by one of single rows when it is
    asked to overfit.

    Example:
        >>> [rows.numbers.tolist() for rows in OrderedBatches(5, batch_size=2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, n: int, batch_size: int, rank: int | None = None, world: int | None = None) -> None:
        super().__init__(n, batch_size, drop_last=False, rank=rank, world=world, shuffle=False)


class Loader(DataLoader[Tensor]):
    """A `DataLoader` of whole batches that starts its workers when the first batch is asked for.

    Workers fetch ahead from the moment the iterator exists, and Lightning makes it before it sets the epoch
    of a resumed run: an eager loader would begin with the first epoch's order.

    Args:
        dataset: takes `Rows` and returns the batch ``(B, ...)``.
        sampler: an `EpochBatches`.
        consumed: asked at the start of every pass, says which epoch it belongs to and how many batches of it
            were consumed before a resume (None: what the sampler says itself).
        **kwargs: those of `DataLoader`.

    Raises:
        ValueError: one line, as the dataset raised it, also out of a worker.
    """

    def __init__(
        self,
        dataset: Dataset[Tensor],
        sampler: Any = None,
        consumed: Callable[[], tuple[int, int] | None] | None = None,
        **kwargs: Any,
    ) -> None:
        # A generator of its own: an iterator draws a seed for its workers when it is made, and from the
        # global generator that would move the training's random numbers at every pass.
        kwargs.setdefault("generator", torch.Generator())
        super().__init__(dataset, sampler=sampler, **{"batch_size": None, **kwargs})
        self.consumed = consumed

    def state_dict(self) -> dict[str, int]:
        """What the order of batches depends on; Lightning keeps it in its checkpoints."""
        batches = self.sampler
        if not isinstance(batches, EpochBatches):
            return {}
        return {"rows": batches.n, "batch": batches.batch_size * batches.num_replicas, "seed": batches.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Say so if a resumed run cannot go on with the batches that were left."""
        changed = [key for key, value in self.state_dict().items() if state.get(key, value) != value]
        if changed:
            rank_zero_warn(
                f"{', '.join(changed)} of the training data changed since the checkpoint was written: an "
                "unfinished epoch goes on with other batches than those that were left"
            )

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]  # the base promises its own iterator class
        if self.consumed is not None and isinstance(self.sampler, EpochBatches):
            place = self.consumed()
            if place is not None:
                self.sampler.set_epoch(place[0])
                self.sampler.skip = place[1]
        try:
            yield from super().__iter__()
        except ValueError as error:
            # A worker's error arrives wrapped in its traceback: the last line is what the user needs.
            raise ValueError(str(error).strip().rsplit("\nValueError: ", 1)[-1]) from error
