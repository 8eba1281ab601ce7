"""What a file may import: methods no other method, rooms of pure torch little else; pyproject.toml has the floors."""

import ast
import sys
from pathlib import Path

import pytest

import ebmzoo

ROOT = Path(ebmzoo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What all methods share: the base and what it is made of.
SHELF = {
    "methods.answers",
    "methods.at_rest",
    "methods.base",
    "methods.capabilities",
    "methods.lightning_contract",
    "methods.reports",
    "methods.resuming",
}
# What else the rooms of pure torch may import.
OTHERS = {
    "mcmc": {"torch"},
    "parts": {"torch"},
    "optim": {"torch"},
    "networks": {"torch", "zuko", "normflows", "nflows"},
    "methods": {"torch", "lightning"},
    "images": {"torch", "torchvision", "numpy", "PIL"},
}


def room(path):
    """First part of a file's path in the package, without its ending."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path, top_level=False):
    """Full names of the modules (and names) that a file imports; those under TYPE_CHECKING excepted."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level else ast.walk(tree)
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    for node in nodes:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def inside(name, allowed):
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("path", sorted((ROOT / "methods").glob("*.py")), ids=lambda path: path.name)
def test_a_method_knows_what_all_share_and_none_of_its_neighbours(path):
    if path.name == "__init__.py":
        return  # the shelf's list knows them all, and loads none
    for name in (name.removeprefix("ebmzoo.") for name in imported(path)):
        # A method too long for one file has second files that bear its name.
        own = name.startswith(f"methods.{path.stem}_")
        assert own or not name.startswith("methods.") or inside(name, SHELF), f"{path}: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pure_rooms_import_little_else(path):
    for name in {name.partition(".")[0] for name in imported(path)} - {"ebmzoo", *sys.stdlib_module_names}:
        assert name in OTHERS.get(room(path), {name}), f"{path}: {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nobody_imports_wandb_when_loaded(path):
    assert not any(name.partition(".")[0] == "wandb" for name in imported(path, top_level=True))
    if room(path) not in ("cli", "callbacks", "report"):
        assert not any(name.partition(".")[0] == "wandb" for name in imported(path))


def test_no_file_outgrows_350_lines():
    benchmarks = sorted((Path(__file__).parents[1] / "benchmarks").rglob("*.py"))
    assert benchmarks
    long = {path.name: lines for path in (*FILES, *benchmarks) if (lines := len(path.read_text().splitlines())) > 350}
    assert not long


def test_no_rooms_for_odds_and_ends():
    forbidden = {"utils", "util", "core", "common", "engine", "registry", "helpers", "misc"}
    names = {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not forbidden & names


def test_the_reader_of_imports_sees_all_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "ebmzoo")
    file = tmp_path / "ebmzoo" / "methods" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from typing import TYPE_CHECKING\nimport os.path\nfrom .base import Method\n"
        "from ..mcmc import Langevin\n"
        "from . import vae\nfrom ebmzoo import data\nif TYPE_CHECKING:\n    import wandb\n"
        "def f():\n    import lightning\n"
    )
    assert sorted(imported(file)) == [
        "ebmzoo.data",
        "ebmzoo.mcmc.Langevin",
        "ebmzoo.methods.base.Method",
        "ebmzoo.methods.vae",
        "lightning",
        "os.path",
        "typing.TYPE_CHECKING",
    ]
