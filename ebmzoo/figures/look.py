"""What figures look at: a model and its data, samples and examples of them, and what protocols say of both."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmzoo import metrics
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import GeneratorNoise
from ebmzoo.methods.capabilities import Samples
from ebmzoo.metrics import Protocol
from ebmzoo.metrics.protocol import ROUNDING

_PRIME = 1_000_003  # keeps (seed, batch) pairs apart for up to a million batches


@dataclass
class Look:
    """A model that is at rest, and what it is held against. It knows nothing of figures.

    Args:
        model: the method.
        data: the data module; None without one.
        n: number of samples.
        batch_size: samples drawn, and examples handled, at once.
        seed: of all noise.
        extractor: the feature network, a name or a file; None where there is none. See `ebmzoo.metrics.find_extractor`.
        inception_path: the same.
        cache: folder for the features of the reference; see `ebmzoo.metrics.fidelity`.
        folder: where there is space on a disk.
        own: what all protocols say of the weights: "ema", "statistics", "config_hash", "trained_steps".
        rank: number of this process, of those that draw the samples together.
        world_size: their number.

    Attributes:
        samples: those that figures share, once `draw_samples` was called: uint8 images, or points; None without.
    """

    model: Any
    data: Any = None
    n: int = 5000
    batch_size: int = 500
    seed: int = 0
    extractor: str | None = None
    inception_path: str | Path | None = None
    cache: str | Path | None = None
    folder: Path = Path()
    own: dict[str, Any] = field(default_factory=lambda: {"ema": None})
    rank: int = 0
    world_size: int = 1
    samples: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.device = self.model.device
        self.like = torch.empty(0, dtype=self.model.dtype, device=self.device)

    @property
    def kind(self) -> str:
        """What the examples are: "images" or "points"."""
        return self.data.kind if self.data is not None else "images" if len(self.model.image_shape) == 3 else "points"

    @property
    def sampler(self) -> dict[str, Any]:
        """See `sampler_settings`."""
        return sampler_settings(self.model)

    @property
    def chain_steps(self) -> int:
        """See `chain_steps`."""
        return chain_steps(self.model)

    @property
    def training_steps(self) -> int:
        """Steps of the chain that training runs; 0 if there is none."""
        return _training_steps(self.model)

    @property
    def density(self) -> Any:
        """That the data were drawn from; None where it is not known."""
        return getattr(self.data, "density", None)

    @property
    def modes(self) -> tuple[Tensor, Any] | None:
        """Means and standard deviation of the density's modes; None of one without."""
        return (self.density.means, self.density.std) if hasattr(self.density, "means") else None

    # -- what figures work with -------------------------------------------------------------------------

    def noise(self) -> GeneratorNoise:
        """Random numbers of the look's seed, from their start."""
        return GeneratorNoise(torch.Generator(self.device).manual_seed(self.seed))

    def batches_of_samples(self, n: int, steps: int | None = None) -> Iterator[Tensor]:
        """Samples as the model gives them, of chains of so many steps."""
        return batches_of_samples(self.model, n, self.batch_size, self.seed, self.device, steps=steps)

    def drawn(self, n: int, steps: int | None = None, together: bool = False) -> Tensor:
        """Samples as they are measured: uint8 images in a file that goes away by itself, or points.

        Args:
            n: their number.
            steps: what ``model.sample`` is told.
            together: all processes draw, and the first one has them; the others have none.

        Raises:
            ValueError: they cannot become images; in all processes.
        """
        rank, world = (self.rank, self.world_size) if together else (0, 1)
        batches = batches_of_samples(self.model, n, self.batch_size, self.seed, self.device, rank, world, steps)
        room, done = torch.empty(0), 0
        # Batch b is drawn by process b mod w: every round each process has one, but perhaps in the last.
        for _ in range(-(-n // (self.batch_size * world))):
            mine, problem = None, ""
            try:
                batch = next(batches, None)
                mine = None if batch is None else (to_uint8(batch) if self.kind == "images" else batch).cpu()
            except ValueError as error:
                problem = str(error)
            everybody: list[Any] = [(mine, problem)] * world
            if world > 1:
                torch.distributed.all_gather_object(everybody, (mine, problem))
            if problem := next((words for _, words in everybody if words), ""):
                raise ValueError(problem)
            for batch in (batch for batch, _ in everybody if batch is not None and rank == 0):
                room = room if done else _spooled(n, batch[0], self.folder)
                room[done : done + len(batch)] = batch
                done += len(batch)
        return room

    def draw_samples(self) -> None:
        """Draw the samples that figures share; all processes must.

        Raises:
            ValueError: the model does not sample, or they cannot become images.
        """
        if not isinstance(self.model, Samples):
            raise ValueError(f"{type(self.model).__name__} does not sample")
        if self.rank == 0:
            print(f"drawing {self.n:,} samples", flush=True)
        self.samples = self.drawn(self.n, together=True)

    def batches(self, split: str, most: int | None = None) -> Iterator[Tensor]:
        """The first ``most`` examples of a split, or all, batch by batch, as the model takes them."""
        examples = self.data.reference(split)
        count = len(examples) if most is None else min(most, len(examples))
        for rows in torch.arange(count).split(self.batch_size):
            yield torch.stack([examples[i] for i in rows.tolist()]).to(self.like)

    def examples(self, split: str, most: int | None = None) -> Tensor:
        """The same in one tensor, on the CPU."""
        return torch.cat([x.cpu() for x in self.batches(split, most)])

    def over(self, call: Callable[[Tensor], Tensor], x: Tensor | Iterable[Tensor]) -> Tensor:
        """What a call gives for each example ``(n,)``, found batch by batch: float64 on the CPU."""
        parts = x.split(self.batch_size) if isinstance(x, Tensor) else x
        return torch.cat([call(part.to(self.like)).double().cpu() for part in parts])

    def bytes_of(self, split: str, rows: Iterable[int]) -> Tensor:
        """Images of a split as uint8."""
        examples = self.data.reference(split)
        # One at a time: as floats a large set would take four times the memory.
        return torch.stack([to_uint8(examples[i]) for i in rows])

    @cached_property
    def features(self) -> metrics.Extractor:
        """The feature network that is measured with.

        Raises:
            FileNotFoundError: its weights are not there.
        """
        return metrics.find_extractor(self.extractor or "digits", self.inception_path)

    def compare(self, samples: Tensor, names: Sequence[str] = ("fid",)) -> dict[str, float]:
        """`ebmzoo.metrics.fidelity` of samples against the training split."""
        return metrics.fidelity(
            samples,
            self.data.reference("train"),
            self.extractor or "digits",
            names,
            self.inception_path,
            batch_size=min(self.batch_size, 100),
            device=self.device,
            cache=self.cache,
        )

    # -- protocols --------------------------------------------------------------------------------------

    def name(self, split: str) -> str:
        """A split's name in a protocol."""
        return self.data.reference_name(split) if hasattr(self.data, "reference_name") else split

    def of_samples(self, n: int, split: str | None = None, steps: int | None = None, **more: Any) -> Protocol:
        """Protocol of a number that samples gave, of chains of so many steps if not of the test-time sampler's."""
        own = sampler_settings(self.model, steps)
        details = own.pop("details")
        settings = {**more.pop("settings", {}), "batch_size": self.batch_size}
        settings |= {"sampler": details} if details else {}
        fields = {"rounding": ROUNDING, "settings": settings, **own, **self._against(split), **more}
        return Protocol(n=n, seed=self.seed, **self.own, **fields)

    def of_data(self, n: int, split: str | None, **more: Any) -> Protocol:
        """Protocol of a number that examples gave, without any sampler."""
        none: dict[str, Any] = dict.fromkeys(("sampler", "steps", "step_size", "temperature", "seed"))
        return Protocol(n=n, **self.own, **{**none, **self._against(split), **more})

    def _against(self, split: str | None) -> dict[str, Any]:
        if split is None:
            return {}
        return {"reference": self.name(split), "n_reference": len(self.data.reference(split))}

    @property
    def by_features(self) -> dict[str, Any]:
        """What a protocol says of the feature network."""
        network = self.features
        return {"extractor": network.name, "extractor_sha256": network.sha256, "resize": network.resize}


def batches_of_samples(
    model: Samples,
    n: int,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    steps: int | None = None,
) -> Iterator[Tensor]:
    """Draw ``n`` samples batch by batch, each batch from a generator of its own.

    Since a batch's noise depends on (seed, its number) only, several processes together draw the samples that
    one would: process r of w takes the batches r, r + w, r + 2w, ... ``steps`` is what ``model.sample`` is told.

    Yields:
        Samples ``(batch_size or fewer, ...)`` in the data's units.
    """
    for number in range(rank, -(-n // batch_size), world_size):
        generator = torch.Generator(device).manual_seed(seed * _PRIME + number)
        size = min(batch_size, n - number * batch_size)
        yield model.sample(size, steps=steps, noise=GeneratorNoise(generator))


def sampler_settings(model: Any, steps: int | None = None) -> dict[str, Any]:
    """What a protocol says of how ``model.sample`` draws: its sampler with every setting of it.

    Args:
        model: the method.
        steps: what ``model.sample`` is told; None is the test-time sampler's own number.

    Returns:
        "sampler", "steps", "step_size", "temperature", and "details", the sampler's own fields as plain data;
        all None (and no details) for a model that does not say.

    Example:
        >>> class OneStep:
        ...     def test_sampler(self):
        ...         return None, 0
        >>> sampler_settings(OneStep())["sampler"]
        'none (one step)'
    """
    nothing: dict[str, Any] = dict.fromkeys(("sampler", "steps", "step_size", "temperature")) | {"details": {}}
    if not hasattr(model, "test_sampler"):
        return nothing
    sampler, own = model.test_sampler()
    if steps is None:
        steps = own
    elif steps and sampler is None:
        sampler = getattr(model, "sampler", None)  # one-step methods run their training chain where they are asked to
    if sampler is None or not steps:
        return {**nothing, "sampler": "none (one step)", "steps": 0}
    details = asdict(sampler) if is_dataclass(sampler) and not isinstance(sampler, type) else {}
    return {
        "sampler": type(sampler).__name__,
        "steps": steps,
        "step_size": getattr(sampler, "step_size", None),
        "temperature": getattr(sampler, "temperature", None),
        "details": {**details, "steps": steps} if details else {},
    }


def chain_steps(model: Any) -> int:
    """Steps of the chain that samples are made by, else of the one that training runs; 0 if there is none."""
    steps = model.test_sampler()[1] if hasattr(model, "test_sampler") else 0
    return int(steps or _training_steps(model))


def _training_steps(model: Any) -> int:
    return int(getattr(getattr(model, "sampler", None), "steps", 0))


def _spooled(n: int, like: Tensor, folder: Path) -> Tensor:
    """Room for ``n`` examples like one, in a file that goes away by itself: memory does not grow with their number."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".samples.")
    os.close(handle)
    try:
        room = torch.from_file(name, shared=True, size=n * like.numel(), dtype=like.dtype)
    finally:
        # The mapping outlives the name; a system where it does not keeps the file until it is deleted by hand.
        with suppress(OSError):
            os.unlink(name)
    return room.view(n, *like.shape)
