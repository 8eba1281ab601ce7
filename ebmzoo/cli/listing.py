"""``ebmzoo list``: the configs, methods, networks, samplers and data that there are, and a config to make one's own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from inspect import isabstract, signature
from pathlib import Path
from typing import Any

import yaml

from ebmzoo.cli.arguments import OneLineParser, check_writable
from ebmzoo.cli.configs import shipped
from ebmzoo.cli.errors import UserError, nearest

KINDS = ("configs", "methods", "parts", "networks", "samplers", "data", "callbacks", "figures")


def run(verb: str, arguments: Sequence[str]) -> None:
    """Print a table, or put a config beside the user."""
    parser = OneLineParser(verb, "What there is: configs with what they train on, and the classes that configs name.")
    parser.add_argument("kind", nargs="?", choices=KINDS, help="all of them by default")
    parser.add_argument("--copy", metavar="NAME", help="put the shipped config NAME here, to edit it")
    parser.add_argument("--out", type=Path, help="where --copy writes (NAME.yaml)")
    options = parser.parse_args(arguments)
    if options.copy is not None:
        _copy(options.copy.removesuffix(".yaml"), options.out)
        return
    if options.out is not None:
        raise UserError("--out is where --copy writes: give --copy NAME with it")
    for kind in KINDS if options.kind is None else (options.kind,):
        if kind == "configs":
            small, large = _configs()
            _print("configs, seen to train (docs/results.md)", small)
            _print("configs of the papers' sizes, not run to their end here", large)
        else:
            _print(kind, list(_classes(kind)))


def _copy(name: str, out: Path | None) -> None:
    found = shipped()
    if name not in found:
        raise UserError(f"no config {name!r}: {nearest(name, found) or 'see `ebmzoo list configs`'}")
    out = out or Path(f"{name}.yaml")
    if out.exists():
        raise UserError(f"{out} exists: give another place with --out")
    check_writable(out)
    shutil.copyfile(found[name], out)
    print(f"{out}: edit it, then: ebmzoo fit --config {out}")


def _configs() -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Each config with its data and the words that it begins with: those whose data is built in, and the others."""
    from ebmzoo import data

    built_in: list[tuple[str, ...]] = []
    on_disk: list[tuple[str, ...]] = []
    for name, path in shipped().items():
        config = yaml.load(path.read_text(), yaml.CSafeLoader)
        kind = config["data"]["class_path"]
        needs_files = "root" in signature(getattr(data, kind)).parameters
        words = path.read_text().partition("\n")[0].removeprefix("#").strip()
        (on_disk if needs_files else built_in).append((name, kind, words))
    return built_in, on_disk


def _classes(kind: str) -> Iterator[tuple[str, str]]:
    """Each class of a room that a config may name, and the first line of what it says of itself."""
    from lightning import Callback
    from torch.nn import Module

    from ebmzoo import callbacks, data, figures, mcmc, methods, networks, parts
    from ebmzoo.data.base import DataModule
    from ebmzoo.mcmc import Sampler
    from ebmzoo.methods import Method

    rooms: dict[str, tuple[Any, type]] = {
        "methods": (methods, Method),
        "parts": (parts, Module),
        "networks": (networks, Module),
        "samplers": (mcmc, Sampler),
        "data": (data, DataModule),
        "callbacks": (callbacks, Callback),
        "figures": (figures, figures.Figure),
    }
    room, base = rooms[kind]
    for name in sorted(room.__all__):
        one = getattr(room, name)
        if not isinstance(one, type) or not issubclass(one, base) or one is base or isabstract(one):
            continue
        # What a config names of networks is made from the shape or the size of a code; the rest is made of them.
        if kind != "networks" or {"image_shape", "latent_dim"} & signature(one).parameters.keys():
            yield name, (one.__doc__ or "").strip().splitlines()[0]


def _print(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in rows[0][1:]:
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 250)  # one line each, for grep
    console.print(title, style="bold")
    console.print(table)
    console.print()
