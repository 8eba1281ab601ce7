"""Results with their protocol: a number without one cannot be written.

``results.json`` holds ``{"results": [{"name": "fid", "value": 9.8, "protocol": {...}}, ...], "run": {...}}``.
Adding a number again under the same protocol replaces it; under another protocol it stands beside the first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import ebmzoo
from ebmzoo.files import written_whole
from ebmzoo.precision import decided

#: the feature networks that go by a name; others are files of ``ebmzoo extractor``
EXTRACTORS = ("digits", "cifar10", "inception")

#: of a set of images: Fréchet and kernel Inception distance, Inception score, precision and recall
METRICS = ("fid", "kid", "isc", "prc")
ROUNDING = "clamp to [-1, 1], (x + 1) * 127.5, round, uint8"
_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "torch-fidelity", "numpy")


def check_extractor(name: str) -> None:
    """Refuse what is neither the name of a feature network nor can be the path of one's file.

    Raises:
        ValueError: one line with the names.
    """
    if name not in EXTRACTORS and not name.endswith(".safetensors"):
        known = ", ".join(EXTRACTORS)
        raise ValueError(f"there is no feature extractor {name!r}: {known}, or a .safetensors file of ebmzoo extractor")


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for package in _PACKAGES:
        try:
            found.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            found.append((package, "not installed"))
    return (*found, ("ebmzoo", ebmzoo.__version__))


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of the packages that a number can depend on.

    Example:
        >>> sorted(versions())[:3]
        ['ebmzoo', 'lightning', 'numpy']
    """
    return dict(_versions())


@lru_cache(maxsize=8)
def git_revision(folder: str | Path = Path(__file__).parent) -> str | None:
    """The commit of the working tree that this package runs from, with "+dirty" where tracked files differ.

    Args:
        folder: a folder of the working tree; by default this file's.

    Returns:
        40 hexadecimal digits, with or without "+dirty"; None where there is no such tree (an installed
        package is not tracked by the repository it may happen to lie in), no commit, or no git.
    """
    if _git(folder, "ls-files", "--error-unmatch", ".") is None:
        return None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None
    return f"{commit}+dirty" if changes else commit


def _git(folder: str | Path, *arguments: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def config_hash(config: Mapping[str, Any]) -> str:
    """A short hash of plain data that does not depend on the order of keys.

    Example:
        >>> config_hash({"a": 1, "b": [2]}) == config_hash({"b": [2], "a": 1})
        True
    """
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that has to be the same for two numbers to be compared.

    What samples were drawn with has no defaults and cannot be forgotten; None where it does not apply.

    Args:
        n: number of samples or examples that the number was computed from.
        ema: whether averaged weights were used.
        sampler: the test-time sampler: its class, or "none (one step)".
        steps: steps of that sampler; 0 for one-step generation.
        step_size: s in the kernel's normal form.
        temperature: T in the kernel's normal form.
        seed: of the noise.
        reference: name and split of the data compared with, such as "digits-8 train".
        n_reference: number of examples of it.
        extractor: the feature network, "digits" or "inception".
        extractor_sha256: of its weights file.
        resize: how images were brought to its size.
        rounding: how floats became bytes.
        settings: what else the metric's definition needs, such as k or the size of subsets.
        versions: see `versions`.
        git: see `git_revision`.
        config_hash: see `config_hash`; of the run's config.
        trained_steps: training iterations of the weights.
        statistics: what BatchNorm's statistics are of where samples begin; None: the training's, or there are none.
        precision: the trainer's, and whether TF32 was taken, see `ebmzoo.precision.decide`.

    Example:
        >>> protocol = Protocol(
        ...     n=5000, ema=True, sampler="Langevin", steps=15, step_size=0.1, temperature=1e-5, seed=0
        ... )
        >>> protocol.as_dict()["steps"]
        15
    """

    n: int
    ema: bool | None
    sampler: str | None
    steps: int | None
    step_size: float | None
    temperature: float | None
    seed: int | None
    reference: str | None = None
    n_reference: int | None = None
    extractor: str | None = None
    extractor_sha256: str | None = None
    resize: str | None = None
    rounding: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)
    git: str | None = field(default_factory=git_revision)
    config_hash: str | None = None
    trained_steps: int | None = None
    statistics: str | None = None
    precision: str = field(default_factory=decided)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in the file."""
        return json.loads(_canonical(asdict(self)))


class Result(NamedTuple):
    """One number: its name, its value (None where it is not finite), its protocol as plain data."""

    name: str
    value: float | None
    protocol: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """What makes it this number and not another."""
        return self.name, _canonical(self.protocol)


class Results:
    """A results file: what it held before, and what is added.

    Args:
        path: the file; it need not exist.
        run: facts about the run as a whole, merged into the file's "run".

    Raises:
        ValueError: if there is a file which is no results file; it is left alone.

    Example:
        >>> import tempfile
        >>> protocol = Protocol(
        ...     n=10, ema=None, sampler=None, steps=None, step_size=None, temperature=None, seed=0
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = Results(folder + "/results.json")
        ...     results.add("mse", 0.5, protocol)
        ...     path = results.write()
        ...     Results(path).entries[0].value
        0.5
    """

    def __init__(self, path: str | Path, run: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._entries, self._run = self._read()
        self._added: dict[tuple[str, str], Result] = {}
        self._added_run = dict(run or {})

    @property
    def entries(self) -> list[Result]:
        """All numbers: the file's, in their order, replaced or followed by those added."""
        return list(({entry.key: entry for entry in self._entries} | self._added).values())

    @property
    def added(self) -> list[Result]:
        """The numbers added here."""
        return list(self._added.values())

    @property
    def run(self) -> dict[str, Any]:
        """Facts about the run as a whole."""
        return self._run | self._added_run

    def note(self, **facts: Any) -> None:
        """Add facts about the run as a whole."""
        self._added_run |= facts

    def add(self, name: str, value: float, protocol: Protocol) -> None:
        """Add a number; it is in the file after `write`.

        Args:
            name: such as "fid".
            value: a number that is not finite is written as null: JSON has no other word for it.
            protocol: how it was measured.

        Raises:
            ValueError: without a name or a protocol.
        """
        if not isinstance(protocol, Protocol) or not name:
            raise ValueError(f"{name!r} = {value} has no protocol: numbers without one are not kept")
        number = float(value)
        entry = Result(name, number if math.isfinite(number) else None, protocol.as_dict())
        self._added[entry.key] = entry

    def write(self) -> Path:
        """Merge with what the file holds by now, and write it in one move.

        Readers see the old file or the new one, never a part.

        Raises:
            ValueError: if the file cannot be written, or is no results file.
        """
        self._entries, self._run = self._read()
        rows = [entry._asdict() for entry in self.entries]
        text = json.dumps({"results": rows, "run": self.run}, indent=2, allow_nan=False, default=str)
        try:
            with written_whole(self.path) as file:
                file.write(f"{text}\n".encode())
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror or error}") from error
        return self.path

    def _read(self) -> tuple[list[Result], dict[str, Any]]:
        try:
            found = json.loads(self.path.read_text())
            return [Result(**row) for row in found["results"]], dict(found["run"])
        except FileNotFoundError:
            return [], {}
        except OSError as error:
            raise ValueError(f"cannot read {self.path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is not a results file: move it away (it was left alone)") from error
