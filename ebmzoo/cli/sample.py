"""``ebmzoo sample``: draw from a checkpoint and write what was drawn."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ebmzoo.cli.errors import UserError, nearest
from ebmzoo.cli.given import import_trusted

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".png", ".npy", "")


class Parser(argparse.ArgumentParser):
    """A parser of plain options whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        word, _, rest = message.partition(": ")
        if word == "unrecognized arguments":
            known = [name.lstrip("-") for action in self._actions for name in action.option_strings]
            option = rest.split()[0]
            message = f"no option {option}: {nearest(option.lstrip('-').partition('=')[0], known)}"
        raise UserError(message)


def run(verb: str, arguments: Sequence[str]) -> None:
    """Draw samples and write them."""
    options = _parser(verb).parse_args(arguments)
    for module in options.trust:
        import_trusted(module)
    if options.n <= 0 or options.batch_size <= 0:
        raise UserError(f"--n and --batch_size must be positive, not {options.n} and {options.batch_size}")
    if options.steps is not None and options.steps < 0:
        raise UserError(f"--steps must not be negative, not {options.steps}")
    out = Path(options.out)
    _check_writable(out)

    import torch

    from ebmzoo.checkpoints import load
    from ebmzoo.mcmc import as_noise
    from ebmzoo.methods import Samples

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: there is none here") from error
    model = load(options.ckpt_path, ema=not options.no_ema, map_location=device)
    if not isinstance(model, Samples):
        raise UserError(f"a {type(model).__name__} cannot be sampled from")
    noise = as_noise(options.seed, torch.device(device))
    parts = []
    for start in range(0, options.n, options.batch_size):
        count = min(options.batch_size, options.n - start)
        parts.append(model.sample(count, steps=options.steps, noise=noise).detach().cpu())
    _write(torch.cat(parts), out)
    weights = "averaged (EMA)" if model.ema_active else "raw"
    print(f"{out}: {options.n} samples of {options.ckpt_path}, {weights} weights, seed {options.seed}")


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = Parser(prog=f"ebmzoo {verb}", description="Draw samples from a checkpoint.", allow_abbrev=False)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint of a training run")
    parser.add_argument("--n", type=int, default=64, help="number of samples (64)")
    parser.add_argument(
        "--out",
        default="samples.png",
        help="a .png grid, a .npy array of floats in the data's units, or a folder of PNGs (samples.png)",
    )
    parser.add_argument("--steps", type=int, help="steps of the test-time chain, where the method has one")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers (0)")
    parser.add_argument("--batch_size", type=int, default=256, help="samples drawn at a time (256)")
    parser.add_argument("--no_ema", action="store_true", help="raw weights, not averaged ones")
    parser.add_argument("--trust", action="append", default=[], help="a module whose classes the checkpoint may name")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (the GPU if there is one)")
    return parser


def _check_writable(out: Path) -> None:
    """Refuse before the sampling what could not be written after it."""
    if not out.is_dir() and out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {out}: give .png (one grid), .npy (floats) or a folder (no ending)")
    place = out
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK) or (place != out and not place.is_dir()):
        raise UserError(f"cannot write {out}: {place} is {'not writable' if place.is_dir() else 'a file'}")


def _write(samples: Tensor, out: Path) -> None:
    from ebmzoo.images import save_images, save_png

    if samples.ndim == 2 and out.suffix.lower() == ".png":
        from ebmzoo.callbacks.pictures import scatter

        save_png(scatter(samples), out)
    else:
        save_images(samples, out)
