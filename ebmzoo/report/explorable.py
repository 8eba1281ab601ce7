"""An energy of points as one HTML page that needs nothing but itself: contours, and chains that run in the browser."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .pictures import contours
from .template import rendered


@dataclass(frozen=True)
class Perceptron:
    """An energy E(x) of points: linear layers with one activation between them, of ``input_scale`` x.

    Attributes:
        weights: ``(outputs, inputs)`` of each layer.
        biases: ``(outputs,)`` of each layer.
        activation: "relu", "leaky_relu" (slope 0.2), "silu", "elu" or "tanh".
        input_scale: factor on the input.
    """

    weights: Sequence[np.ndarray]
    biases: Sequence[np.ndarray]
    activation: str
    input_scale: float = 1.0


@dataclass(frozen=True)
class Chains:
    """Where the sliders of a page stand at first: steps, step size and temperature of the normal form."""

    steps: int
    step_size: float
    temperature: float


def explorable(
    energy: Perceptron,
    values: np.ndarray,
    box: tuple[tuple[float, float], tuple[float, float]],
    starts: Mapping[str, np.ndarray],
    chains: Chains,
    title: str,
    command: str,
) -> str:
    """The page.

    Args:
        energy: what the chains walk on, in the browser by its own forward and backward pass.
        values: E over the box, ``(X, Y)``, the first axis to the right, the second upwards: the contours.
        box: of the plane, ((x, y) of its lower left, of its upper right).
        starts: points ``(n, 2)`` where chains may begin, by name; a uniform draw in the box is always there.
        chains: how the sliders stand at first.
        title: what the energy is of.
        command: what makes the page again.

    Returns:
        HTML with everything inside it. Its address may carry settings behind ``#``, such as
        ``#n=500&steps=100&s=0.01&T=1&seed=0&start=box&now=1``; with ``now`` the chains run at once.
    """
    layers = [
        {"inputs": weight.shape[1], "outputs": weight.shape[0], "weight": _packed(weight), "bias": _packed(bias)}
        for weight, bias in zip(energy.weights, energy.biases, strict=True)
    ]
    content: dict[str, Any] = {
        "layers": layers,
        "activation": energy.activation,
        "scale": energy.input_scale,
        "box": box,
        "starts": {name: _packed(points) for name, points in starts.items()},
        "chains": asdict(chains),
    }
    drawn = contours(values)
    return rendered("explorable.html", title=title, command=command, content=content, contours=drawn, chains=chains)


def _packed(values: np.ndarray) -> str:
    """Numbers as the page reads them: 32-bit floats, little-endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()
