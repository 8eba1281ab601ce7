"""What of Lightning's Trainer is refused, and which strategy stands for which."""

from types import SimpleNamespace

import pytest
from lightning.pytorch import callbacks as theirs
from lightning.pytorch.callbacks.spike import SpikeDetection
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from ebmzoo import EMA
from ebmzoo.cli.errors import UserError
from ebmzoo.cli.trainer import check_trainer, for_processes

DEFAULTS = {
    "callbacks": None,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": None,
    "accumulate_grad_batches": 1,
    "barebones": False,
    "profiler": None,
    "val_check_interval": None,
    "check_val_every_n_epoch": 1,
    "strategy": "auto",
    "devices": 1,
    "num_nodes": 1,
    "accelerator": "cpu",
}


def settings(**changed):
    return SimpleNamespace(**{**DEFAULTS, **changed})


class Averaging(theirs.WeightAveraging):
    """A user's own kind of it."""


REFUSED = [
    (theirs.WeightAveraging(), "WeightAveraging writes .* take EMA"),
    (theirs.EMAWeightAveraging(), "EMAWeightAveraging writes .* take EMA"),
    (theirs.StochasticWeightAveraging(0.1), "StochasticWeightAveraging writes .* take EMA"),
    (Averaging(), "Averaging writes .* take EMA"),
    (theirs.GradientAccumulationScheduler({0: 2}), "take a larger --data.batch_size"),
    (theirs.BatchSizeFinder(), "set --data.batch_size"),
    (theirs.LearningRateFinder(), "set their lr"),
    (SpikeDetection(), "take Guard"),
    (theirs.BackboneFinetuning(), "backbone"),
]


@pytest.mark.parametrize(("callback", "words"), REFUSED, ids=lambda one: type(one).__name__)
def test_callbacks_that_cannot_do_what_they_say(callback, words):
    for given in (callback, [EMA(), callback]):
        with pytest.raises(UserError, match=words):
            check_trainer(settings(callbacks=given))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gradient_clip_val": 0.5}, "--model.grad_clip 0.5"),
        ({"gradient_clip_algorithm": "value"}, "clips norms"),
        ({"accumulate_grad_batches": 2}, "--data.batch_size"),
        ({"barebones": True}, "barebones"),
        ({"profiler": "xla"}, "there are simple, advanced, pytorch"),
        ({"val_check_interval": 0}, "val_check_interval must be positive"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch must be positive"),
    ],
    ids=str,
)
def test_settings_that_cannot_do_what_they_say(changed, words):
    with pytest.raises(UserError, match=words):
        check_trainer(settings(**changed))


def test_what_goes_with_our_methods_is_left_alone():
    check_trainer(settings(callbacks=[EMA(), theirs.LearningRateMonitor(), theirs.Timer("00:00:01:00")]))
    assert for_processes(settings()) == for_processes(settings(strategy="single_device")) == {}
    assert for_processes(settings(strategy=DDPStrategy())) == {}


def test_several_devices_are_plain_ddp_and_what_a_user_says_stays():
    for name in ("ddp", "ddp_spawn", "ddp_fork", "ddp_notebook"):
        for devices in (1, "2", -1):
            for end in ("", "_find_unused_parameters_true", "_find_unused_parameters_false"):
                assert for_processes(settings(strategy=name + end, devices=devices)) == {}
    assert for_processes(settings(devices="2")) == {"strategy": "ddp"}


def test_every_strategy_of_lightnings_works_or_is_refused():
    refused = set()
    for name in StrategyRegistry.available_strategies():
        try:
            for_processes(settings(strategy=name))
        except UserError as error:
            assert "auto, single_device, ddp, ddp_spawn, ddp_fork, ddp_notebook" in str(error)
            refused.add(name)
    assert {name for name in StrategyRegistry.available_strategies() if "ddp" in name}.isdisjoint(refused)
    assert {"fsdp", "deepspeed", "deepspeed_stage_3", "xla"} <= refused
