"""``ebmzoo sample``: draw from a checkpoint and write the samples, their chains, or what lies between them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmzoo.cli.arguments import Parser, check_writable, load_model, methods_with, need_decoder, read_images, weights_of
from ebmzoo.cli.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


ENDINGS = {".png": "one grid", ".npy": "floats", "": "a folder (no ending)"}
FILM_ENDINGS = {".png": "a strip", ".gif": "an animation", ".apng": "an exact animation", ".npy": "floats"}
FRAMES = 10


@dataclass(frozen=True)
class Film:
    """Images that belong together in an order.

    Attributes:
        frames: ``(frames, n, C, H, W)``.
        titles: a word for each frame.
        words: what they are.
    """

    frames: Tensor
    titles: list[str]
    words: str


def run(verb: str, arguments: Sequence[str]) -> None:
    """Draw samples and write them."""
    options = _parser(verb).parse_args(arguments)
    out = Path(options.out)
    _check(options, out)
    model: Any = load_model(options)
    _set_temperatures(options, model)
    if options.interpolate is not None:
        _write_film(_between(options, model), out)
    elif options.chain:
        _write_film(_along_the_chain(options, model), out)
    else:
        _write(_draw(options, model), out)
        weights = weights_of(model)
        print(f"{out}: {options.n} samples of {options.ckpt_path}, {weights} weights, seed {options.seed}")


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = Parser(verb, "Draw samples from a checkpoint.", "samples drawn")
    add = parser.add_argument
    add("--n", type=int, help="number of samples (64); of rows with --interpolate or --chain (8)")
    add(
        "--out",
        default="samples.png",
        help="a .png grid, a .npy array of floats in the data's units, or a folder of PNGs (samples.png); with "
        "--interpolate or --chain a .png strip, a .gif or .apng animation, or a .npy array (frames, n, C, H, W)",
    )
    add("--steps", type=int, help="steps of the test-time chain, where the method has one")
    add("--temperature", type=float, help="standard deviation of the latent codes, where the method has them (1)")
    add("--chain_temperature", type=float, help="temperature T of the test-time chain (the config's)")
    add("--interpolate", type=int, metavar="FRAMES", help="show so many images on the way between two latent codes")
    add("--between", nargs=2, metavar="IMAGE", help="with --interpolate: infer the two codes from these images")
    add("--chain", action="store_true", help="show the test-time chain on its way")
    add("--frames", type=int, help=f"with --chain: states shown ({FRAMES})")
    return parser


def _check(options: argparse.Namespace, out: Path) -> None:
    film = options.chain or options.interpolate is not None
    before = dict(vars(options))
    options.n = (8 if film else 64) if options.n is None else options.n
    if options.n <= 0 or options.batch_size <= 0:
        raise UserError(f"--n and --batch_size must be positive, not {options.n} and {options.batch_size}")
    if options.steps is not None and options.steps < 0:
        raise UserError(f"--steps must not be negative, not {options.steps}")
    for name in ("temperature", "chain_temperature"):
        if (value := getattr(options, name)) is not None and not 0 <= value < float("inf"):
            raise UserError(f"--{name} must not be negative, not {value}")
    if options.chain and options.interpolate is not None:
        raise UserError("--chain and --interpolate show different things: give one of them")
    if options.between and options.interpolate is None:
        raise UserError("--between belongs to --interpolate FRAMES")
    if options.frames is not None and not options.chain:
        raise UserError("--frames belongs to --chain; --interpolate FRAMES has its own")
    for name in ("interpolate", "frames"):
        if (value := getattr(options, name)) is not None and value < 2:
            raise UserError(f"--{name} needs two frames or more, not {value}")
    unused = ["steps", "chain_temperature"] if options.interpolate is not None else []
    unused += ["n", "temperature"] if options.between else []
    for name in unused:
        if before[name] is not None:
            what = "--between takes its codes from images" if options.between else "--interpolate runs no chain"
            raise UserError(f"{what}: leave --{name} out")
    endings = FILM_ENDINGS if film else ENDINGS
    if (film or not out.is_dir()) and out.suffix.lower() not in endings:
        ways = [f"{ending} ({words})" if ending else words for ending, words in endings.items()]
        raise UserError(f"--out {out}: give {', '.join(ways[:-1])} or {ways[-1]}")
    check_writable(out)


def _set_temperatures(options: argparse.Namespace, model: Any) -> None:
    """Put the temperatures that were asked for where the method looks for them."""
    kind = type(model).__name__
    if options.temperature is not None:
        # VAEBM's hierarchy has NVAE's way with it.
        name = next((name for name in ("latent_temperature", "start_temperature") if hasattr(model, name)), None)
        if name is None:
            able = methods_with("draw_latents")
            raise UserError(f"--temperature is of the latent codes, which {kind} does not have: {able} do")
        setattr(model, name, options.temperature)
    if options.chain_temperature is not None:
        sampler = getattr(model, "refine", None) or getattr(model, "sampler", None)
        if sampler is None or not hasattr(model, "refine"):
            raise UserError(
                f"--chain_temperature is for methods with a chain: {methods_with('refine')}; not for {kind}"
            )
        if model.test_sampler()[1] == 0 and not options.steps:
            raise UserError(f"this {kind} samples in one step: --chain_temperature needs --steps as well")
        model.refine = replace(sampler, temperature=options.chain_temperature)


# -- what is drawn -----------------------------------------------------------------------------------------------------


def _in_batches(options: argparse.Namespace, model: Any, draw: Callable[[int, Any], Tensor], dim: int = 0) -> Tensor:
    """Draw ``n`` rows in batches, each row from its own seed, so that no image depends on the batch."""
    import torch

    from ebmzoo.mcmc import PerImageNoise

    parts = []
    for start in range(0, options.n, options.batch_size):
        rows = range(start, min(start + options.batch_size, options.n))
        parts.append(draw(len(rows), PerImageNoise.of_rows(options.seed, rows, model.device)).detach().cpu())
    return torch.cat(parts, dim)


def _draw(options: argparse.Namespace, model: Any) -> Tensor:
    from ebmzoo.methods import Samples

    if not isinstance(model, Samples):
        raise UserError(f"a {type(model).__name__} cannot be sampled from")
    return _in_batches(options, model, lambda n, noise: model.sample(n, steps=options.steps, noise=noise))


def _between(options: argparse.Namespace, model: Any) -> Film:
    """Rows from one latent code to another: drawn ones, or those inferred from two images."""
    import torch

    from ebmzoo.methods import Encodes
    from ebmzoo.tasks import interpolate

    need_decoder(model, "--interpolate")
    frames, like = options.interpolate, model.like
    if options.between and not isinstance(model, Encodes):
        lacks = f"which {type(model).__name__} lacks: {methods_with('encode')} have one"
        raise UserError(f"--between needs an inference network, {lacks}")
    if options.between:
        images = read_images(list(map(Path, options.between)), model.image_shape).to(like)
        with torch.no_grad():
            a, b = model.encode(images)[0].split(1)
        found, words = interpolate(model, a, b, frames).cpu(), " and ".join(options.between)
    else:

        def draw(n: int, noise: Any) -> Tensor:
            a, b = (model.draw_latents(n, noise, like) for _ in range(2))
            return interpolate(model, a, b, frames)

        found, words = _in_batches(options, model, draw, dim=1), f"{options.n} pairs of codes, seed {options.seed}"
    titles = [f"{k / (frames - 1):.3g}" for k in range(frames)]
    return Film(found, titles, f"{frames} images between {words}, by {options.ckpt_path}, {weights_of(model)} weights")


def _along_the_chain(options: argparse.Namespace, model: Any) -> Film:
    """States of the test-time chain."""
    import torch

    from ebmzoo.figures.chains import chain_frames, chain_titles
    from ebmzoo.figures.look import chain_steps

    kind = type(model).__name__
    if len(model.image_shape) != 3:
        raise UserError(f"--chain shows images: this model was trained on points {tuple(model.image_shape)}")
    steps = chain_steps(model) if options.steps is None else options.steps
    if not steps:
        raise UserError(f"there is no chain to show: {kind} samples in one step; {methods_with('sampler')} have one")
    wanted = options.frames or FRAMES

    def draw(n: int, noise: Any) -> Tensor:
        states = chain_frames(model, n, steps, wanted, noise)
        if not states:
            raise UserError(f"the states of {kind}'s chain are no images: there is nothing to show")
        return torch.stack(states)

    found = _in_batches(options, model, draw, dim=1)
    titles = chain_titles(len(found), steps, wanted)
    words = f"{options.n} chains of {steps} steps, {len(found)} states each"
    return Film(found, titles, f"{words}, of {options.ckpt_path}, {weights_of(model)} weights, seed {options.seed}")


# -- what is written ---------------------------------------------------------------------------------------------------


def _write(samples: Tensor, out: Path) -> None:
    from ebmzoo.images import save_images, save_png

    if samples.ndim == 2 and out.suffix.lower() == ".png":
        from ebmzoo.figures.plots import scatter

        save_png(scatter(samples), out)
    else:
        save_images(samples, out)


def _write_film(film: Film, out: Path) -> None:
    from ebmzoo.images import grid, save_animation, save_images, save_png, strips

    kind = out.suffix.lower()
    if kind == ".npy":
        save_images(film.frames.clamp(-1, 1), out)  # what a chain or a generator gives may leave the range
    elif kind == ".png":
        save_png(strips(list(film.frames), titles=film.titles), out)
    else:
        save_animation([grid(frame) for frame in film.frames], out)
    print(f"{out}: {film.words}")
