"""``ebmzoo doctor``: what a config needs before it trains: room, network evaluations, data, weights, devices."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from jsonargparse import ArgumentParser
from lightning import Trainer
from torch import Tensor, nn

from ebmzoo.callbacks import EMA, Evaluate
from ebmzoo.cli.configs import as_list
from ebmzoo.cli.errors import UserError, instantiating, one_line
from ebmzoo.cli.lightning_cli import EbmzooCLI
from ebmzoo.cli.runs import ROOT
from ebmzoo.cli.timing import duration, seconds_an_iteration
from ebmzoo.cli.trainer import check_trainer, filter_messages, for_processes
from ebmzoo.data.base import DataModule
from ebmzoo.factories import parameters_of
from ebmzoo.figures.cost import Tally
from ebmzoo.methods.base import Method
from ebmzoo.metrics import find_extractor

_HELP = """usage: ebmzoo doctor --config CONFIG [options of fit]

What a config needs before it trains: parameters, memory, network evaluations of an iteration, disk, data and weights
that are missing, devices, precision. It trains nothing and writes nothing; what is missing makes the exit code 2.

  --time  also take three iterations on noise, and say how long the whole training would take here; a large model needs
          its memory, and a while on a CPU

Every option of fit changes the config that is looked at: `ebmzoo fit --help` lists them.
"""


def run(verb: str, arguments: Sequence[str]) -> None:
    """Look at a config and print what it needs; what is missing makes the exit code 2."""
    if {"-h", "--help"} & set(arguments):
        print(_HELP, end="")
        return
    filter_messages()
    Doctor([word for word in arguments if word != "--time"], timed="--time" in arguments)


class Doctor(EbmzooCLI):
    """`EbmzooCLI` that makes everything on the meta device, without memory, trains nothing and writes nothing.

    Args:
        arguments: the words after the verb: those of fit.
        timed: make the model for real as well, and measure iterations.
    """

    def __init__(self, arguments: Sequence[str], timed: bool = False):
        self.timed = timed
        super().__init__("fit", arguments)

    def before_instantiate_classes(self) -> None:
        """Nothing: there will be no run."""

    def instantiate_classes(self) -> None:
        """Data, method and callbacks, without weights."""
        with instantiating(), torch.device("meta"):
            self.config_init = self.parser.instantiate_classes(self.config)
        self.model = self._get(self.config_init, "model")
        # The data for themselves, with real tensors: they are to be looked at.
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(DataModule, "data")
        with instantiating():
            plain = parser.parse_object({"data": self.config_dump["data"]})
            self.datamodule = parser.instantiate_classes(plain).data
        self.trainer: Any = Trainer  # nothing of it is called

    def fit(self, model: Method, datamodule: Any, ckpt_path: str | None = None) -> None:
        """Print the report."""
        settings = self.config_init["fit"].trainer
        callbacks = as_list(settings.callbacks)
        problems: list[str] = []
        batch = datamodule.batch_size
        _say("what", f"{type(model).__name__} on {datamodule.name} {model.image_shape}, batches of {batch}")
        counts = {
            name: sum(p.numel() for p in {*parameters_of(networks)}) for name, (networks, *_) in model.players().items()
        }
        total = sum(p.numel() for p in model.parameters())
        _say("parameters", f"{total:,}: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))
        double = settings.precision in ("64", "64-true", 64)
        model.to(torch.float64 if double else torch.float32)
        weights = _bytes(model.state_dict().values())
        averages = weights if any(isinstance(one, EMA) for one in callbacks) else 0
        trial = Trial(model)
        try:
            trial.run(batch)
        except ValueError as error:  # settings that do not go together
            problems.append(str(error))
            _say("iteration", f"refused: {error}")
        except Exception as error:  # a user's own method may do what cannot be done without values
            _say("iteration", f"cannot be tried without data ({one_line(str(error)) or type(error).__name__})")
            _say("memory", f"{size(weights)} of weights, as much for gradients and more for the rest")
        else:
            kept = {
                "weights": weights,
                "gradients": _bytes(model.parameters()),
                "optimisers": trial.optimisers,
                "averages": averages,
                "activations": trial.most,
            }
            parts = ", ".join(f"{name} {size(n)}" for name, n in kept.items())
            kind = "fp64" if double else "fp32"
            _say("memory", f"{size(sum(kept.values()))} for each process, in {kind}: {parts}")
            each = ", ".join(f"{name} {n:g}" for name, n in trial.evaluations(batch).items())
            _say("evaluations", f"of networks for each image of an iteration, a gradient counting as one more: {each}")
            self._room(Path(self.config["fit"].run_dir or ROOT), weights + trial.optimisers + averages, problems)
        for words in model.advice():
            _say("advice", words)
        self._data(datamodule, problems)
        self._weights(model, callbacks, datamodule, problems)
        _devices(settings, problems)
        for check in (check_trainer, for_processes):
            try:
                check(settings)
            except UserError as error:
                problems.append(str(error))
        if self.timed:
            self._time(batch, settings)
        else:
            _say("time", "--time measures it")
        if problems:
            raise UserError(f"{len(problems)} to mend: {'; '.join(dict.fromkeys(problems))}")
        print("ready: nothing is missing")

    def _time(self, batch: int, settings: Any) -> None:
        with instantiating():
            model = self._get(self.parser.instantiate_classes(self.config), "model")
        own = {"accelerator": settings.accelerator, "precision": settings.precision}
        each = seconds_an_iteration(model, batch, **own)
        whole = (
            f"; {settings.max_steps:,} of them {duration(each * settings.max_steps)}" if settings.max_steps > 0 else ""
        )
        _say("time", f"{duration(each)} an iteration on {model.device.type}, data and validations aside{whole}")

    @staticmethod
    def _room(folder: Path, checkpoint: int, problems: list[str]) -> None:
        folder = folder.resolve()
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
        _say("disk", f"a checkpoint has {size(checkpoint)}; {size(free)} are free under {folder}")
        if free < 4 * checkpoint:  # the last, the best, the guard's, and one that is being written
            problems.append(f"the disk under {folder} has room for fewer than four checkpoints")

    @staticmethod
    def _data(datamodule: Any, problems: list[str]) -> None:
        try:
            datamodule.setup("fit")
        except (OSError, ValueError) as error:
            if getattr(datamodule, "download", False) and isinstance(error, FileNotFoundError):
                _say("data", "not here yet: a training downloads them, as download says")
                return
            problems.append(str(error))
            _say("data", f"missing: {error}")
        else:
            splits = {split: len(datamodule.reference(split)) for split in ("train", "test")}
            _say("data", ", ".join(f"{n:,} {split}" for split, n in splits.items()))
            if splits["train"] < datamodule.batch_size:
                problems.append(
                    f"a batch of {datamodule.batch_size} needs as many training examples, there are "
                    f"{splits['train']:,}: lower --data.batch_size"
                )

    @staticmethod
    def _weights(model: Method, callbacks: Sequence[Any], data: Any, problems: list[str]) -> None:
        stage_one = getattr(model, "vae_ckpt", None)
        if stage_one and not Path(stage_one).is_file():
            problems.append(f"no stage-one checkpoint at {stage_one} (vae_ckpt, looked from {Path.cwd()})")
        for one in callbacks:
            if isinstance(one, Evaluate) and one.extractor is not None:
                try:
                    network = find_extractor(one.extractor, one.inception_path, download=False)
                    if data.kind == "images":
                        network.check(data.image_shape)
                except FileNotFoundError as error:
                    if one.extractor == "inception" and one.inception_path is None:  # a training downloads them
                        _say("extractor", f"not here yet: {error}")
                    else:
                        problems.append(str(error))
                except (OSError, ValueError) as error:
                    problems.append(str(error))
                else:
                    _say("extractor", f"{network.name}, sha256 {network.sha256[:12]}...")
        for words in problems[-2:]:
            if "checkpoint at" in words or "nception" in words:
                _say("weights", f"missing: {words}")


class Trial:
    """One training iteration on the meta device: shapes and counts, no values.

    Attributes:
        most: bytes kept for backward passes at the fullest moment.
        optimisers: bytes of the optimisers' states after a step.
    """

    def __init__(self, model: Method):
        self.model, self.most, self.optimisers = model, 0, 0
        self._kept = 0
        self.tally = Tally(model)

    def run(self, batch: int) -> None:
        """One iteration of the method's main stage.

        Raises:
            Exception: whatever cannot be done without values.
        """
        model = self.model
        step = max(int(getattr(model, stage, 0)) for stage in ("vae_steps", "flow_steps")) + 1
        model.train()
        for module in model.modules():
            for name, value in module._buffers.items():
                if value is not None and value.dtype == torch.bool and not value.dim():
                    module._buffers[name] = torch.tensor(True)  # a switch that the code asks, here for its usual state
        # The meta device knows no autocast; its switch changes no shape.
        no_autocast = patch("torch.autocast", lambda *_, **__: nullcontext())
        kept = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda held: held.tensor)
        with torch.device("meta"), no_autocast, kept, self.tally:
            for _, loss in model.losses(torch.empty(batch, *model.image_shape).to(model.dtype), step):
                loss.backward()
        optimizers, _ = model.configure_optimizers()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["fused"] = group["foreach"] = False
            optimizer.step()
            states = [value for slots in optimizer.state.values() for value in slots.values()]
            self.optimisers += _bytes(value for value in states if isinstance(value, Tensor))

    def evaluations(self, batch: int) -> dict[str, float]:
        """For each network: images that went through it, and gradients through it, for each of the batch."""
        return {name: count / batch for name, count in self.tally.networks.items()}

    def _keep(self, tensor: Tensor) -> Any:
        holder = _Held(tensor)
        size = 0 if isinstance(tensor, nn.Parameter) else tensor.numel() * tensor.element_size()
        self._kept += size
        self.most = max(self.most, self._kept)
        weakref.finalize(holder, self._drop, size)
        return holder

    def _drop(self, size: int) -> None:
        self._kept -= size


class _Held:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def size(n: int) -> str:
    """Bytes in words.

    Example:
        >>> size(3 * 2**20), size(22_790_000_000)
        ('3.0 MiB', '21.2 GiB')
    """
    return f"{n / 2**30:,.1f} GiB" if n >= 2**30 else f"{n / 2**20:,.1f} MiB"


def _bytes(tensors: Any) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _devices(settings: Any, problems: list[str]) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    found = [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]
    words = f"{len(gpus)} GPU ({'; '.join(found)})" if gpus else f"no GPU; {cores} CPU cores"
    _say("devices", f"{words}; the config asks for accelerator {settings.accelerator}, devices {settings.devices}")
    if settings.accelerator in ("gpu", "cuda") and not gpus:
        problems.append("the config asks for a GPU, and there is none: --trainer.accelerator cpu")
    if gpus:
        bf16 = "in hardware" if torch.cuda.is_bf16_supported(including_emulation=False) else "not in hardware"
    else:
        bf16 = "in software, often slower than fp32, on CPUs without AMX or AVX512-BF16"
    precision = str(settings.precision or "32-true")
    _say("precision", f"{precision}; bf16-mixed: {bf16}; chains and energies stay fp32 under it")
    if precision in ("16-true", "bf16-true"):
        problems.append(f"precision {precision} is refused: half weights lose most updates; use bf16-mixed")


def _say(what: str, words: str) -> None:
    print(f"{what:<12} {words}", flush=True)
