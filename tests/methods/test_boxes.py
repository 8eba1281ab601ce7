"""The rules of a box, over all methods: who is updated when, with which weights, by whose clock."""

import ast
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader

import ebmzoo
from ebmzoo.factories import spec

from .cases import METHODS, RARELY, SHAPE, seeded
from .conftest import quiet_trainer

# The base has no box: its `losses` runs one for who looks on.
ROOMS = [Path(ebmzoo.__file__).parent / room for room in ("methods", "parts")]
SOURCES = sorted(path for room in ROOMS for path in room.glob("*.py") if path.name != "base.py")
ITERATIONS, RATE = 6, 1e-4  # beyond all warm starts


def yields_within_with(source):
    """Line numbers of yields that stand within a ``with``, in whatever function."""
    blocks = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.With | ast.AsyncWith)]
    inside = [inner for block in blocks for line in block.body for inner in ast.walk(line)]
    return sorted({node.lineno for node in inside if isinstance(node, ast.Yield | ast.YieldFrom)})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_yield_stands_within_a_with(path):
    assert not yields_within_with(path.read_text())


def test_the_reader_of_yields_sees_all_kinds():
    lines = ["def f():", " with a:", "  if b:", "   yield 1", "  yield from c", "  x = yield", " yield 2", ""]
    source = "\n".join(lines)
    assert yields_within_with(source) == [4, 5, 6]


@cache
def trained(name, dark=False):
    """Who was updated in which iteration, by plain SGD whose rate each schedule halves; and the trainer's end.

    Plain SGD changes weights in a way that autograd sees: a loss made before another player's update raises. Fused
    optimisers, which the configs use, do not.
    """
    method, seen = seeded(name), []
    method._players = {
        player: (networks, spec(SGD, lr=RATE), spec(ExponentialLR, gamma=0.5))
        for player, (networks, _, _) in method.players().items()
    }
    update = method._update

    def noted(player, loss, *, first):
        seen.append((method.iteration, player))
        update(player, loss, first=first)

    method._update = noted
    data = torch.rand(ITERATIONS, 6, *SHAPE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    if dark:
        data = torch.full_like(data, -1.0)
    trainer = quiet_trainer(max_epochs=1, **RARELY)
    trainer.fit(method, DataLoader(list(data), batch_size=None))
    rates = {player: o.param_groups[0]["lr"] for player, o in zip(method.players(), trainer.optimizers, strict=True)}
    return seen, rates, trainer.global_step


@pytest.fixture(params=METHODS, ids=str)
def name(request):
    return request.param


def test_who_is_updated_does_not_depend_on_data(name):
    assert trained(name)[0] == trained(name, dark=True)[0]


def test_an_iteration_counts_once_and_the_box_knows_its_number(name):
    seen, _, clock = trained(name)
    assert clock == ITERATIONS
    assert list(dict.fromkeys(iteration for iteration, _ in seen)) == list(range(ITERATIONS))


def test_every_player_is_updated_but_those_that_rest_by_settings(name):
    players = set(seeded(name).players())
    assert METHODS[name].rests <= players
    assert {player for _, player in trained(name)[0]} == players - METHODS[name].rests


def test_a_schedule_counts_its_players_own_iterations(name):
    seen, rates, _ = trained(name)
    for player, rate in rates.items():
        iterations = {iteration for iteration, updated in seen if updated == player}
        assert rate == pytest.approx(RATE * 0.5 ** len(iterations)), player


ORDERS = {
    "ecvae": [["energy", "vae"]] * 3,
    "ecvae with all its options": [["vae"]] * 5 + [["energy", "vae", "vae"]],
    "cooperative with all its options": [["vae"]] * 3 + [["energy", "vae", "vae"]] * 3,
    "ecflow with all its options": [["flow"]] * 4 + [["energy", "flow"]] * 2,
    "bidvl": [["variational", "energy"]] * 2,
    "bidvl with all its options": [["variational"] * 3 + ["energy"]] * 2,
    "dual-mcmc": [["energy", "generator", "inference"]] * 2,
    "dual-mcmc with all its options": [["generator", "inference"]] * 3
    + [["energy", "generator", "generator", "inference"]],
    "denoising ebm": [["denoiser", "decoder"]] * 2 + [["denoiser", "decoder", "decoder", "denoiser"]],
    "vaebm, persistent, from its VAE on": [["vae"]] * 4 + [["energy", "decoder"]] * 2,
    "wgan": [["energy", "energy", "vae"]] * 2,
    "gan": [["discriminator", "discriminator", "generator"]] * 2,
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_updates_is_the_papers(name):
    for iteration, players in enumerate(ORDERS[name]):
        assert [player for at, player in trained(name)[0] if at == iteration] == players, iteration
