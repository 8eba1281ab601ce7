"""What a training iteration dispatches: operations, and the bytes that casts and copies of layout move.

A GPU that waits for the next operation is idle: on the one that was measured an operation costs the host 15 to 20 µs,
whatever its size. So a count that needs no GPU says how far an iteration is from the card's limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from ebmzoo.mcmc.capture import captured_by
from ebmzoo.methods.base import Method
from ebmzoo.optim import fused

from .cells import markdown

aten = torch.ops.aten
_COPIES = (aten.clone.default, aten.copy_.default, aten._to_copy.default)


@dataclass(frozen=True)
class Dispatched:
    """What one iteration dispatches.

    Attributes:
        operations: of ATen, views included.
        casts: bytes that are read and written to change a dtype.
        copies: bytes that are read and written by other copies: of a layout, of a state.
        waits: values that the host asks of the device, and numbers that it sends there by a copy.
        kinds: number of each operation, by its name.
    """

    operations: int
    casts: int
    copies: int
    waits: int
    kinds: Counter[str]


class Dispatches(TorchDispatchMode):
    """Counts the operations that are dispatched beneath it.

    Example:
        >>> with Dispatches() as counted:
        ...     x = (torch.zeros(2, 3) + 1).to(torch.bfloat16)
        >>> counted.found.operations, counted.found.casts
        (3, 36)
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: Counter[str] = Counter()
        self._casts = self._copies = self._waits = self._stepping = 0
        self._replaying = self._active = False

    @property
    def found(self) -> Dispatched:
        """The counts until now."""
        return Dispatched(self._kinds.total(), self._casts, self._copies, self._waits, self._kinds)

    def capture(self, run: Callable[[], Any]) -> Callable[[], None]:
        """What stands in for a graph of CUDA (see `captured_by`): its replay counts as one operation."""

        def replay() -> None:
            self._kinds["replay"] += self._active
            self._replaying = True
            try:
                run()
            finally:
                self._replaying = False

        return replay

    def watch(self, optimizer: Optimizer) -> None:
        """Count no waits while an optimiser steps: how many steps it has taken is a number of the host's."""

        def stepping(by: int) -> None:
            self._stepping += by

        optimizer.register_step_pre_hook(lambda *_: stepping(1))
        optimizer.register_step_post_hook(lambda *_: stepping(-1))

    def __enter__(self) -> Self:
        self._active = True
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._active = False
        super().__exit__(*raised)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to exempt a mode from torch.compile, torch would import all of it, seconds and 150 MB

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if self._replaying or function.namespace == "profiler":
            return result
        self._kinds[function._schema.name.removeprefix("aten::")] += 1
        # What is read as a Python value; a number turned into a tensor goes to a device by a copy that waits.
        if not self._stepping:
            self._waits += torch.Tag.data_dependent_output in function.tags or function is aten.lift_fresh.default
        if function in _COPIES:
            source = args[1] if function is aten.copy_.default else args[0]
            moved = _bytes(source) + _bytes(result)
            if source.dtype != result.dtype:
                self._casts += moved
            else:
                self._copies += moved
        return result


def iteration(
    model: Method, batch_size: int, *, warm_up: int = 6, precision: Any = "32-true", seed: int = 0
) -> Dispatched:
    """What one iteration of a method's last stage dispatches on noise, when nobody looks at it.

    It is taken on the CPU and told as it is on a GPU: optimisers go over all parameters at once, networks keep the
    order of memory that they have there, and what would be a graph counts as one operation. Of methods with stages it
    is the last one, and of Denoising-EBM an iteration with chains. The model is trained by it.

    Args:
        model: the method.
        batch_size: examples of an iteration; operations hardly depend on it.
        warm_up: iterations before: programs are recorded in them.
        precision: Lightning's.
        seed: of noise and training.
    """
    for name, value in {"vae_steps": 0, "flow_steps": 0, "contrast_every": 1, "contrast_start": 0}.items():
        if hasattr(model, name):
            setattr(model, name, value)
    parts: list[Any] = [part for part in model.modules() if hasattr(part, "channels_last")]
    for part in parts:
        part.channels_last = False  # a CPU's
    torch.manual_seed(seed)
    batches: Any = [torch.rand(batch_size, *model.image_shape) * 2 - 1] * (warm_up + 1)
    counting = _Counting(warm_up)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=warm_up + 1,
        log_every_n_steps=10**6,
        callbacks=[counting],
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with captured_by(counting.counted.capture):
        trainer.fit(model, DataLoader(batches, batch_size=None))
    return counting.counted.found


class _Counting(Callback):
    """Counts the operations of one iteration, with its callbacks."""

    def __init__(self, which: int) -> None:
        self.counted, self._which = Dispatches(), which

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            self.counted.watch(fused(optimizer))
            for group in optimizer.param_groups:
                if "foreach" in group and not group.get("fused"):
                    group["foreach"] = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self._which:
            self.counted.__enter__()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if _[-1] == self._which:
            self.counted.__exit__(None, None, None)


def table(rows: Sequence[tuple[str, Dispatched]]) -> str:
    """A Markdown table, one line a config."""
    lines = []
    for name, row in rows:
        casts, copies = (f"{value / 2**20:,.4g}" for value in (row.casts, row.copies))
        lines.append([name, f"{row.operations:,}", casts, copies, str(row.waits)])
    return markdown(["config", "operations", "casts, MiB", "copies, MiB", "waits"], lines)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
