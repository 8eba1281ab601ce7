"""Pictures as text, small enough to lie inside a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

_MOST = 120_000  # bytes of a picture that is taken as it is
_SIDE = 900  # px of the longer side of one that is not


def data_uri(path: Path) -> str:
    """A picture of a file as a ``data:`` address; a large one smaller, and as JPEG."""
    content, kind = path.read_bytes(), "png"
    if len(content) > _MOST:
        with Image.open(io.BytesIO(content)) as image:
            small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            room = io.BytesIO()
            small.save(room, "JPEG", quality=82)
            content, kind = room.getvalue(), "jpeg"
    return _address(content, kind)


def picture_uri(pixels: Tensor) -> str:
    """A picture, uint8 ``(3, H, W)``, as the ``data:`` address of a PNG."""
    room = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(room, "PNG")
    return _address(room.getvalue(), "png")


def heat_map(values: Any, depth: float) -> str:
    """Values over the plane as colours, from their maximum (bright) to ``depth`` below it (dark).

    Args:
        values: ``(X, Y)``, the first axis to the right, the second upwards.
        depth: of the range shown; what lies lower, or is not finite, is darkest.

    Returns:
        A ``data:`` address of a PNG of X by Y pixels.
    """
    from matplotlib.image import imsave

    finite, room = np.isfinite(values), io.BytesIO()
    top = values[finite].max() if finite.any() else 0.0
    shown = np.where(finite, values, top - depth).T
    imsave(room, shown, vmin=top - depth, vmax=top, cmap="magma", origin="lower", format="png")
    return _address(room.getvalue(), "png")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def contours(values: Any, lines: int = 24) -> str:
    """An energy over the plane as filled contours, low where bright, with no axes around them.

    Args:
        values: ``(X, Y)``, the first axis to the right, the second upwards.
        lines: number of contours, at levels with the same number of places between them.

    Returns:
        A ``data:`` address of a square PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure, room = Figure(figsize=(6, 6), dpi=100), io.BytesIO()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    levels = np.unique(np.quantile(values, np.linspace(0, 1, lines)))
    if len(levels) > 1:  # not of a plain
        axes.contourf(values.T, levels=levels, cmap="magma_r")
        axes.contour(values.T, levels=levels, colors="white", linewidths=0.4, alpha=0.4)
    FigureCanvasAgg(figure).print_png(room)
    return _address(room.getvalue(), "png")
