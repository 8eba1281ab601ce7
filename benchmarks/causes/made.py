"""Models of the shipped configs, with some settings changed, trained for the scripts beside this one."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import yaml
from jsonargparse import ArgumentParser

import ebmzoo
from ebmzoo.callbacks import EMA
from ebmzoo.cli.configs import load_named, shipped
from ebmzoo.methods import Method

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


def trained(
    config: str, seed: int, iterations: int, kind: type[Method] | None = None, **changes: Any
) -> tuple[lightning.Trainer, Any, Any]:
    """The trainer, the method and the data of a config after so many iterations, learning rates to zero at their end.

    Args:
        config: its name.
        seed: of weights, batches and noise.
        iterations: of training.
        kind: a class to take in place of the config's.
        changes: settings by their names in ``init_args``, with ``__`` for the dots: ``sampler__step_size=0.1``;
            those of the data begin with ``data__``.
    """
    held = yaml.safe_load(shipped()[config].read_text())
    load_named((), held)  # which gives the classes their short names
    model, data = held["model"], held["data"]
    waits = {"schedule": 0, "vae_schedule": 0, "energy_schedule": model["init_args"].get("vae_steps", 0)}
    for schedule in waits.keys() & model["init_args"].keys():
        changes.setdefault(f"{schedule}__T_max", max(iterations - waits[schedule], 1))
    for name, value in changes.items():
        *path, last = name.split("__")
        place = {"data": data}.get(path[0], model) if path else model
        for key in path[path[:1] == ["data"] :]:
            place = place["init_args"][key]
        place["init_args"][last] = value
    lightning.seed_everything(seed, verbose=False)
    source = getattr(ebmzoo, data["class_path"])(**data["init_args"], seed=seed)
    source.prepare_data()
    settings = {**model["init_args"], "image_shape": source.image_shape}
    method = _make(kind or getattr(ebmzoo, model["class_path"]), settings)
    averages = next(one["init_args"] for one in held["trainer"]["callbacks"] if one["class_path"] == "EMA")
    trainer = lightning.Trainer(
        max_steps=iterations,
        accelerator="cpu",
        limit_val_batches=0,
        callbacks=[EMA(**averages)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, source)
    return trainer, method, source


def _make(kind: type[Method], settings: dict[str, Any]) -> Any:
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "method", fail_untyped=False)
    return parser.instantiate(parser.parse_object({"method": settings})).method
