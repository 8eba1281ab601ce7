"""Finished runs as they lie on the disk: their numbers with protocols, and which of them are seeds of one row."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ebmzoo.precision import PLAIN

from .runs import BUDGET, RESULTS, TIMES, read

#: what of a protocol says how a method draws or integrates: its own affair, which its rows must share
OF_METHOD = ("sampler", "steps", "step_size", "temperature", "details", "draws", "lattice_draws", "statistics")
_NO_DIFFERENCE = {"seed", "versions", "git", "config_hash", "batch_size"}
_NUMBERED = re.compile(r"(seed|version)_\d+")
_RECALL, _MODES = 0.01, 0.5  # a run below them has collapsed
_STACKED = 1000


@dataclass(frozen=True)
class Number:
    """One number of a run.

    Args:
        value: None where it was not finite.
        protocol: flat; without what makes no difference to a comparison (seed, versions, commit, batch size).
    """

    value: float | None
    protocol: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run that was measured, or should have been.

    Args:
        folder: where it lies.
        method: class of its method.
        row: the name it has in tables, which the seeds of one setting share.
        numbers: by name; of a name with several protocols, the last. With "fit_cpu_s", "fit_wall_s" and
            "fit_network_evaluations", what training cost, where a benchmark wrote them down. None at all where the
            training diverged or nothing was tested.
        data: name of the data set.
        commands: what made it again, where it is known.
        trouble: what the divergence guard did last, in words, or why there are no numbers; else "".
    """

    folder: Path
    method: str
    row: str
    numbers: Mapping[str, Number]
    data: str
    commands: Sequence[str]
    trouble: str = ""

    @property
    def name(self) -> str:
        """The row, and which of its runs."""
        return self.row if f"/{self.row}".endswith(f"/{self.folder.name}") else f"{self.row}/{self.folder.name}"

    @property
    def collapsed(self) -> bool:
        """Whether it draws next to nothing of what there is: recall, or its share of the known modes, says so."""
        recall = self.numbers.get("recall")
        if recall is not None and recall.value is not None and recall.value < _RECALL:
            return True
        for name in ("modes_covered", "stacked_modes"):
            if (number := self.numbers.get(name)) is not None and number.value is not None:
                there = number.protocol.get("modes", _STACKED)
                # So many samples cannot show more of them.
                return number.value < _MODES * min(there, number.protocol.get("n", there))
        return False


#: the same in words
COLLAPSED = f"recall below {_RECALL:g}, or fewer than half of the known modes"


def flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What of a protocol has to be the same for two numbers to be compared, its settings among it.

    Example:
        >>> flat({"n": 500, "seed": 0, "settings": {"k": 3, "batch_size": 50, "sampler": {"steps": 2}}})
        {'n': 500, 'k': 3, 'details': {'steps': 2}}
    """
    fields = {name: value for name, value in protocol.items() if name != "settings"}
    settings = dict(protocol.get("settings", {}))
    if "sampler" in settings:
        settings["details"] = settings.pop("sampler")
    if fields.get("precision") == PLAIN:  # older results, which were, do not say so
        del fields["precision"]
    return {name: value for name, value in (fields | settings).items() if name not in _NO_DIFFERENCE}


def load(paths: Iterable[str | Path]) -> list[Run]:
    """The runs under some paths: results files, folders of runs, or folders with such folders below them.

    Among runs with numbers there may be some without, such as a seed that diverged: `compare` leaves them out, and
    says so.

    Raises:
        ValueError: a path without results, no run with numbers, or a file that is no results file.
    """
    folders: list[Path] = []
    for path in map(Path, paths):
        file = path if path.is_file() else path / RESULTS
        found = [file] if file.is_file() else _outermost(sorted(path.rglob(RESULTS)))
        if not found:
            raise ValueError(
                f"no {RESULTS} in or under {path}: `ebmzoo test --ckpt_path …` writes it into a run's folder"
            )
        folders += [one.parent for one in found if one.parent not in folders]
    # Seeds of one setting lie side by side and have the same config but for the seed.
    keys = [(folder.parent if _NUMBERED.fullmatch(folder.name) else folder, _setting(folder)) for folder in folders]
    places = {key: key[0] for key in keys}
    for key, folder in zip(keys, folders, strict=True):
        if sum(other[0] == key[0] for other in places) > 1 and places[key] == key[0]:
            places[key] = folder
    names = dict(zip(places, _shortest(list(places.values())), strict=True))
    runs = [_run(folder, names[key]) for key, folder in zip(keys, folders, strict=True)]
    if not any(run.numbers for run in runs):
        raise ValueError("; ".join(f"{run.folder} has no numbers: {run.trouble}" for run in runs))
    return runs


def _outermost(files: Sequence[Path]) -> list[Path]:
    """Without those below another one's folder: a restoration that was written into its run's is no run."""
    folders = {file.parent for file in files}
    return [file for file in files if folders.isdisjoint(file.parent.parents)]


def _shortest(places: Sequence[Path]) -> list[str]:
    """The ends of some paths, as long as it takes to tell them apart."""
    parts = [place.resolve().parts for place in places]
    names = []
    for one in parts:
        length = 2 if _NUMBERED.fullmatch(one[-1]) else 1
        while length < len(one) and sum(other[-length:] == one[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(one[-length:]))
    return names


def _setting(folder: Path) -> str:
    """The run's config without its seeds."""
    config = _config(folder)
    config.pop("seed_everything", None)
    (config.get("data", {}).get("init_args") or {}).pop("seed", None)
    return re.sub(r"seed_\d+", "seed", json.dumps(config, sort_keys=True, default=str))


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load((folder / "config.yaml").read_text()))
    except FileNotFoundError:
        return {}  # a run that only tests another one's checkpoint


def numbers_of(folder: Path) -> dict[str, Number]:
    """The numbers of a run as `Run` has them, what training cost among them."""
    return _read(folder)[0]


def _read(folder: Path) -> tuple[dict[str, Number], dict[str, Any]]:
    """The numbers of a run, and the facts about it as a whole."""
    path = folder / RESULTS
    try:
        found = read(path)
        numbers = {one["name"]: Number(one["value"], flat(one["protocol"])) for one in found["results"]}
        about = dict(found["run"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a results file") from error
    return numbers | _cost(folder) if numbers else {}, about


def _run(folder: Path, row: str) -> Run:
    numbers, about = _read(folder)
    references = [str(number.protocol["reference"]) for number in numbers.values() if number.protocol.get("reference")]
    data = next((name.removesuffix(" train") for name in references if name.endswith(" train")), "")
    data = data or next((name.removesuffix(" test") for name in references), "?")
    trouble = _trouble(about.get("guard", []), bool(numbers))
    return Run(folder, about.get("method", "?"), row, numbers, data, _commands(folder), trouble)


def _trouble(guard: Sequence[Mapping[str, Any]], measured: bool) -> str:
    if guard and (measured or guard[-1]["action"] == "stopped"):
        return "the guard saw at step {step}: {reason}: {action}".format(**guard[-1])
    return "" if measured else "`ebmzoo test` has not measured it"


def _cost(folder: Path) -> dict[str, Number]:
    cost: dict[str, Number] = {}
    fit = read(folder / TIMES).get("fit") if (folder / TIMES).is_file() else None
    if fit and not fit.get("resumed"):
        how = {"threads": fit.get("threads")} | ({"imports": "not counted"} if fit.get("imports") is False else {})
        cost |= {f"fit_{kind}": Number(fit[kind], how) for kind in ("cpu_s", "wall_s") if kind in fit}
    if (folder / BUDGET).is_file():
        count = read(folder / BUDGET)["network_evaluations"]
        cost |= {} if count is None else {"fit_network_evaluations": Number(count, {})}
    return cost


def _commands(folder: Path) -> list[str]:
    if (folder / BUDGET).is_file():
        return list(read(folder / BUDGET)["commands"])
    if not (folder / "config.yaml").is_file():
        return []
    again = folder.with_name(f"{folder.name}_again")
    fit = f"ebmzoo fit --config {shlex.quote(str(folder / 'config.yaml'))} --run_dir {shlex.quote(str(again))}"
    return [fit, f"ebmzoo test --ckpt_path {shlex.quote(str(again / 'checkpoints' / 'last.ckpt'))}"]
