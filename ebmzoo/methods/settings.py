"""Optimisers and schedules at a resume: the config's settings hold, where torch would take the checkpoint's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.optim import Optimizer

from ebmzoo.factories import build, class_path, parameters_of, plain

__all__ = ["configured", "put_into"]

Settings = dict[str, dict[str, Any]]


def configured(players: Mapping[str, Any]) -> Settings:
    """What the optimiser and the schedule of each player begin with, as plain data: a checkpoint keeps it.

    Args:
        players: those of a method.
    """
    found: Settings = {}
    for name in players:
        optimizer, schedule = _made(players[name])
        found[name] = {"optimizer": class_path(type(optimizer)), "settings": plain(optimizer.defaults)}
        if schedule is not None:
            found[name] |= {"schedule": class_path(type(schedule)), "begin": plain(schedule.state_dict())}
    return found


def put_into(checkpoint: dict[str, Any], players: Mapping[str, Any]) -> None:
    """Change the states of a checkpoint's optimisers and schedules to what the players are set to now.

    A changed schedule is then where it would be if it had been so from the start. A changed learning rate keeps the
    halvings of a guard. What is set as it was stays bit for bit as it is; so does all of a checkpoint that does not say
    how it was set.

    Args:
        checkpoint: changed in place.
        players: those of the method that goes on from it.

    Raises:
        ValueError: a player has an optimiser of another class, has a schedule and had none, or the other way round.
    """
    before: Settings | None = checkpoint.get("ebmzoo", {}).get("settings")
    if before is None or not checkpoint.get("optimizer_states"):
        return
    after = configured(players)
    if list(before) != list(after):
        raise ValueError(f"the checkpoint trained {', '.join(before)}, this method trains {', '.join(after)}")
    schedules = iter(checkpoint["lr_schedulers"])
    for (name, now), state in zip(after.items(), checkpoint["optimizer_states"], strict=True):
        was, groups = before[name], state["param_groups"]
        if was["optimizer"] != now["optimizer"] or ("schedule" in was) != ("schedule" in now):
            raise ValueError(
                f"the checkpoint trained {name} by {_words(was)}: it cannot go on by {_words(now)}: their states differ"
            )
        schedule = next(schedules) if "schedule" in was else None
        if was == now:
            continue
        old, new = was["settings"], now["settings"]
        changed = {key: new[key] for key in new if key in old and old[key] != new[key]}
        _set(groups, schedule, players[name], old, changed)
        words = [f"{key} {old[key]} -> {value}" for key, value in changed.items()]
        if _schedule_of(was) != _schedule_of(now):
            words.append(f"another {_words(now).rpartition(' ')[2]}")
        rank_zero_info(f"{name} goes on with other settings than before: {', '.join(words)}")


def _set(
    groups: list[dict[str, Any]],
    schedule: dict[str, Any] | None,
    player: Any,
    old: Mapping[str, Any],
    changed: Mapping[str, Any],
) -> None:
    """Put what was changed into the parameter groups and the schedule's state."""
    before = old.get("lr")
    numbers = isinstance(before, float | int) and before > 0
    for group in groups:
        group |= {key: value for key, value in changed.items() if key != "lr" or not numbers}
        if schedule is None and numbers and "lr" in changed:
            group["lr"] *= changed["lr"] / before
    if schedule is None:
        return
    halvings = groups[0]["initial_lr"] / before if numbers else 1.0  # a guard's
    optimizer, fresh = _made(player, halvings)
    assert fresh is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for _ in range(schedule["last_epoch"]):
            fresh.step()
    schedule.clear()
    schedule |= fresh.state_dict()
    for group, now in zip(groups, optimizer.param_groups, strict=True):
        group |= {key: now[key] for key in ("lr", "initial_lr")}


def _made(player: Any, scale: float = 1.0) -> tuple[Optimizer, Any]:
    """A player's optimiser and its schedule, if any, before any step, at so many times the learning rate."""
    networks, make_optimizer, make_schedule = player
    optimizer = build(make_optimizer, parameters_of(networks))
    if scale != 1:
        for group in optimizer.param_groups:
            group["lr"] *= scale
    return optimizer, None if make_schedule is None else build(make_schedule, optimizer)


def _words(settings: Mapping[str, Any]) -> str:
    kinds = [settings[part].rpartition(".")[2] for part in ("optimizer", "schedule") if part in settings]
    return " with ".join(kinds) if len(kinds) == 2 else f"{kinds[0]} without a schedule"


def _schedule_of(settings: Mapping[str, Any]) -> Any:
    """A schedule apart from the learning rates that it was made at."""
    begin = settings.get("begin", {})
    return settings.get("schedule"), {key: value for key, value in begin.items() if key not in ("base_lrs", "_last_lr")}
