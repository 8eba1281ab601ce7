"""What users of Lightning expect of a module besides its training: model(x), loading by class, plain words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

_TOLERANCE = 0.01  # by which resized images may leave their range


class LightningContract(L.LightningModule):
    """A module that answers ``model(x)``, and says in one sentence what is wrong with a batch or a checkpoint."""

    image_shape: tuple[int, ...]
    _range_known = False

    def forward(self, x: Tensor) -> Tensor:
        """What Lightning's summary, exports and wrappers call: the energy, ``(B,)``, of ``(B, *image_shape)``.

        Of a method that has none, what it decodes ``(B, latent_dim)`` to, or the log-density of a flow. In eval mode,
        `torch.export.export` exports it (with its default, ``strict=False``).

        Raises:
            TypeError: the method has none of them.
        """
        for name in ("energy", "decode"):
            if (answer := getattr(self, name, None)) is not None:
                return answer(x)
        raise TypeError(f"{type(self).__name__} has neither an energy nor a decoder: call what it has, such as sample")

    def data(self, batch: Any) -> Tensor:
        """The examples of a batch that may carry labels too, in the weights' dtype.

        Raises:
            ValueError: they are not floats of this method's shape.
        """
        x = batch[0] if isinstance(batch, list | tuple) and batch else batch
        wanted = f"a batch is a tensor (B, {', '.join(map(str, self.image_shape))}) of floats, or a list that begins so"
        if not isinstance(x, Tensor):
            raise ValueError(f"{wanted}; this one is a {type(x).__name__}")
        if tuple(x.shape[1:]) != self.image_shape or not x.is_floating_point():
            scale = "; ebmzoo.images.from_uint8 makes floats in [-1, 1] of bytes" if x.dtype == torch.uint8 else ""
            raise ValueError(f"{wanted}; this one is {tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}{scale}")
        if not self._range_known and len(self.image_shape) == 3 and len(x):
            self._check_range(x)
        self._range_known = True
        return x.to(self.dtype)

    def _check_range(self, x: Tensor) -> None:
        """Warn of images that are scaled otherwise; once a fit, since a look at values waits for the device."""
        low, high = (value.item() for value in x.detach().aminmax())
        if max(-low, high) > 1 + _TOLERANCE:
            rank_zero_warn(f"the first batch has values from {low:.3g} to {high:.3g}, and images are in [-1, 1]")
        elif low >= 0:
            rank_zero_warn(
                f"the first batch has values from {low:.3g} to {high:.3g}, as of images in [0, 1], and images are in "
                f"[-1, 1] here: 2 * x - 1 brings them there"
            )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Lightning's; `ebmzoo.load` finds the class, and the averaged weights, of any checkpoint.

        Raises:
            ValueError: the checkpoint is of another method.
        """
        if isinstance(checkpoint_path, str | Path) and Path(checkpoint_path).is_file():
            stored = torch.load(checkpoint_path, map_location="meta", weights_only=True, mmap=True)
            name = stored.get("ebmzoo", {}).get("class_path", "").rpartition(".")[2]
            if name and name not in {kind.__name__ for kind in (*cls.__mro__, *_below(cls))}:
                raise ValueError(f"{checkpoint_path} is a checkpoint of {name}, not of {cls.__name__}")
            kwargs.setdefault("weights_only", True)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for child in kind.__subclasses__():
        yield from (child, *_below(child))
