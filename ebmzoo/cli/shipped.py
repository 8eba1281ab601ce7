"""The configs that ship with the package, by name: ``ebmzoo fit --config ecvae_cifar``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ebmzoo
from ebmzoo.cli.errors import UserError, nearest

#: the repository's ``configs/``, by a link; a wheel holds copies
FOLDER = Path(ebmzoo.__file__).parent / "configs"


def shipped() -> dict[str, Path]:
    """The shipped configs by name.

    Example:
        >>> shipped()["ecvae_digits"].name
        'ecvae_digits.yaml'
    """
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def config_path(given: str) -> str:
    """The file that ``--config`` means: one of that path, else the shipped config of that name.

    Raises:
        UserError: there is neither.
    """
    if Path(given).is_file():
        return given
    found = shipped()
    # A path into configs/ means the shipped one too, from whatever folder: so the commands of the docs work anywhere.
    name = given.removesuffix(".yaml").removeprefix("configs/")
    if name in found:
        return str(found[name])
    hint = nearest(name, found) if "/" not in name else ""
    raise UserError(f"no config at {given} (looked from {Path.cwd()}), and none of that name: {hint}".rstrip(": "))


def with_paths(words: Sequence[str]) -> list[str]:
    """Words in which each ``--config`` names a file.

    Example:
        >>> with_paths(["--config=ecvae_digits", "--seed_everything", "1"])[0].endswith("ecvae_digits.yaml")
        True
    """
    found: list[str] = []
    follows = False
    for word in words:
        option, joined, value = word.partition("=")
        if follows:
            word = config_path(word)
        elif option in ("--config", "-c") and joined:
            word = f"{option}={config_path(value)}"
        follows = not follows and option in ("--config", "-c") and not joined
        found.append(word)
    return found
