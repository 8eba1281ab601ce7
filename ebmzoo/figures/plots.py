"""Plots as pictures: scatter plots, histograms, curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ebmzoo.images import grid


def _drawn(size: tuple[float, float], draw: Callable[[Any], None]) -> Tensor:
    """What ``draw`` makes of a figure of a size in inches: uint8 ``(3, H, W)``."""
    # Not pyplot, which keeps global state and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="compressed")
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    canvas.draw()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return pixels.view(height, width, 4)[..., :3].permute(2, 0, 1).contiguous()


def scatter(points: Tensor, data: Tensor | None = None) -> Tensor:
    """Scatter plot of 2-D samples, beside the data on the same axes if there are any.

    Args:
        points: ``(n, 2)``, in the data's units.
        data: ``(m, 2)``.

    Returns:
        The picture, uint8 ``(3, H, W)``.

    Example:
        >>> import torch
        >>> scatter(torch.zeros(3, 2), torch.ones(3, 2)).shape[0]
        3
    """
    panels = [("samples", points)] if data is None else [("data", data), ("samples", points)]
    # The data decide the axes: a few samples far away must not shrink the rest to a dot.
    frame = panels[0][1].detach().float().cpu()
    low, high = frame.amin(0), frame.amax(0)
    margin = (0.1 * (high - low)).clamp_min(0.5)

    def draw(figure: Any) -> None:
        for k, (title, cloud) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), k + 1)
            xy = cloud.detach().float().cpu()
            outside = int(((xy < low - margin) | (xy > high + margin)).any(1).sum())
            axes.scatter(xy[:, 0].numpy(), xy[:, 1].numpy(), s=2, alpha=0.4, linewidths=0)
            axes.set_title(f"{len(xy):,} {title}" + (f" ({outside:,} outside)" if outside else ""))
            axes.set_xlim((low[0] - margin[0]).item(), (high[0] + margin[0]).item())
            axes.set_ylim((low[1] - margin[1]).item(), (high[1] + margin[1]).item())
            axes.set_aspect("equal")
            axes.set_xlabel("x₁")
            axes.set_ylabel("x₂")

    return _drawn((4.5 * len(panels), 4.9), draw)


def histograms(groups: Mapping[str, Tensor], label: str, title: str, bins: int = 50) -> Tensor:
    """Histograms of several groups of values in one picture, each scaled to its own area.

    The axis shows all of the first group, and the others between their 2nd and 98th percentiles: a few values far out
    would otherwise shrink the rest to a line. How many lie beyond it stands in the legend.

    Args:
        groups: name to values ``(n,)``; the first is drawn filled.
        label: of the values' axis, with their unit.
        title: of the picture.
        bins: along the axis.

    Returns:
        The picture, uint8 ``(3, H, W)``.

    Raises:
        ValueError: if there are no finite values.

    Example:
        >>> histograms({"test": torch.arange(9.0), "noise": torch.arange(5.0)}, "score", "scores").shape[0]
        3
    """
    finite = {name: values[values.isfinite()].double().cpu() for name, values in groups.items()}
    finite = {name: values for name, values in finite.items() if len(values)}
    if not finite:
        raise ValueError(f"{title}: no finite values to draw")
    names = list(finite)
    shares = torch.tensor([0.02, 0.98], dtype=torch.float64)
    first, *others = (finite[name] for name in names)
    ranges = torch.stack([torch.stack([first.min(), first.max()]), *(values.quantile(shares) for values in others)])
    low, high = ranges[:, 0].min().item(), ranges[:, 1].max().item()
    edges = torch.linspace(low, high if high > low else low + 1, bins + 1, dtype=torch.float64).numpy()

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for k, name in enumerate(names):
            values = finite[name]
            beyond = len(groups[name]) - int(((values >= edges[0]) & (values <= edges[-1])).sum())
            label_of = f"{name} ({len(groups[name]):,}" + (f"; {beyond:,} beyond)" if beyond else ")")
            kind: dict[str, Any] = {"alpha": 0.35} if k == 0 else {"histtype": "step", "linewidth": 1.6}
            # Shares of all values, so that what lies beyond the axis is missing from the area.
            weights = torch.full_like(values, bins / (len(groups[name]) * (edges[-1] - edges[0]))).numpy()
            axes.hist(values.numpy(), edges, weights=weights, label=label_of, color=f"C{k % 10}", **kind)
        axes.set_xlabel(label)
        axes.set_ylabel("density")
        axes.set_title(title)
        figure.legend(fontsize="small", loc="outside lower center", ncols=2)

    return _drawn((7.0, 4.6), draw)


def rows(images: Mapping[str, Tensor], title: str) -> Tensor:
    """Rows of images, each with its name beside it; the columns belong together.

    Args:
        images: name to images ``(n, C, H, W)``, uint8 or floats in [-1, 1].
        title: of the picture.

    Returns:
        The picture, uint8 ``(3, H, W)``.

    Example:
        >>> rows({"samples": torch.zeros(4, 1, 8, 8), "neighbours": torch.ones(4, 1, 8, 8)}, "pairs").shape[0]
        3
    """

    def draw(figure: Any) -> None:
        figure.set_facecolor("0.9")  # so that white pixels at an image's border do not run into the page
        panels = figure.subplots(len(images), 1, squeeze=False)[:, 0]
        for axes, (name, batch) in zip(panels, images.items(), strict=True):
            axes.imshow(grid(batch, columns=len(batch)).permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_ylabel(name, rotation=0, ha="right", va="center")
            axes.set_xticks([])
            axes.set_yticks([])
            for edge in axes.spines.values():
                edge.set_visible(False)
        figure.suptitle(title, fontsize="medium")

    most = max(map(len, images.values()))
    return _drawn((1.6 + 0.75 * most, 0.5 + 0.8 * len(images)), draw)


def curves(
    lines: Mapping[str, Tensor],
    x: Sequence[float],
    label_x: str,
    label_y: str,
    title: str,
    bands: bool = False,
    logarithmic: bool = False,
) -> Tensor:
    """Curves over one axis.

    Args:
        lines: name to values ``(len(x),)`` or, with ``bands``, ``(len(x), B)``: their median is drawn, and a band from
            their 10th to their 90th percentile.
        x: places.
        label_x: of the horizontal axis, with its unit.
        label_y: of the vertical axis, with its unit.
        title: of the picture.
        bands: see ``lines``.
        logarithmic: whether the horizontal axis is; it then is marked at the places alone.

    Returns:
        The picture, uint8 ``(3, H, W)``.

    Example:
        >>> curves({"a": torch.arange(3.0)}, [0, 1, 2], "step", "energy", "a chain").shape[0]
        3
    """
    places = list(x)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for k, (name, values) in enumerate(lines.items()):
            y = values.double().cpu()
            if bands:
                low, middle, high = y.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), dim=1)
                axes.fill_between(places, low.numpy(), high.numpy(), alpha=0.25, color=f"C{k}", linewidth=0)
                label, marker = f"{name}: median, 10th to 90th percentile", "o" if logarithmic else ""
                axes.plot(places, middle.numpy(), marker=marker, color=f"C{k}", label=label)
            else:
                axes.plot(places, y.numpy(), marker="o", color=f"C{k}", label=name)
        if logarithmic:
            axes.set_xscale("log")
            axes.set_xticks(places, [f"{place:,}" for place in places])
            axes.minorticks_off()
        axes.set_xlabel(label_x)
        axes.set_ylabel(label_y)
        axes.set_title(title)
        if len(lines) > 1 or bands:
            axes.legend(fontsize="small")

    return _drawn((7.0, 4.2), draw)
