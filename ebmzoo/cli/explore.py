"""``ebmzoo explore``: a checkpoint's energy of points as one HTML page, with chains that run in the browser."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmzoo.cli.arguments import Parser, check_writable, load_model, weights_of
from ebmzoo.cli.errors import UserError

if TYPE_CHECKING:
    from ebmzoo.networks import MLPEnergy

_SIDE, _STARTS = 120, 1000
_MARGIN = 0.25  # of the points' extent, on every side


def run(verb: str, arguments: Sequence[str]) -> None:
    """Read the checkpoint and write the page."""
    parser = Parser(verb, "Write a page with a model's energy of points and chains that run on it.", "points")
    parser.add_argument("--out", type=Path, required=True, help="the page, ending in .html")
    options = parser.parse_args(arguments)
    if options.out.suffix != ".html":
        raise UserError(f"--out is a page, ending in .html, not {options.out}")
    check_writable(options.out)
    model: Any = load_model(options)
    network = _network(model)

    import torch

    from ebmzoo.report.explorable import Chains, Perceptron, explorable
    from ebmzoo.tasks.restoration import chain_in_x

    with torch.no_grad():
        starts = model.sample(_STARTS, steps=0, noise=options.seed).double().cpu()
        low, high = starts.quantile(0.01, 0), starts.quantile(0.99, 0)
        margin = _MARGIN * (high - low).clamp_min(1e-3)
        low, high = low - margin, high + margin
        axes = [torch.linspace(*ends, _SIDE) for ends in zip(low.tolist(), high.tolist(), strict=True)]
        values = model.energy(torch.cartesian_prod(*axes).to(next(model.parameters()))).view(_SIDE, _SIDE).cpu()
        linear = [layer for layer in network.net if isinstance(layer, torch.nn.Linear)]
        weights = [layer.weight.float().cpu().numpy() for layer in linear]
        energy = Perceptron(weights, [layer.bias.float().cpu().numpy() for layer in linear], *_shape(network))
    sampler = chain_in_x(model)
    chains = Chains(sampler.steps, sampler.step_size, sampler.temperature) if sampler else Chains(100, 1e-2, 1.0)
    kind = type(model).__name__
    page = explorable(
        energy,
        values.numpy(),
        (tuple(low.tolist()), tuple(high.tolist())),
        {"the model's own starts": starts.numpy()},
        chains,
        f"{kind}: {weights_of(model)} weights of {Path(options.ckpt_path).parent.parent.name}",
        f"ebmzoo {verb} {shlex.join(arguments)}",
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB, open it in a browser")


def _network(model: Any) -> MLPEnergy:
    """The model's energy, as far as a page can compute it.

    Raises:
        UserError: it cannot.
    """
    from ebmzoo.networks import MLPEnergy

    kind = type(model).__name__
    if tuple(model.image_shape) != (2,):
        raise UserError(f"a page shows the plane: this {kind} is of examples {tuple(model.image_shape)}")
    network = getattr(getattr(model, "ebm", None), "network", None)
    if not isinstance(network, MLPEnergy):
        raise UserError(
            f"a page computes an MLPEnergy: this {kind} has {type(network).__name__ if network else 'none'}"
        )
    return network


def _shape(network: MLPEnergy) -> tuple[str, float]:
    """Which activation a network has, and its factor on the input."""
    from ebmzoo.networks.layers import ACTIVATIONS

    made = type(network.net[1])
    name = next(name for name, make in ACTIVATIONS.items() if type(make()) is made)
    return name, network.input_scale
