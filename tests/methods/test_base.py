"""What the base makes of a box: who is updated, what is refused and in which words, what is logged."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from ebmzoo.factories import build, plain, spec
from ebmzoo.mcmc import Langevin, frozen
from ebmzoo.methods import ECVAE, Method
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import Energy, GaussianVAE

from .conftest import quiet_trainer

X = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(0))


class Two(Method):
    """A method of two players, a and b, whose box is given."""

    def __init__(self, box, grad_clip=None):
        super().__init__((2,), grad_clip)
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(2, 1), nn.Linear(1, 1)
        self.trains(
            a=(self.a, partial(SGD, lr=0.1), partial(StepLR, step_size=1, gamma=0.5)),
            b=([self.b.weight, self.b.bias], partial(SGD, lr=0.1), None),
        )
        self.box, self.seen = box, []

    def algorithm(self, x):
        return self.box(self, x)


def fitted(box, iterations=3, **settings):
    method = Two(box, **settings)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(method, DataLoader(list(X[:iterations]), batch_size=None))
    return method, trainer


def good(m, x):
    m.seen.append((m.iteration, m.global_step))
    yield "a", m.a(x).mean()
    m.seen.append((m.iteration, m.global_step))
    yield "b", m.b(m.a(x)).mean()


def test_two_iterations_by_hand():
    """The second player's loss sees the first one's update; nobody's gradient is left for another."""
    method, _ = fitted(good, 2)
    twin = Two(good)
    a, b = twin.a, twin.b
    for x, rate in zip(X, (0.1, 0.05), strict=False):
        step = torch.autograd.grad(a(x).mean(), list(a.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(a.parameters(), step, strict=True):
                parameter -= rate * gradient
        step = torch.autograd.grad(b(a(x)).mean(), list(b.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(b.parameters(), step, strict=True):
                parameter -= 0.1 * gradient
    for found, expected in zip(method.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_first_update_is_the_one_that_counts_and_the_iterations_number_stays():
    method, trainer = fitted(good)
    assert method.seen == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)] and trainer.global_step == 3


def test_a_schedule_waits_for_its_player():
    def box(m, x):
        if m.iteration:
            yield "a", m.a(x).mean()
            yield "a", m.a(x).mean()
        yield "b", m.b(x[:, :1]).mean()

    method, trainer = fitted(box, 4)
    # Three iterations of four, two updates in each of them.
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == pytest.approx([0.1 / 8, 0.1])


def nobody(m, x):
    yield from ()


def stranger(m, x):
    yield "c", m.a(x).mean()


def other_graph(m, x):
    yield "a", m.b(x[:, :1]).mean()


def within_frozen(m, x):
    with frozen(m.a):
        loss = m.b(m.a(x)).mean()
        yield "a", loss


def without_graph(m, x):
    yield "a", m.a(x).mean().detach()


def stale(m, x):
    loss = m.b(m.a(x).square()).mean()  # its gradient needs a's weights as they are now
    yield "b", m.b(m.a(x).detach()).mean()
    yield "a", loss


REFUSED = {
    "nobody updated": (nobody, RuntimeError, "^Two.algorithm updated nobody in iteration 0$"),
    "a player it does not have": (stranger, ValueError, "^Two has no player 'c': it trains a, b$"),
    "a loss of another": (
        other_graph,
        RuntimeError,
        "^no gradient reached a in iteration 0: frozen at the yield",
    ),
    "frozen at the yield": (within_frozen, RuntimeError, "^no gradient reached a in iteration 0"),
    "no graph at all": (without_graph, RuntimeError, "does not require grad"),
    "a loss of old weights": (stale, RuntimeError, "modified by an inplace operation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_the_rules_of_a_box_is_an_error(name):
    box, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        fitted(box)


def test_later_iterations_say_their_number():
    def box(m, x):
        if m.iteration < 2:
            yield "a", m.a(x).mean()

    with pytest.raises(RuntimeError, match="updated nobody in iteration 2$"):
        fitted(box)


def test_a_stop_iteration_within_a_box_does_not_pass_for_its_end():
    def box(m, x):
        yield "a", m.a(x).mean()
        next(iter(()))

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        fitted(box)


def test_values_are_logged_and_what_makes_them_is_called_where_somebody_looks():
    calls = []

    def box(m, x):
        yield "a", m.a(x).mean(), {"train/x": x[0, 0]}
        yield "b", m.b(m.a(x)).mean(), lambda: calls.append(m.iteration) or {"train/y": 2.0 * m.iteration}

    method = Two(box)
    trainer = quiet_trainer(max_epochs=1, log_every_n_steps=2)
    trainer.fit(method, DataLoader(list(X), batch_size=None))
    assert calls == [1, 3]
    assert trainer.callback_metrics["train/y"] == 6
    assert trainer.callback_metrics["train/x"] == pytest.approx(X[3, 0, 0].item())


def test_each_players_gradient_is_clipped_and_its_norm_before_that_logged():
    norms = []

    class Spy(SGD):
        def step(self, closure=None):
            super().step(closure)
            grads = [p.grad.norm() for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.stack(grads).norm()))

    method = Two(good, grad_clip=0.01)
    method._players = {name: (parts, partial(Spy, lr=0.1), None) for name, (parts, _, _) in method._players.items()}
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(method, DataLoader(list(X[:2]), batch_size=None))
    assert norms == pytest.approx([0.01] * 4, rel=1e-3)
    mean = X[1].mean(0)
    expected = (1 + mean.square().sum()).sqrt()  # of a(x).mean() in its weights and its bias
    torch.testing.assert_close(trainer.callback_metrics["train/grad_norm_a"], expected)


def test_a_copy_trains_its_own_networks():
    method = Two(good)
    twin = copy.deepcopy(method)
    before = copy.deepcopy(method.state_dict())
    quiet_trainer(max_epochs=1).fit(twin, DataLoader(list(X), batch_size=None))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert not torch.equal(twin.a.weight, method.a.weight)


def test_losses_are_those_of_a_box_that_updates_nobody():
    method = Two(good)
    before = copy.deepcopy(method.state_dict())
    found = dict(method.losses(X[0], iteration=7))
    assert list(found) == ["a", "b"] and method.iteration == 7
    torch.testing.assert_close(found["a"], method.a(X[0]).mean())
    torch.testing.assert_close(found["b"], method.b(method.a(X[0])).mean())
    assert found["b"].requires_grad and all(p.grad is None for p in method.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


class Scaled(nn.Module):
    """A network that takes its scale from the first data it is shown."""

    def __init__(self, image_shape):
        super().__init__()
        self.scale, self.shown = nn.Parameter(torch.ones(())), []

    @property
    def initialised(self):
        return bool(self.shown)

    def initialise(self, x):
        self.shown.append(x)

    def forward(self, x):
        return self.scale * x.sum(1)


def test_an_energy_takes_its_first_scales_from_the_first_batch_before_anything_sees_it():
    """Also where a warm start leaves the energy alone for some iterations."""
    known = []

    def box(m, x):
        known.append(len(m.ebm.network.shown))
        yield "a", m.a(x).mean()

    method = Two(box)
    method.ebm = Energy((2,), Scaled)
    quiet_trainer(max_epochs=1).fit(method, DataLoader(list(X), batch_size=None))
    assert known == [1, 1, 1, 1] and torch.equal(method.ebm.network.shown[0].reshape(-1, 2), X[0])


def test_an_optimiser_that_asks_for_several_losses_is_refused():
    method = Two(good)
    method.trains(a=(method.a, partial(LBFGS, lr=0.1), None))
    with pytest.raises(ValueError, match="optimiser or schedule of a cannot be made: LBFGS evaluates its loss several"):
        quiet_trainer(max_epochs=1).fit(method, DataLoader(list(X), batch_size=None))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: next(Method((2,)).algorithm(X)), "Method has no algorithm"),
        (lambda m: m.sample(2), "Two does not say where its samples begin"),
        (lambda m: m.potential(X, Langevin()), "Two has no chain"),
    ],
)
def test_what_a_method_has_not_written_is_said(ask, words):
    with pytest.raises(TypeError, match=words):
        ask(Two(good))


def test_hyper_parameters_are_plain_data_that_can_be_built_again():
    vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=2)
    sampler = Langevin(3, 0.2, bounds=(-1, 1))
    method = ECVAE((1, 8, 8), vae, MLPEnergy, sampler=sampler)
    stored = method.hparams["sampler"]
    assert stored["init_args"]["bounds"] == [-1, 1]
    rebuilt = build(stored)
    assert plain(rebuilt) == stored and isinstance(rebuilt, Langevin)
    assert method.hparams["energy_optimizer"]["init_args"] == {"lr": 1e-4, "betas": [0.0, 0.9]}
    inner = method.hparams["vae"]["init_args"]
    assert inner["encoder"] == {"class_path": "ebmzoo.networks.mlp.MLPEncoder"} and inner["latent_dim"] == 2
    free = ECVAE((1, 8, 8), lambda shape: vae(shape), MLPEnergy)
    assert "callable" in free.hparams["vae"]


def test_an_optimiser_may_be_a_class_a_partial_or_plain_data():
    for optimizer in (SGD, partial(SGD, lr=0.5), spec(Adam, lr=0.5)):
        method = Two(good)
        method.trains(a=(method.a, optimizer, None))
        found, _ = method.configure_optimizers()
        assert len(found) == 2 and found[0].param_groups[0]["lr"] in (0.5, 1e-3)
