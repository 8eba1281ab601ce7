"""Suites of the benchmark: which configs belong to one, and how they are brought to one budget or one network."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from .commands import Commands
from .runs import Experiment, read, write

#: ending of the configs of a suite, and the class of their data
SUITES = {"toy": ("gaussians25", "Gaussians25"), "digits": ("digits", "Digits"), "cifar10": ("cifar", "CIFAR10")}
SUITES |= {"images32": ("cifar_small", "CIFAR10")}
BUDGETS = ("iterations", "seconds", "network-evaluations")
#: iterations and samples of a first look
QUICK = 300, 500

_REFERENCE = "ecvae"  # whose training is the budget where none is given, and whose networks are the same ones
# Settings that count iterations, which a shorter or longer training stretches.
_ITERATIONS = {"T_max", "total", "val_check_interval", "every_n_steps", "vae_steps", "flow_steps", "contrast_start"}
_ITERATIONS |= {"kl_warmup", "replay_ramp"}
# Evaluations for each image of an iteration of a first stage: networks with a gradient count two.
_STAGES = {"vae_steps": 4, "flow_steps": 2}
_PROBES = 20, 120  # iterations: the difference of their times has no start of a process in it
_NETWORKS = ("encoder", "decoder", "network", "generator", "discriminator")  # "network" is an energy's


@dataclass(frozen=True)
class Plan:
    """What a method does in a benchmark.

    Args:
        config: the config that is run, brought to the budget.
        iterations: it trains.
        evaluations: of networks for each image of a batch over the whole training; None where it is not known.
    """

    config: str
    iterations: int
    evaluations: float | None


def find(suite: str, methods: Sequence[str] | None, folder: Path) -> dict[str, Path]:
    """The configs of a suite by method, found by their names: ``<method>_<ending>.yaml``.

    Args:
        suite: one of `SUITES`.
        methods: some of them, such as "ecvae"; None takes one for each class of method and each folder's own, the
            variants of a class being left to those who name them.
        folder: where configs lie.

    Raises:
        ValueError: there are none, or none of a name.
    """
    ending, data = SUITES[suite]
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*_{ending}.yaml")):
        if _short(_read(path)["data"]["class_path"]) == data:
            found[path.stem.removesuffix(f"_{ending}")] = path
    if not found:
        raise ValueError(f"no configs *_{ending}.yaml in {folder.resolve()}: give their folder with --configs")
    if methods is not None:
        for name in methods:
            if name not in found:
                near = get_close_matches(name, found, n=1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(found)}"
                raise ValueError(f"no method {name!r} in suite {suite}: {meant}")
        return {name: found[name] for name in methods}
    first: dict[str, str] = {}
    for name in sorted(found, key=lambda one: (len(one), one)):
        first.setdefault(_short(_read(found[name])["model"]["class_path"]), name)
    return {name: path for name, path in found.items() if name in first.values()}


def scaled(config: Mapping[str, Any], iterations: int) -> dict[str, Any]:
    """A config that trains so many iterations, with all that counts them stretched alike: schedules, stages, warm-ups.

    Example:
        >>> scaled({"trainer": {"max_steps": 100}, "model": {"T_max": 100, "vae_steps": 30}}, 10)
        {'trainer': {'max_steps': 10}, 'model': {'T_max': 10, 'vae_steps': 3}}
    """
    ratio = iterations / config["trainer"]["max_steps"]

    def stretch(value: Any, name: str = "") -> Any:
        if isinstance(value, Mapping):
            return {key: stretch(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [stretch(inner) for inner in value]
        counts = name in _ITERATIONS and isinstance(value, int) and value > 0
        return max(1, round(value * ratio)) if counts else value

    found: dict[str, Any] = stretch(config)
    found["trainer"]["max_steps"] = iterations
    return found


def same_networks(config: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the reference's encoder, decoder, energy, latent dimension and batch size.

    A network of another class (a flow, a U-Net) stays as it is, and so do settings that the reference's network does
    not name, such as the spectral norm that a method needs.
    """
    own = reference["model"]["init_args"]
    theirs = {**own["vae"]["init_args"], **own["energy"]["init_args"]}
    theirs |= {"generator": theirs["decoder"], "discriminator": theirs["network"]}

    def alike(value: Any) -> Any:
        if isinstance(value, list):
            return [alike(inner) for inner in value]
        if not isinstance(value, Mapping):
            return value
        found: dict[str, Any] = {}
        for key, inner in value.items():
            other = theirs.get(key)
            if key in _NETWORKS and isinstance(other, Mapping) and inner["class_path"] == other["class_path"]:
                found[key] = {**inner, "init_args": {**inner.get("init_args", {}), **other.get("init_args", {})}}
            else:
                found[key] = theirs.get(key, inner) if key == "latent_dim" else alike(inner)
        return found

    found = copy.deepcopy(dict(config))
    found["model"] = alike(config["model"])
    found["data"]["init_args"]["batch_size"] = reference["data"]["init_args"]["batch_size"]
    return found


def small(config: Mapping[str, Any], n: int) -> dict[str, Any]:
    """A config whose validations and test take so many samples and examples at most.

    Example:
        >>> small({"trainer": {"callbacks": [
        ...     {"class_path": "Evaluate", "init_args": {"n_val": 2000, "batch_size": 10000}},
        ...     {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/fid_2k"}},
        ... ]}}, 500)["trainer"]["callbacks"]
        [{'class_path': 'Evaluate', 'init_args': {'n_val': 500, 'batch_size': 500, 'n_test': 500,
          'figures': {'bounds': {'n': 500}, 'ood': {'n': 500}, 'energies': {'n': 500}}}},
         {'class_path': 'ModelCheckpoint', 'init_args': {'monitor': 'val/fid_500'}}]
    """
    found = copy.deepcopy(dict(config))
    for callback in found["trainer"].get("callbacks") or []:
        settings = callback.setdefault("init_args", {})
        if _short(callback["class_path"]) == "Evaluate":
            settings |= {name: min(n, settings.get(name, n)) for name in ("n_val", "batch_size", "n_test")}
            figures = settings.setdefault("figures", {})
            for name in ("bounds", "ood", "energies"):
                if (figure := figures.setdefault(name, {})) is not None:
                    figure = figure.setdefault("init_args", {}) if "class_path" in figure else figure
                    figure["n"] = min(n, figure.get("n", n))
        elif str(settings.get("monitor")).startswith("val/fid_"):
            settings["monitor"] = f"val/fid_{n}"  # the name carries the number
    return found


def on_data(config: Mapping[str, Any], data: str | Path | None) -> dict[str, Any]:
    """A config with the data of another config, but its own batches and flips; itself where that is None.

    Raises:
        ValueError: the other one has no data.
    """
    found = copy.deepcopy(dict(config))
    if data is not None:
        if not (other := _read(Path(data)).get("data")):
            raise ValueError(f"{data} has no data")
        own = {name: value for name, value in found["data"]["init_args"].items() if name in ("batch_size", "flip")}
        found["data"] = {**other, "init_args": {**(other.get("init_args") or {}), **own}}
    return found


def plan(
    suite: str,
    configs: Mapping[str, Path],
    root: Path,
    budget: str | None,
    amount: float | None,
    mode: str,
    commands: Commands,
    quick: bool = False,
    data: str | Path | None = None,
) -> dict[str, Plan]:
    """Bring configs to a budget; made once for a folder, and read from there when a benchmark goes on.

    A folder has the plan of one suite, one folder of configs, one budget and one mode; methods can be added to it.

    Args:
        suite: one of `SUITES`.
        configs: by method, all of one folder: what `find` found.
        root: the benchmark's folder, for the configs made and for ``plan.json``.
        budget: one of `BUDGETS`; None leaves each config its own length.
        amount: of the budget: iterations, seconds of training, or network evaluations for each image of a batch; None
            takes what the reference's own training has (for seconds: what it would take here).
        mode: "paper", each config's own networks, or "same", the reference's: those of EC-VAE's config.
        commands: what runs the trials.
        quick: whether tests are small: of `QUICK` samples.
        data: a config whose data take the place of theirs, such as a folder of images; batches and flips stay.

    Raises:
        ValueError: the config of data has none, the cost of an iteration is needed and cannot be counted, the folder
            has runs under another plan, or its plan cannot be read.
    """
    path, folder = root / "plan.json", next(iter(configs.values())).parent
    terms = {"suite": suite, "configs": str(folder), "budget": budget, "asked": amount, "mode": mode, "quick": quick}
    held = read(path) if path.is_file() else {}
    terms |= {} if data is None else {"data": str(data)}
    if held and (others := held["terms"]) != terms:
        keys = [key for key in terms | others if others.get(key) != terms.get(key)]
        there, here = (", ".join(f"{key} {of.get(key)}" for key in keys) for of in (others, terms))
        raise ValueError(f"{root} has runs under {there}, not {here}: choose another folder with --out")

    def reference() -> dict[str, Any]:
        return _read(find(suite, [_REFERENCE], folder)[_REFERENCE])

    if budget is not None and amount is None:
        amount = held.get("amount") or _own(reference(), budget, commands)
    new = {name: on_data(_read(source), data) for name, source in configs.items() if name not in held}
    if mode == "same" and new:
        theirs = reference()
        new = {name: same_networks(config, theirs) for name, config in new.items()}
    if new:
        print(f"counting the network evaluations of {', '.join(new)}", flush=True)
    with ThreadPoolExecutor(commands.jobs) as pool:
        costs = list(pool.map(lambda config: _cost(config, commands), new.values()))
    for (name, config), cost in zip(new.items(), costs, strict=True):
        source = configs[name]
        iterations = int(config["trainer"]["max_steps"])
        if budget is not None:
            assert amount is not None
            known = {"iterations": 1.0, "network-evaluations": cost}
            each = known[budget] if budget in known else _seconds(config, commands)
            if each is None:
                raise ValueError(f"the network evaluations of {source} cannot be counted: choose another --budget")
            iterations = max(1, int(amount / each))
        changed = mode == "same" or budget is not None or quick or data is not None
        used = source
        if changed:
            used = root / "configs" / source.name
            used.parent.mkdir(parents=True, exist_ok=True)
            ours = scaled(small(config, QUICK[1]) if quick else config, iterations)
            used.write_text(yaml.safe_dump(ours, sort_keys=False, width=110))
        total = None if cost is None else cost * iterations
        held[name] = {"config": str(used), "iterations": iterations, "evaluations": total}
        root.mkdir(parents=True, exist_ok=True)
        write(path, held := {**held, "terms": terms, "amount": amount})
    return {name: Plan(**held[name]) for name in configs}


def experiments(plans: Mapping[str, Plan], suite: str, seeds: Sequence[int], quick: bool = False) -> list[Experiment]:
    """The rows of a benchmark; their names say where they are quick, wherever they are compared."""
    ending = SUITES[suite][0] + ("_quick" if quick else "")
    return [Experiment(f"{name}_{ending}", one.config, seeds=seeds) for name, one in plans.items()]


# -- what an iteration costs --------------------------------------------------------------------------------


def _own(config: Mapping[str, Any], budget: str, commands: Commands) -> float:
    iterations = float(config["trainer"]["max_steps"])
    if budget == "iterations":
        return iterations
    each = (_seconds if budget == "seconds" else _cost)(config, commands)
    if each is None:
        raise ValueError("the reference's network evaluations cannot be counted: give --amount")
    return iterations * each


def _cost(config: Mapping[str, Any], commands: Commands) -> float | None:
    """Network evaluations for each image of an iteration, on average over the training; None where not known."""
    iterations, settings = config["trainer"]["max_steps"], config["model"]["init_args"]
    main = _doctor(config, commands)
    if main is None:
        return None
    if (every := settings.get("contrast_every")) is not None:
        # Chains run in some iterations alone.
        changed = copy.deepcopy(dict(config))
        changed["model"]["init_args"] |= {"contrast_every": 1, "contrast_start": 0}
        if (contrast := _doctor(changed, commands)) is None:
            return None
        share = (1 - settings.get("contrast_start", 0) / iterations) / every
        main += share * (contrast - main)
    for name, each in _STAGES.items():
        if stage := settings.get(name):
            main += stage / iterations * (each - main)
    return main


def _doctor(config: Mapping[str, Any], commands: Commands) -> float | None:
    """What `ebmzoo doctor` counts."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "config.yaml", Path(folder) / "log"
        path.write_text(yaml.safe_dump(dict(config)))
        commands(["ebmzoo", "doctor", "--config", str(path)], log)
        line = re.search(r"^evaluations .*?more: (.*)$", log.read_text(), re.MULTILINE)
    return sum(float(part.rpartition(" ")[2]) for part in line[1].split(", ")) if line else None


def _seconds(config: Mapping[str, Any], commands: Commands) -> float:
    """Wall-clock seconds of an iteration here, by two short trainings."""
    times = []
    for iterations in _PROBES:
        with tempfile.TemporaryDirectory() as folder:
            path, log = Path(folder) / "config.yaml", Path(folder) / "log"
            short = scaled(config, iterations)
            short["trainer"]["limit_val_batches"] = 0
            path.write_text(yaml.safe_dump(short))
            code, time = commands(["ebmzoo", "fit", "--config", str(path), "--run_dir", f"{folder}/run"], log)
            if code:
                raise ValueError(f"a trial of {config['model']['class_path']} failed: {log.read_text().strip()[-300:]}")
            times.append(time["wall_s"])
    return max(times[1] - times[0], 1e-9) / (_PROBES[1] - _PROBES[0])


def _read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def _short(class_path: str) -> str:
    return class_path.rpartition(".")[2]
