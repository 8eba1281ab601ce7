"""What all data modules share: in-memory and per-item images, flips, loaders and references."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_warn
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from ebmzoo.data.order import EpochBatches, Loader, OrderedBatches, Rows, flips
from ebmzoo.images import from_uint8, narrow

_LOOKED_AT = 16  # images of a set, to know the range of its values


class Examples(Dataset[Tensor]):
    """A dataset of examples x without labels; the base of the two below.

    ``dataset[i]`` is one example, ``dataset[index]`` with an int64 tensor ``(B,)``, or with `Rows`, a batch.
    """

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} does not say how many examples it has")

    def batch(self, numbers: Tensor) -> Tensor:
        """The examples of these row numbers (int64 ``(B,)``), float32 ``(B, ...)``."""
        raise TypeError(f"{type(self).__name__} does not say how to read its examples")

    def __getitem__(self, rows: int | Tensor | Rows) -> Tensor:
        if isinstance(rows, Rows):
            return self.batch(rows.numbers)
        if isinstance(rows, Tensor):
            return self.batch(rows)
        if not -len(self) <= rows < len(self):
            raise IndexError(f"row {rows} of {len(self)}")
        return self.batch(torch.tensor([rows % len(self)]))[0]


class InMemory(Examples):
    """Examples held in one tensor, indexed a whole batch at a time.

    Args:
        data: float32 ``(n, ...)`` in the data's units, or uint8 images, which become floats when read.

    Example:
        >>> import torch
        >>> InMemory(torch.tensor([[0], [255]], dtype=torch.uint8))[torch.tensor([1, 0])]
        tensor([[ 1.],
                [-1.]])
    """

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, numbers: Tensor) -> Tensor:
        """Index the tensor once."""
        x = self.data[numbers]
        return from_uint8(x) if x.dtype == torch.uint8 else x


class PerItem(Examples):
    """Images that are read one at a time, from files.

    Args:
        items: what to read: paths, keys or row numbers.
        read: turns one of them into uint8 ``(C, H, W)``, and raises a ValueError that names it where it
            cannot.
    """

    def __init__(self, items: list, read: Callable[..., Tensor]) -> None:
        self.items, self.read = items, read

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, numbers: Tensor) -> Tensor:
        """Read them one after the other."""
        return from_uint8(torch.stack([self.read(self.items[i]) for i in numbers.tolist()]))


class Flipped(Dataset[Tensor]):
    """A training set with random mirror images; only whole batches, since a flip depends on the epoch.

    Args:
        examples: the set without augmentation.
        probability: of a flip.
        seed: of the run.
    """

    def __init__(self, examples: Examples, probability: float, seed: int) -> None:
        self.examples, self.probability, self.seed = examples, probability, seed
        self._of_epoch: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: Rows) -> Tensor:
        if self._of_epoch is None or self._of_epoch[0] != rows.epoch:
            self._of_epoch = (rows.epoch, flips(len(self), self.probability, self.seed, rows.epoch))
        flip = self._of_epoch[1][rows.numbers]
        x = self.examples[rows]
        return torch.where(flip[:, None, None, None], x.flip(-1), x)


class DataModule(LightningDataModule):
    """The base of all data modules: batches of x alone, in an order that depends on (seed, epoch) only.

    The order of training batches and the flips are pure functions of (seed, epoch, row): they do not depend
    on the number of workers, and a run resumed in the middle of an epoch goes on with the batches it had not
    yet seen. Under several processes the global batch of ``world * batch_size`` rows is cut contiguously by
    rank.

    A subclass sets ``name`` and ``image_shape`` and says in `load` how to read a split.

    Args:
        batch_size: images in a batch, for each process.
        num_workers: processes that read images; in-memory sets need none.
        pin_memory: hold batches in page-locked memory, for faster copies to a GPU.
        seed: of the order and the flips; splits never depend on it. By default the run's: what
            ``seed_everything`` was last given (0 without), as for Lightning's own distributed sampler; a resumed
            training keeps the one that it began with.
        flip: probability of a horizontal flip of a training image (0.5 in the papers' CIFAR-10 runs); the
            reference and the evaluation loaders never flip.

    Attributes:
        name: a slug such as ``"digits-8"``, used in protocols and file names.
        kind: ``"images"`` or ``"points"``.
        image_shape: ``(C, H, W)``, or ``(2,)`` for points.

    Raises:
        ValueError: if a number is out of range.
    """

    #: which split stands for each of the three: most sets publish two only
    splits: dict[str, str] = {"train": "train", "val": "test", "test": "test"}
    kind: str = "images"

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool = False,
        seed: int | None = None,
        flip: float = 0.0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0 or (seed is not None and seed < 0) or not 0 <= flip <= 1:
            raise ValueError(
                "batch_size >= 1, num_workers >= 0, seed >= 0 and 0 <= flip <= 1 are needed, not "
                f"{batch_size}, {num_workers}, {seed} and {flip}"
            )
        self.batch_size, self.num_workers, self.pin_memory = batch_size, num_workers, pin_memory
        self.flip = flip
        self._seed = seed
        self._resumed_seed: int | None = None
        self.name: str = type(self).__name__.lower()
        self.image_shape: tuple[int, ...] = ()
        self._loaded: dict[str, Examples] = {}

    @property
    def seed(self) -> int:
        """Of the order and the flips: the one given, else that of the training gone on with, else the run's."""
        given = self._resumed_seed if self._seed is None else self._seed
        # Where Lightning keeps it: the same in all processes, whose own generators' seeds differ.
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if given is None else given

    def state_dict(self) -> dict[str, int]:
        """The seed, which Lightning keeps in its checkpoints."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on in the order in which the checkpoint's training began, unless a seed was given."""
        self._resumed_seed = state_dict.get("seed")

    def load(self, split: str) -> Examples:
        """Read one of the set's own splits (a value of ``splits``), without augmentation.

        Raises:
            FileNotFoundError: one line: what is missing, where it was looked for, how to get it.
            ValueError: one line that names the file which cannot be read.
        """
        raise TypeError(f"{type(self).__name__} does not say how to load its {split} split")

    def setup(self, stage: str | None = None) -> None:
        """Read what a stage needs, so that missing or broken files are reported before anything starts."""
        self._resumed_seed = None  # of an earlier fit; a checkpoint is read after this
        if stage in (None, "fit"):
            self.reference("train")
        self.reference("val" if stage in ("fit", "validate") else "test")

    def reference(self, split: str = "train") -> Examples:
        """The examples of a split without augmentation: the reference of FID and of nearest neighbours.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            A dataset whose ``[i]`` is float32 ``image_shape`` (images in [-1, 1], points in their own units);
            an int64 tensor as index gives a batch.
        """
        own = self._own(split)
        if own not in self._loaded:
            self._loaded[own] = self.load(own)
            if self.kind == "images":
                _look(self._loaded[own], f"{self.name} {own}")
        return self._loaded[own]

    def reference_name(self, split: str = "train") -> str:
        """The split's name in a protocol, such as ``"digits-8 train"``; one name for one set of images."""
        return f"{self.name} {self._own(split)}"

    def labels(self, split: str = "train") -> Tensor:
        """The class of each example of `reference`, int64 ``(n,)`` from 0: what a feature extractor learns from.

        Raises:
            ValueError: one line: there are no classes here, or a file of them is broken.
        """
        raise ValueError(
            f"{type(self).__name__} has no classes: an extractor needs CIFAR, digits or a folder of folders"
        )

    def outsiders(self) -> list[DataModule]:
        """The sets that out-of-distribution scores of this one are held against, unless others are named.

        They need not be there: what is missing is left out, with a line that says so.
        """
        return []

    def _own(self, split: str) -> str:
        if split not in self.splits:
            raise ValueError(f"there is no split {split!r}: {', '.join(self.splits)}")
        return self.splits[split]

    def train_dataloader(self) -> Loader:
        """Training batches ``(batch_size, *image_shape)``, shuffled, the last incomplete one left out."""
        examples = self.reference("train")
        overfit = getattr(self.trainer, "overfit_batches", 0) > 0
        batches = (
            OrderedBatches(len(examples), self.batch_size)
            if overfit  # Lightning's promise: the same batches in every epoch
            else EpochBatches(len(examples), self.batch_size, self.seed)
        )
        dataset = Flipped(examples, self.flip, self.seed) if self.flip else examples
        return self._loader(dataset, batches, self._consumed)

    def val_dataloader(self) -> Loader:
        """The validation split in its own order, every example once."""
        return self._evaluation("val")

    def test_dataloader(self) -> Loader:
        """The test split in its own order, every example once."""
        return self._evaluation("test")

    predict_dataloader = test_dataloader

    def _evaluation(self, split: str) -> Loader:
        examples = self.reference(split)
        return self._loader(examples, OrderedBatches(len(examples), self.batch_size))

    def _loader(
        self,
        dataset: Dataset[Tensor],
        batches: EpochBatches,
        consumed: Callable[[], tuple[int, int] | None] | None = None,
    ) -> Loader:
        return Loader(
            dataset,
            sampler=batches,
            consumed=consumed,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
        )

    def _consumed(self) -> tuple[int, int] | None:
        # Asked just before the first batch is fetched. The place in the stream of batches follows from how
        # many were trained on, wherever the checkpoint was written; Lightning's own epoch is one too many
        # after some of them. Who reads the batches outside of training gets whole epochs.
        if self.trainer is None or not self.trainer.training:
            return None
        loop = self.trainer.fit_loop
        done = loop.epoch_loop.batch_progress.total
        return divmod(done.processed, int(loop.max_batches))  # type: ignore[attr-defined]


def _look(examples: Examples, name: str) -> None:
    """Say so where a few images of a set, spread over it, have next to no contrast."""
    count = min(_LOOKED_AT, len(examples))
    try:
        x = examples[torch.linspace(0, len(examples) - 1, count).long()] if count else None
    except ValueError:
        return  # a broken file is named by whoever needs it
    if x is not None and (found := narrow(x)):
        rank_zero_warn(f"{name} ({count} of {len(examples)} images looked at) {found}")
