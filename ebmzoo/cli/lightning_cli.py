"""The verbs that run a Lightning Trainer: fit, validate, test, predict."""

from __future__ import annotations

import copy
import re
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning import Trainer, seed_everything
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.multiprocessing import ProcessRaisedException

from ebmzoo import optim  # noqa: F401 - gives its classes their short names
from ebmzoo.callbacks.guard import Diverged, Guard
from ebmzoo.checkpoints import check_fits, check_whole, newest_good, read, restore, stored_config
from ebmzoo.checkpoints.storage import WholeFiles
from ebmzoo.checkpoints.trust import modules_to_trust
from ebmzoo.cli import wandb_run
from ebmzoo.cli.callback_words import with_callbacks
from ebmzoo.cli.configs import as_list, import_trusted, load_all, load_named, options, parsed, read_config, with_paths
from ebmzoo.cli.errors import Stopped, UserError, instantiating
from ebmzoo.cli.helping import Parser, describe
from ebmzoo.cli.main import VERBS
from ebmzoo.cli.metrics_file import MetricsFile
from ebmzoo.cli.runs import CHECKPOINTS, Run, RunRecord, folder_of, run_name, say, say_ending, say_what_next
from ebmzoo.cli.trainer import check_trainer, filter_messages, for_processes, with_ours
from ebmzoo.data.base import DataModule
from ebmzoo.methods.base import Method


def run(verb: str, arguments: Sequence[str]) -> None:
    """Parse the arguments of a verb and do it."""
    filter_messages()
    EbmzooCLI(verb, arguments)


class EbmzooCLI(LightningCLI):
    """LightningCLI in subclass mode for method and data, with a folder per run and checkpoints that suffice.

    Args:
        verb: what to do.
        arguments: the words after the verb.
    """

    run: Run

    def __init__(self, verb: str, arguments: Sequence[str]):
        self.verb = verb
        arguments = with_paths(arguments)
        self.configs = options(arguments, "--config", "-c")
        self.checkpoint: dict[str, Any] | None = None
        contents = [read_config(config) for config in self.configs]
        # Of several configs the last that has a list of callbacks holds, as the parser has it.
        self._with_list = [one for one in contents if "callbacks" in (one.get("trainer") or {})][-1:]
        import_trusted(options(arguments, "--trust"))
        load_named(arguments, *contents)
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            model_class=Method,
            datamodule_class=DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            save_config_callback=None,
            auto_configure_optimizers=False,
            trainer_defaults={"use_distributed_sampler": False, "devices": 1},
            parser_kwargs={"prog": "ebmzoo", **strict, verb: strict},
            args=[verb, *arguments],
        )

    # -- what can be said ----------------------------------------------------------------------------------------------

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # not static: an instance has one verb
        """The verb alone, as each costs a tenth of a second, with what the words leave out of the Trainer's method."""
        shared = {"model", "datamodule", "weights_only"}
        if self.verb == "fit":
            return {"fit": shared | {"train_dataloaders", "val_dataloaders"}}
        return {self.verb: shared | {"dataloaders", "verbose", "return_predictions"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose help is ours."""
        parser = Parser(**kwargs)
        parser.add_config()
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what all verbs have of ours."""
        parser.link_arguments("data.image_shape", "model.init_args.image_shape", apply_on="instantiate")
        parser.add_argument(
            "--run_dir",
            type=str | None,
            help="The run's folder; by default runs/<config's name>/version_N, or the checkpoint's own run.",
        )
        parser.add_argument(
            "--trust",
            action="append",
            help="A module whose classes the checkpoint may name; it is imported. May be repeated.",
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        describe(parser, subcommand, VERBS[subcommand][0])
        if subcommand == "fit":
            parser.add_argument(
                "--resume",
                type=Literal["auto"] | None,
                help="auto: go on from the newest whole checkpoint of --run_dir, or of the newest "
                "runs/<name>/version_N; begin if there is none.",
            )
        else:
            parser.add_argument("--no_ema", action="store_true", help="Take raw weights, not averaged ones.")
        if subcommand == "test":
            from ebmzoo.cli.measuring import add_options  # slow to import

            add_options(parser)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; with a checkpoint and no config, the checkpoint's own config lies under the words."""
        verb, *words = args
        stored = options(words, "--ckpt_path")
        if any(word in ("-h", "--help") or word.partition("=")[0].endswith(".help") for word in words):
            load_all()  # help says what there is
            self.config = parser.parse_args(args)
        elif not stored or self.configs:
            self.config = parsed(parser, with_callbacks(args, *self._with_list), self._parser(verb))
        else:
            self.checkpoint = read(stored[-1])
            own = stored_config(self.checkpoint, stored[-1], as_left=verb != "fit")
            load_named(own)
            with tempfile.TemporaryDirectory() as folder:
                config = Path(folder) / "stored.yaml"
                config.write_text(yaml.safe_dump(own))
                words = [verb, "--config", str(config), *with_callbacks(words, own)]
                self.config = parsed(parser, words, self._parser(verb))

    def _parse_ckpt_path(self) -> None:
        """Nothing: LightningCLI lets the checkpoint's hyper-parameters override config and command line."""

    def _dump_config(self) -> None:
        """The verb's config as plain data, once: for the run's record, and for Lightning, which asks for it again."""
        if not hasattr(self, "config_dump"):
            self.config_dump = yaml.safe_load(self._parser(self.verb).dump(self.config[self.verb], skip_none=False))

    # -- what is made --------------------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Check what needs no objects, and make the run's folder."""
        config = self.config[self.verb]
        path = config.ckpt_path
        if path is None and self.verb != "fit":
            raise UserError(f"{self.verb} what? give --ckpt_path FILE (runs/.../{CHECKPOINTS}/last.ckpt)")
        if config.trainer.default_root_dir is not None:
            raise UserError("trainer.default_root_dir is the run's folder here: set --run_dir instead")
        if self.verb == "fit" and config.resume:
            path = config.ckpt_path = self._newest(config)
        if path is not None and self.checkpoint is None:
            self.checkpoint = read(path)
        if self.verb == "fit" and self.checkpoint is not None:
            check_whole(self.checkpoint, path)
        with instantiating():  # a default of a class may not be plain data
            self._dump_config()
        parts = ("seed_everything", "trainer", "model", "data")  # without what is said to the command alone
        self.plain_config = {k: copy.deepcopy(v) for k, v in self.config_dump.items() if k in parts}
        self.run = self._make_run(config)
        self.wandb_id = wandb_run.known(self.verb, self.checkpoint)
        wandb_run.place(config, self.verb, self.run.folder, self.wandb_id)

    def instantiate_classes(self) -> None:
        """Make data, method and trainer; leave no folder behind if they cannot be made."""
        try:
            with instantiating():
                super().instantiate_classes()
            if self.checkpoint is not None:
                check_fits(self.model, self.checkpoint, self.config[self.verb].ckpt_path)
        except BaseException:
            self.run.discard_if_unused()
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the run's folder and logger and with what every run needs."""
        folder = self.run.folder
        trainer = self.config_init[self.verb].trainer
        kwargs["default_root_dir"] = folder
        if self.verb == "fit":
            check_trainer(trainer)
        kwargs.update(for_processes(trainer))
        if not any(isinstance(plugin, CheckpointIO) for plugin in as_list(trainer.plugins)):
            kwargs["plugins"] = [*as_list(trainer.plugins), WholeFiles()]
        if trainer.logger is not False:
            # metrics.csv is a training run's, whatever other loggers there are: evaluation has results.json.
            file = [MetricsFile(folder)] if self.verb == "fit" else []
            kwargs["logger"] = [*as_list(trainer.logger), *file]
        record = RunRecord(folder, self.plain_config, self.wandb_id)
        kwargs["callbacks"] = with_ours(trainer, self.verb, folder, record)
        return super().instantiate_trainer(**kwargs)

    def _make_run(self, config: Any) -> Run:
        resume = self.verb == "fit" and config.resume
        if config.run_dir is not None:
            return Run.at(config.run_dir, resumed=config.ckpt_path, empty=self.verb == "fit" and not resume)
        if self.verb != "fit":
            # What is found out about a run belongs to it.
            return Run.at(folder_of(config.ckpt_path))
        newest = Run.newest(self._group(config)) if resume else None
        return newest or Run.new(self._group(config))

    def _group(self, config: Any) -> str:
        names = (config[part].class_path.rpartition(".")[2] for part in ("model", "data"))
        return run_name(self.configs, config.ckpt_path, *names)

    def _newest(self, config: Any) -> str | None:
        """The checkpoint that ``--resume auto`` goes on from."""
        if config.ckpt_path is not None:
            raise UserError("--resume auto looks for the checkpoint itself: give it or --ckpt_path, not both")
        run = Run(Path(config.run_dir)) if config.run_dir is not None else Run.newest(self._group(config))
        if run:
            run.claim()
        found, passed_over = newest_good(run.folder / CHECKPOINTS) if run else (None, [])
        if passed_over and found is None:  # a training from the start would write over what may still be saved
            raise UserError(
                f"--resume auto finds no good checkpoint: {'; '.join(passed_over)}; delete them, or move them away, to "
                f"begin anew, or choose another --run_dir"
            )
        for line in [*(f"passed over: {words}" for words in passed_over), f"resuming: {found or 'nothing yet'}"]:
            say(line)
        return None if found is None else str(found)

    # -- what is done --------------------------------------------------------------------------------------------------

    def fit(self, model: Method, datamodule: DataModule, ckpt_path: str | None = None) -> None:
        """Train, from the start or from a checkpoint."""
        if self.trainer.is_global_zero:  # other processes do not know its name
            print(f"run folder: {self.run.folder}", flush=True)
        with self._running():
            while True:
                try:
                    self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=ckpt_path, weights_only=True)
                    return
                except ProcessRaisedException as error:  # of a forked process, as text
                    if said := re.search(r"Diverged: (.*)", str(error)):
                        raise Stopped(f"{said[1]}; {self._kept()}") from error
                    raise
                except Diverged as trouble:
                    if not trouble.again:
                        raise Stopped(f"{trouble}; {self._kept()}") from trouble
                    known = trouble.checkpoint or self.config[self.verb].ckpt_path
                    self._begin_again(trouble)
                    # What this run was resumed from may have diverged since, and lie aside now.
                    ckpt_path = str(known) if known and Path(known).exists() else None

    def _begin_again(self, trouble: Diverged) -> None:
        """A fresh trainer, model and data after a rollback; the guard makes the steps smaller."""
        seed_everything(trouble.history[-1]["seed"], verbose=False)
        last = self.run.folder / CHECKPOINTS / "last.ckpt"
        if self.trainer.is_global_zero and last.exists():
            last.replace(last.with_name("diverged.ckpt.bad"))  # no resume is to pick it
        self.instantiate_classes()
        for guard in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(guard, Guard):
                guard.go_on(trouble.history)

    def _kept(self) -> str:
        return f"what it was like is in {self.run.folder} (metrics.csv, results.json)"

    def validate(self, model: Method, datamodule: DataModule, ckpt_path: str) -> None:
        """The validation figures of a checkpoint."""
        with self._evaluating(model, ckpt_path):
            self.trainer.validate(model, datamodule=datamodule)

    def test(self, model: Method, datamodule: DataModule, ckpt_path: str) -> None:
        """The whole evaluation of a checkpoint, or the parts of it that are asked for."""
        from ebmzoo.cli.measuring import tell_evaluate

        tell_evaluate(self.config[self.verb], self.trainer, (self.checkpoint or {}).get("global_step"))
        with self._evaluating(model, ckpt_path):
            self.trainer.test(model, datamodule=datamodule)

    def predict(self, model: Method, datamodule: DataModule, ckpt_path: str) -> None:
        """Scores, energies and reconstructions of a checkpoint's method for the prediction data."""
        with self._evaluating(model, ckpt_path):
            self.trainer.predict(model, datamodule=datamodule, return_predictions=False)

    @contextmanager
    def _evaluating(self, model: Method, path: str) -> Iterator[None]:
        assert self.checkpoint is not None
        averaged = restore(model, self.checkpoint, path, ema=not self.config[self.verb].no_ema)
        if model.dtype == torch.float64 and self.trainer.precision != "64-true":
            model.float()  # the command line wins over the checkpoint's precision
        print(f"{path}: {'averaged (EMA)' if averaged else 'raw'} weights")
        with self._running(), _terminable():
            yield

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            say_ending(error, self.run.folder, self._trust())
            wandb_run.finish(self.trainer, exit_code=1)
            self.run.discard_if_unused()
            raise
        wandb_run.finish(self.trainer, exit_code=0)
        if self.verb == "fit" and self.trainer.is_global_zero:
            say_what_next(self.trainer, self.run.folder, self._trust())
        elif self.trainer.is_global_zero:
            print(f"run folder: {self.run.folder}")

    def _trust(self) -> str:
        """The options that who reads this run's checkpoints must give, to trust the classes that they name."""
        modules = {*(self.config[self.verb].trust or []), *modules_to_trust(self.plain_config)}
        return "".join(f" --trust {module}" for module in sorted(modules))


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends at once: an evaluation has nothing to save, and Lightning would hear it at the next batch alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SIGTERMException

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
