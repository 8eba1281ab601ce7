"""``ebmzoo speed``: how fast chains are here, against other ways to write them; what iterations dispatch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmzoo.cli.arguments import OneLineParser, check_writable
from ebmzoo.cli.configs import config_path, load_all, load_named, parsed, read_config
from ebmzoo.cli.errors import UserError, instantiating

if TYPE_CHECKING:
    from torch import nn

    from ebmzoo.methods.base import Method
    from ebmzoo.report.speed import Case


def run(verb: str, arguments: Sequence[str]) -> None:
    """Time the cases asked for, print the table and write the figures."""
    parser = OneLineParser(verb, "Time chains against other ways to write them.")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="some of the standard cases (all)")
    parser.add_argument("--config", help="the energy and the training chain of this config instead")
    parser.add_argument("--batch_size", type=int, help="number of chains (the case's)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (7)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (cpu)")
    parser.add_argument("--out", type=Path, default=Path("speed.json"), help="file of the figures (speed.json)")
    parser.add_argument(
        "--dispatches", nargs="+", metavar="CONFIG", help="count what an iteration of these configs dispatches instead"
    )
    parser.add_argument("--width", type=int, help="with --dispatches: width of all networks (the config's)")
    parser.add_argument("--precision", default="32-true", help="with --dispatches: Lightning's (32-true)")
    options = parser.parse_args(arguments)
    if options.dispatches:
        _dispatches(options.dispatches, options.batch_size or 2, options.width, options.precision)
        return
    if min(options.rounds, options.threads, 1 if options.batch_size is None else options.batch_size) < 1:
        raise UserError("--rounds, --threads and --batch_size must be positive")
    if options.cases and options.config:
        raise UserError("--cases are the standard ones, --config has its own: give one of the two")
    if options.out.is_dir():
        raise UserError(f"--out {options.out} is a folder: give a file")
    check_writable(options.out)

    import torch

    from ebmzoo.report.speed import CASES, measure, table

    torch.set_num_threads(options.threads)
    unknown = [name for name in options.cases or () if name not in CASES]
    if unknown:
        raise UserError(f"no case {unknown[0]!r}: there are {', '.join(CASES)}")
    if options.device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"--device {options.device}: there is none here")
    if options.config:
        cases = {Path(options.config).stem: _case(options.config)}
    else:
        cases = {name: CASES[name] for name in options.cases or CASES}
    rows = []
    for name, case in cases.items():
        if options.batch_size:
            case = replace(case, batch=options.batch_size)
        rows += measure(name, case, rounds=options.rounds, device=options.device)
        print(f"{table([row for row in rows if row.case == name])}\n", flush=True)
    settings = {
        "device": torch.cuda.get_device_name() if options.device != "cpu" else "cpu",
        "threads": options.threads,
        "rounds": options.rounds,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"settings": settings, "rows": [asdict(row) for row in rows]}, indent=1))
    print(f"{settings}\n{options.out}")


def _case(path: str) -> Case:
    """Energy, shape, batch and training chain of a config."""
    path = config_path(path)
    config = read_config(path)

    from jsonargparse import ArgumentParser

    from ebmzoo.checkpoints import models  # noqa: F401 - what the parser needs to know samplers
    from ebmzoo.data.base import DataModule
    from ebmzoo.factories import EnergyFactory
    from ebmzoo.mcmc import Sampler
    from ebmzoo.report.speed import Case

    try:
        own = config["model"]["init_args"]
        parts = {"data": config["data"], "energy": own["energy"], "sampler": own["sampler"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} has no energy with a chain (model.init_args.energy and .sampler)") from error
    load_named(parts)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    parser.add_argument("--energy", type=EnergyFactory)
    parser.add_argument("--sampler", type=Sampler)
    words = [f"--{name}={one if isinstance(one, str) else json.dumps(one)}" for name, one in parts.items()]
    with instantiating():
        made = parser.instantiate(parsed(parser, words))
    shape = tuple(made.data.image_shape)

    def energy() -> nn.Module:
        with instantiating():
            return made.energy(shape)

    return Case(energy, shape, made.data.batch_size, made.sampler)


def _dispatches(configs: Sequence[str], batch: int, width: int | None, precision: str) -> None:
    """Print what one iteration of each config dispatches."""
    from ebmzoo.cli.trainer import filter_messages
    from ebmzoo.report.dispatches import iteration, table

    filter_messages()
    rows = []
    for path in configs:
        model, _ = made(path, width)
        rows.append((Path(path).stem, iteration(model, batch, precision=precision)))
        print(table(rows[-1:]), flush=True)
    if len(rows) > 1:
        print(f"\n{table(rows)}")


def made(path: str, width: int | None = None) -> tuple[Method, int]:
    """The method of a config, and its batch size.

    Args:
        path: of the config, or its name.
        width: of all networks, in the place of the config's.
    """
    from jsonargparse import ArgumentParser

    from ebmzoo import optim  # noqa: F401 - what the parser needs to know schedules
    from ebmzoo.checkpoints import models  # noqa: F401 - and samplers
    from ebmzoo.data.base import DataModule
    from ebmzoo.methods.base import Method

    load_all()
    config = read_config(config_path(path))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    parser.add_subclass_arguments(Method, "model")
    parser.link_arguments("data.image_shape", "model.init_args.image_shape", apply_on="instantiate")
    model = config["model"] if width is None else _of_width(config["model"], width)
    with instantiating():
        found = parser.instantiate_classes(parser.parse_object({"data": config["data"], "model": model}))
    return found.model, found.data.batch_size


def _of_width(part: Any, width: int) -> Any:
    """A config whose networks all have one width."""
    if isinstance(part, list):
        return [_of_width(item, width) for item in part]
    if not isinstance(part, dict):
        return part
    found: dict[str, Any] = {key: width if key == "width" else _of_width(value, width) for key, value in part.items()}
    if found.get("class_path") == "VAEBMEnergy":  # its column has one
        found["init_args"] = {**found["init_args"], "width": width}
    return found
