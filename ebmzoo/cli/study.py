"""``ebmzoo study``: chains on any energy, whether they mix, its log Z and its looks, as a table and one HTML page."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmzoo.cli.arguments import OneLineParser, check_writable, device_of, load_model, weights_of
from ebmzoo.cli.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLERS = ("HMC", "MALA", "Langevin", "UnderdampedLangevin", "ReplicaExchange")


def run(verb: str, arguments: Sequence[str]) -> None:
    """Run the chains, print what was found and write the page."""
    options = _parsed(verb, arguments)
    import ebmzoo
    from ebmzoo import mcmc
    from ebmzoo.images import save_images

    if options.ckpt_path:
        energy: Any = load_model(options)
        title = f"{type(energy).__name__}: {weights_of(energy)} weights of {Path(options.ckpt_path).parent.parent.name}"
    else:
        energy, title = _named(options.energy, device_of(options)), options.energy
    start: Any = _points("--start", options.start)
    shape = options.shape or ([energy.dim] if hasattr(energy, "dim") else None)
    if start is None and (options.shape or not options.ckpt_path):
        if shape is None:
            raise UserError("where do the chains begin? Give --shape 2 (white noise of that shape) or --start FILE.npy")
        start = (options.chains, *shape)
    kernel = getattr(mcmc, options.sampler)
    settings = {"step_size": 0.1} | ({"jitter": 0.5} if issubclass(kernel, mcmc.HMC) else {})
    settings |= {name: value for name in ("step_size", "temperature") if (value := getattr(options, name)) is not None}
    found = ebmzoo.study(
        energy,
        start,
        kernel(**settings),
        steps=options.steps,
        warmup=options.warmup,
        tune=not options.keep_step_size,
        exact=_points("--exact", options.exact),
        outside=_points("--outside", options.outside),
        temperatures=options.ais,
        noise=options.seed,
    )
    print(found)
    found.save(options.out, title, f"ebmzoo {verb} {shlex.join(arguments)}")
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB, open it in a browser")
    if options.samples:
        print(f"{save_images(found.samples.cpu(), options.samples)}: {len(found.samples)} samples")


def _parsed(verb: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(verb, "Run chains on an energy: do they mix, what is its log Z? And a page.")
    add = parser.add_argument
    add("--energy", help="module:name or file.py:name of a function (B, …) -> (B,), a module, or a class of one")
    add("--ckpt_path", help="or a checkpoint of a method with a log-density")
    add("--out", type=Path, required=True, help="the page, ending in .html")
    add("--samples", type=Path, help="also where the chains ended: .npy, or of images .png or a folder")
    add("--shape", type=int, nargs="+", metavar="D", help="of one example: chains begin at white noise of it")
    add("--start", type=Path, help="or a .npy file (B, …) of where they begin (of a checkpoint, its own starts)")
    add("--chains", type=int, default=64, help="that begin at white noise (64)")
    add("--sampler", choices=_SAMPLERS, default="HMC", help="the kernel (HMC, its steps with jitter)")
    add("--step_size", type=float, help="s, where the search for it begins (0.1)")
    add("--keep_step_size", action="store_true", help="take it as it is: no search")
    add("--temperature", type=float, help="T of the density exp(-U/T) (1)")
    add("--steps", type=int, default=1000, help="of each chain (1000)")
    add("--warmup", type=int, default=500, help="steps before them, which find the step size and are thrown away (500)")
    add("--ais", type=int, default=200, help="temperatures of annealed importance sampling; 0 leaves log Z out (200)")
    add("--exact", type=Path, help="a .npy file of samples of the density: then log Z has an upper bound too")
    add("--outside", type=Path, help="a .npy file of something else, for the AUROC")
    add("--no_ema", action="store_true", help="of a checkpoint, raw weights, not averaged ones")
    add("--trust", action="append", default=[], help="a module whose classes the checkpoint may name")
    add("--seed", type=int, default=0, help="of all random numbers (0)")
    add("--device", help="cpu, cuda, cuda:1, ... (the GPU if there is one)")
    options = parser.parse_args(arguments)
    if bool(options.energy) == bool(options.ckpt_path):
        raise UserError("an energy is given by --energy module:name or by --ckpt_path, one of them")
    if options.out.suffix != ".html":
        raise UserError(f"--out is a page, ending in .html, not {options.out}")
    if options.samples and options.samples.suffix not in (".npy", ".png", ""):
        raise UserError(f"--samples is a .npy file, a .png grid or a folder (no ending), not {options.samples}")
    if options.shape and options.start:
        raise UserError("chains begin at --start or at white noise of --shape, not at both")
    if options.chains < 2 or any(side < 1 for side in options.shape or ()):
        raise UserError("--chains is 2 or more, and the numbers of --shape are positive")
    for file in (options.out, options.samples):
        if file:
            check_writable(file)
    return options


def _named(said: str, device: str) -> Any:
    """What a user calls an energy: a function, a module, or an object of a class."""
    import torch

    place, _, name = said.rpartition(":")
    if not place:
        raise UserError(f"--energy {said}: give module:name or file.py:name")
    try:
        if place.endswith(".py"):
            spec = util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None and spec.loader is not None
            module = util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = import_module(place)
    except Exception as error:  # a user's module can fail in any way
        raise UserError(f"--energy {said}: cannot import it ({type(error).__name__}: {error})") from error
    if not hasattr(module, name):
        names = [one for one in dir(module) if callable(getattr(module, one)) and not one.startswith("_")]
        raise UserError(f"--energy: {place} has no {name}: {nearest(name, names)}")
    energy = getattr(module, name)
    if isinstance(energy, type):
        try:
            energy = energy()
        except TypeError as error:
            raise UserError(
                f"--energy {said}: {error}; name an object or a function that needs no arguments"
            ) from error
    if not callable(energy):
        raise UserError(f"--energy {said} is no function and no module: {type(energy).__name__}")
    return energy.to(device) if isinstance(energy, torch.nn.Module) else energy


def _points(option: str, file: Path | None) -> Tensor | None:
    import numpy as np
    import torch

    if file is None:
        return None
    try:
        values = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{option} {file}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {file} is not a .npy file of numbers") from error
    if not isinstance(values, np.ndarray) or values.ndim < 2 or values.dtype.kind not in "fiu":
        raise UserError(
            f"{option} {file}: an array of numbers (n, …) is needed, not {getattr(values, 'shape', 'an .npz')}"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{option} {file} holds numbers that are not finite")
    return torch.from_numpy(values).float()
