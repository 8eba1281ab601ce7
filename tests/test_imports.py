"""Who may import whom: the arrows between the rooms, read from the source."""

import ast
import sys
from pathlib import Path

import pytest

import ebmzoo

ROOT = Path(ebmzoo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# What each room may import of this package; the package itself (its version) is open to all.
OURS = {
    "files": set(),
    "images": set(),
    "seeds": set(),
    "mcmc": set(),
    "objectives": set(),
    "optim": set(),
    "networks": set(),
    "methods": {"mcmc", "objectives", "optim", "seeds"},
    "data": {"images", "seeds"},
    "metrics": {"files", "images", "mcmc", "networks", "data"},
    "figures": {"metrics", "methods.capabilities", "images", "mcmc"},
    "callbacks": {"figures", "metrics", "methods.at_rest", "methods.base", "files", "images", "mcmc", "seeds"},
    "checkpoints": {"methods.base", "mcmc", "objectives", "storage", "trust"},
    "storage": {"files"},
    "trust": {"mcmc", "objectives"},
    "tasks": {"mcmc", "methods.base", "images"},
    "report": {"files", "images", "mcmc", "networks"},
}
# What all methods share: the base and what it is made of.
SHELF = {
    "methods.at_rest",
    "methods.base",
    "methods.capabilities",
    "methods.factories",
    "methods.lightning_contract",
    "methods.mixins",
    "methods.random_state",
    "methods.reports",
    "methods.settings",
    "methods.stage_one",
}
# What else the rooms of pure torch may import.
OTHERS = {
    "mcmc": {"torch"},
    "objectives": {"torch"},
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_between_rooms(path):
    here = room(path)
    if here in ("cli", "__init__"):
        return
    assert here in OURS, f"{here} is a room that the rules do not know"
    for name in imported(path):
        if name == "ebmzoo" or name.startswith("ebmzoo.__"):
            continue
        if name.startswith("ebmzoo."):
            inner = name.removeprefix("ebmzoo.")
            if here == "methods" and inside(inner, {"methods"}):
                # A method knows what all share, and none of its neighbours; the shelf's list knows the methods.
                # A method too long for one file has second files that bear its name.
                own = inner.startswith(f"methods.{path.stem}_")
                assert path.name == "__init__.py" or own or inside(inner, SHELF), f"{path}: {name}"
                continue
            assert inside(inner, OURS[here] | {here}), f"{path}: {name}"
        elif here in OTHERS and name.partition(".")[0] not in sys.stdlib_module_names:
            assert name.partition(".")[0] in OTHERS[here], f"{path}: {name}"


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


def test_top_level_names_are_the_rooms_own():
    """The lazy list, the list for type checkers and ``__all__`` say the same, and each name is there."""
    source = ast.parse((ROOT / "__init__.py").read_text())
    checked = {
        (node.module.removeprefix("ebmzoo."), alias.name)
        for block in ast.walk(source)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == {(place, name) for place, names in ebmzoo._ROOMS.items() for name in names}
    assert sorted(ebmzoo.__all__) == sorted(name for names in ebmzoo._ROOMS.values() for name in names)
    for place, name in checked:
        assert getattr(ebmzoo, name) is getattr(__import__(f"ebmzoo.{place}", fromlist=[name]), name)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = ebmzoo.Nothing
