"""Reading checkpoints safely, and making a model again from a file alone.

A checkpoint is a file that may come from anybody. It is read as tensors and plain data (``weights_only=True``), never
from a URL, its checksums are held against its content first, and the classes that it names must be trusted (see
`ebmzoo.checkpoints.trust`).
"""

from __future__ import annotations

import inspect
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import ArgumentParser, set_parsing_settings
from torch import Tensor

import ebmzoo
from ebmzoo.checkpoints.storage import check_version, read_archive, read_export, when_written, write_export
from ebmzoo.checkpoints.trust import URL, check_trusted, trusted
from ebmzoo.mcmc import Sampler
from ebmzoo.methods.base import Method
from ebmzoo.parts.objectives import Penalty

if TYPE_CHECKING:
    from ebmzoo.methods.capabilities import AnyMethod

# jsonargparse takes a dataclass for a closed set of fields; these are bases of families chosen by class_path.
set_parsing_settings(subclasses_enabled=[Sampler, Penalty])


def read(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint, or a model of `export`, as tensors and plain data: no code of the file is run.

    Args:
        path: a local file; one that ends in ``.safetensors`` is a model of `export`.
        map_location: the device of the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a URL, a folder, a broken file, or not a checkpoint of this package.
        OSError: the system could not read the file, which may be a good one.
    """
    if URL.match(str(path)):
        raise ValueError(
            f"{path} is a URL: checkpoints are read from local files only; download it, then give the file"
        )
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the checkpoint file{_found(path)}")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path} (looked from {Path.cwd()}){_found(path.parent)}")
    checkpoint: Any = (
        _exported(path, map_location) if path.suffix == ".safetensors" else read_archive(path, map_location)
    )
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"{path} is not a checkpoint of a training run: it has no state_dict")
    about = checkpoint.get("ebmzoo")
    if not isinstance(about, dict) or not isinstance(about.get("class_path"), str):
        raise ValueError(f"{path} is not a checkpoint of this package: it names no method")
    check_version(about.get("version"), path)
    return checkpoint


def _exported(path: Path, map_location: str | torch.device) -> dict[str, Any]:
    """A model of `export` as a checkpoint that has weights alone."""
    weights, about = read_export(path, map_location)
    stored = {key: about.pop(key, None) for key in ("hyper_parameters", "global_step")}
    stored |= {"state_dict": weights, "ebmzoo": about}
    return {**stored, "ema": weights} if about.get("averaged") else stored


def load(path: str | Path, ema: bool = True, map_location: str | torch.device = "cpu", **replaced: Any) -> AnyMethod:
    """Make the model of a checkpoint again in evaluation mode, with its averaged (EMA) weights if there are.

    Args:
        path: a checkpoint of `ebmzoo fit` or of a plain Lightning Trainer, or a model of `export`.
        ema: take the averaged weights; False takes the raw ones.
        map_location: the device.
        replaced: constructor arguments used instead of the stored ones; needed for networks that were given
            as functions or instances, which a file cannot hold.

    Returns:
        The method; its ``ema_active`` says which weights it has. What it can do only the file says: to a type checker
        it has all capabilities.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, names classes that are not trusted, or its weights do not fit.

    Example:
        >>> import functools, tempfile, lightning, ebmzoo
        >>> from ebmzoo import networks, parts
        >>> own = {"encoder": networks.MLPEncoder, "decoder": networks.MLPDecoder}
        >>> vae = ebmzoo.VAE((1, 8, 8), functools.partial(parts.GaussianVAE, **own))
        >>> trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
        >>> trainer.strategy.connect(vae)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer.save_checkpoint(f"{folder}/vae.ckpt")
        ...     again = ebmzoo.load(f"{folder}/vae.ckpt")
        >>> again.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    checkpoint = read(path, map_location)
    kind = method_class(checkpoint, path)
    model: Any = _rebuild(kind, checkpoint.get("hyper_parameters") or {}, replaced, path)
    restore(model, checkpoint, path, ema=ema)
    return model.to(map_location).eval()


def export(
    source: Method | str | Path | Mapping[str, Any], out: str | Path, path: str | Path = "the model", ema: bool = True
) -> bool:
    """Write weights, and what makes the model of them again, as one safetensors file.

    Args:
        source: a model, whose weights are written as they are now; a checkpoint's path; or what `read` gave.
        out: the file, ``….safetensors``; `load` makes the model again from it alone.
        path: the source's name in messages, where it is no path itself.
        ema: write a checkpoint's averaged weights where there are any; False writes the raw ones.

    Returns:
        Whether the weights are averaged ones.

    Raises:
        ValueError: an ending other than ``.safetensors``, networks that were given as functions or instances, or raw
            weights of a model that has averaged ones alone.
        OSError: the file cannot be written.
    """
    if Path(out).suffix != ".safetensors":
        raise ValueError(f"{out}: give a name that ends in .safetensors")
    path = source if isinstance(source, str | Path) else path
    checkpoint = read(source) if isinstance(source, str | Path) else source
    checkpoint = _as_it_is(checkpoint) if isinstance(checkpoint, Method) else checkpoint
    stored = dict(checkpoint.get("hyper_parameters") or {})
    _refuse_callables(stored, path)
    averaged = _averaged(checkpoint, ema, path)
    about = {
        **{key: value for key, value in checkpoint["ebmzoo"].items() if key in ("class_path", "config")},
        "version": ebmzoo.__version__,
        "hyper_parameters": stored,
        "averaged": bool(averaged),
        "global_step": checkpoint.get("global_step"),
    }
    write_export({**checkpoint["state_dict"], **(averaged or {})}, about, out)
    return bool(averaged)


def _as_it_is(model: Method) -> dict[str, Any]:
    """A model as a checkpoint of weights alone; its own state_dict gives raw ones where averages are swapped in."""
    weights = {**model.state_dict(), **{name: value.detach() for name, value in model.named_parameters()}}
    about = {"class_path": f"{type(model).__module__}.{type(model).__qualname__}", "averaged": model.ema_active}
    stored = {"hyper_parameters": dict(model.hparams), "global_step": model.global_step, "ebmzoo": about}
    return {**stored, "state_dict": weights, "ema": weights if model.ema_active else None}


def newest_good(folder: str | Path) -> tuple[Path | None, list[str]]:
    """The checkpoint under a folder that was written last, is whole and finite, and a line for each newer one.

    One of weights alone is passed over: a training cannot go on from it.

    Raises:
        OSError: one of them could not be read: it may be good, so none is passed over for it.

    Example:
        >>> newest_good("no/such/folder")
        (None, [])
    """
    written = sorted(Path(folder).rglob("*.ckpt"), key=lambda file: (when_written(file), file.stat().st_mtime_ns))[::-1]
    passed_over = []
    for path in written:
        try:
            checkpoint = read(path)
            check_whole(checkpoint, path)
        except ValueError as error:
            passed_over.append(str(error))
            continue
        tensors = [value for value in checkpoint["state_dict"].values() if isinstance(value, Tensor)]
        weights = [value for value in tensors if value.is_floating_point()]
        if all(bool(value.isfinite().all()) for value in weights):
            return path, passed_over
        passed_over.append(f"{path} has weights that are not finite")
    return None, passed_over


def check_whole(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint that a training cannot go on from: weights without their optimisers' states.

    Raises:
        ValueError: it has weights alone.
    """
    if not {"optimizer_states", "lr_schedulers", "loops", "callbacks"} <= checkpoint.keys():
        raise ValueError(f"{path} has weights alone, no optimiser's state: training goes on from a whole checkpoint")


def restore(
    model: Method, checkpoint: Mapping[str, Any], path: str | Path = "the checkpoint", ema: bool = True
) -> bool:
    """Put a checkpoint's weights into a model: the averaged ones if there are any and ``ema`` asks for them.

    Weights in double precision make the model one in double precision.

    Returns:
        Whether the model now has averaged weights (its ``ema_active`` says the same).

    Raises:
        ValueError: the checkpoint is of another method, or its weights do not fit; the model is unchanged
            then.
    """
    check_fits(model, checkpoint, path)
    averaged = _averaged(checkpoint, ema, path)
    if all(checkpoint["state_dict"][name].dtype == torch.float64 for name, _ in model.named_parameters()):
        model.double()  # loading alone would round them
    model.load_state_dict({**checkpoint["state_dict"], **(averaged or {})})
    model.ema_active, model.of_draws = bool(averaged), None
    return model.ema_active


def _averaged(checkpoint: Mapping[str, Any], ema: bool, path: str | Path) -> Mapping[str, Tensor] | None:
    """The averaged weights, if there are any and they are asked for."""
    if checkpoint["ebmzoo"].get("averaged") and not ema:
        raise ValueError(f"{path} holds averaged weights alone: export its checkpoint with --no_ema for the raw ones")
    return checkpoint.get("ema") if ema else None


def check_fits(model: Method, checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint of another method, or with other weights than the model's, in one line."""
    kind, stored = type(model), checkpoint["ebmzoo"]["class_path"]
    if stored != f"{kind.__module__}.{kind.__qualname__}":
        raise ValueError(f"{path} is a checkpoint of {stored.rpartition('.')[2]}, not of {kind.__name__}")
    shape = (checkpoint.get("hyper_parameters") or {}).get("image_shape")
    if isinstance(shape, list | tuple) and tuple(shape) != model.image_shape:
        raise ValueError(f"{path} was trained on images {tuple(shape)}, these are {model.image_shape}")
    wanted = model.state_dict()
    for part in ("state_dict", "ema"):
        weights = checkpoint.get(part)
        if weights is None:
            continue
        if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise ValueError(f"{path} is broken: its {part} is not a list of named tensors")
        missing = sorted(wanted.keys() - weights.keys()) if part == "state_dict" else []
        unknown = sorted(weights.keys() - wanted.keys())
        differ = [name for name in weights.keys() & wanted.keys() if weights[name].shape != wanted[name].shape]
        if missing or unknown or differ:
            raise ValueError(f"the weights of {path} do not fit this model: {_mismatch(missing, unknown, differ)}")


def method_class(checkpoint: Mapping[str, Any], path: str | Path) -> type[Method]:
    """The class of the method that a checkpoint names, if it is trusted."""
    name = checkpoint["ebmzoo"]["class_path"]
    kind = trusted(name, path)
    if not issubclass(kind, Method):
        raise ValueError(f"{path} names {name}, which is not a method")
    return kind


def stored_config(checkpoint: Mapping[str, Any], path: str | Path, as_left: bool = False) -> dict[str, Any]:
    """The config that a checkpoint brings: seed, trainer, method and data; it names trusted classes only.

    A checkpoint of a plain Lightning Trainer brings its method alone.

    Args:
        checkpoint: what `read` gave.
        path: where it lies, for the errors.
        as_left: the samplers as the training left them, whose steps a guard may have halved, not as it began them.

    Raises:
        ValueError: a class that is not trusted, or networks that were given as functions or instances.
    """
    config = checkpoint["ebmzoo"].get("config")
    if not isinstance(config, dict):
        stored = dict(checkpoint.get("hyper_parameters") or {})
        _refuse_callables(stored, path)
        stored.pop("image_shape", None)  # the data's, on the command line
        config = {"model": {"class_path": checkpoint["ebmzoo"]["class_path"], "init_args": stored}}
    config = {key: config[key] for key in ("seed_everything", "trainer", "model", "data") if key in config}
    stored = checkpoint.get("hyper_parameters") or {}
    if as_left and (begun := config["model"].get("init_args")):
        left = {name: value for name, value in stored.items() if name in begun and _is_sampler(value)}
        config["model"] = {**config["model"], "init_args": {**begun, **left}}
    check_trusted(config, path)
    return config


def _rebuild(kind: type[Method], stored: Mapping[str, Any], replaced: dict[str, Any], path: str | Path) -> Method:
    known = inspect.signature(kind).parameters
    if unknown := sorted(replaced.keys() - known.keys()):
        raise ValueError(f"{kind.__name__} takes no {', '.join(unknown)}")
    stored = {key: value for key, value in stored.items() if key not in replaced}
    _refuse_callables(stored, path)
    check_trusted(stored, path)
    # jsonargparse makes factories, samplers and optimisers of plain data exactly as it does from a yaml file.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "method", instantiate=False, skip=set(replaced), fail_untyped=False)
    try:
        made = parser.instantiate(parser.parse_object({"method": stored}))
        model = kind(**made["method"].as_dict() if "method" in made else {}, **replaced)
    except (ArgumentError, TypeError, ValueError) as error:
        line = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path} cannot be made into a {kind.__name__}: {line}") from error
    model.hparams.update(stored)
    return model


def _is_sampler(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return bool(several) and all(isinstance(one, dict) and "step_size" in one.get("init_args", {}) for one in several)


def _refuse_callables(stored: Mapping[str, Any], path: str | Path) -> None:
    if free := [key for key, value in stored.items() if _has_callable(value)]:
        given = ", ".join(f"{key}=..." for key in free)
        raise ValueError(
            f"{path} was trained with {', '.join(free)} given as functions or instances, which a checkpoint cannot "
            f"hold: networks must be passed again, in Python: ebmzoo.load(path, {given})"
        )


def _has_callable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "callable" in value or any(_has_callable(item) for item in value.values())
    return isinstance(value, list | tuple) and any(_has_callable(item) for item in value)


def _mismatch(missing: list[str], unknown: list[str], differ: list[str]) -> str:
    parts = {"missing": missing, "unknown": unknown, "of another size": sorted(differ)}
    return "; ".join(
        f"{len(names)} {what} ({names[0]}{', ...' * (len(names) > 1)})" for what, names in parts.items() if names
    )


def _found(folder: Path) -> str:
    names = sorted(file.name for file in folder.glob("*.ckpt"))[:5] if folder.is_dir() else []
    return f"; {folder} has {', '.join(names)}" if names else ""
