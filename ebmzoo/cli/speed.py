"""``ebmzoo speed``: how fast chains are here, against other ways to write them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ebmzoo.cli.errors import UserError

if TYPE_CHECKING:
    from ebmzoo.report.speed import Case


def run(verb: str, arguments: Sequence[str]) -> None:
    """Time the cases asked for, print the table and write the figures."""
    parser = argparse.ArgumentParser(
        prog=f"ebmzoo {verb}", description="Time chains against other ways to write them.", allow_abbrev=False
    )
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="some of the standard cases (all)")
    parser.add_argument("--config", help="the energy and the training chain of this config instead")
    parser.add_argument("--batch_size", type=int, help="number of chains (the case's)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (7)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (cpu)")
    parser.add_argument("--out", default="speed.json", help="file of the figures (speed.json)")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1 or (options.batch_size or 1) < 1:
        raise UserError("--rounds, --threads and --batch_size must be positive")

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
    Path(options.out).write_text(json.dumps({"settings": settings, "rows": [asdict(row) for row in rows]}, indent=1))
    print(f"{settings}\n{options.out}")


def _case(path: str) -> Case:
    """Energy, shape, batch and training chain of a config."""
    from ebmzoo.report.speed import Case

    try:
        config: dict[str, Any] = yaml.safe_load(Path(path).read_text())
        model, data = config["model"]["init_args"], config["data"]
        energy, sampler = model["energy"], model["sampler"]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} has no energy with a chain (model.init_args.energy and .sampler)") from error
    made = _made(data, "ebmzoo.data")
    shape = tuple(made.image_shape)
    return Case(lambda: _made(energy, "ebmzoo.networks", shape), shape, made.batch_size, _made(sampler, "ebmzoo.mcmc"))


def _made(spec: dict[str, Any], room: str, *positional: Any) -> Any:
    """An object of a class named in full or, in its room, by its short name."""
    module, _, name = spec["class_path"].rpartition(".")
    return getattr(import_module(module or room), name)(*positional, **spec.get("init_args", {}))
