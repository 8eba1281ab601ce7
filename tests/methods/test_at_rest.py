"""Whoever asks a method, after training or in the midst of it, gets the trained model's answer and leaves no trace."""

import copy
from inspect import isfunction, signature

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from ebmzoo.factories import spec
from ebmzoo.mcmc import AnnealedLangevin, Langevin, as_noise
from ebmzoo.methods import (
    EBM,
    ECVAE,
    GAN,
    VAE,
    VAEBM,
    WGAN,
    BiDVL,
    CooperativeVAE,
    DenoisingEBM,
    DualMCMC,
    ECFlow,
    Flow,
    capabilities,
)
from ebmzoo.methods.at_rest import unclamped
from ebmzoo.networks import FlowPrior, Glow, MLPDecoder, MLPDenoiser, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE
from ebmzoo.tasks import Colorize, Restorer

SHAPE = (3, 8, 8)
CODE = {
    "encoder": spec(MLPEncoder, width=16, depth=1, norm="batch"),
    "decoder": spec(MLPDecoder, width=16, depth=1, norm="batch"),
    "latent_dim": 4,
}
ENERGY = spec(MLPEnergy, width=16, depth=1, spectral_norm=True)
BASE = spec(GaussianVAE, **CODE)
PRIOR = spec(GaussianVAE, **CODE, prior=spec(FlowPrior, steps=1, width=8))
GLOW = spec(Glow, levels=2, steps=1, width=4)
CHAIN = Langevin(2, 0.1)
LADDER = {"semantic_sampler": AnnealedLangevin(2, 0.2), "texture_sampler": AnnealedLangevin(2, 0.1)}
METHODS = {
    "vae": lambda: VAE(SHAPE, BASE),
    "ecvae": lambda: ECVAE(SHAPE, PRIOR, ENERGY, refine=CHAIN),
    "cooperative": lambda: CooperativeVAE(SHAPE, BASE, ENERGY, refine=CHAIN),
    "bidvl": lambda: BiDVL(SHAPE, **CODE, energy=ENERGY),
    "vaebm": lambda: VAEBM(SHAPE, BASE, ENERGY, sampler=CHAIN),
    "dual-mcmc": lambda: DualMCMC(SHAPE, **CODE, energy=ENERGY, sampler=CHAIN, latent_sampler=CHAIN),
    "denoising ebm": lambda: DenoisingEBM(SHAPE, spec(MLPDenoiser, width=16), CODE["decoder"], latent_dim=4, **LADDER),
    "ebm": lambda: EBM(SHAPE, ENERGY, sampler=CHAIN),
    "wgan": lambda: WGAN(SHAPE, BASE, ENERGY),
    "gan": lambda: GAN(SHAPE, CODE["decoder"], ENERGY, latent_dim=4),
    "flow": lambda: Flow(SHAPE, GLOW, levels=17),
    "ecflow": lambda: ECFlow(SHAPE, GLOW, ENERGY, levels=17, sampler=CHAIN, refine=CHAIN),
}
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
Z = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def ask(method, name):
    """The answer of one function, as tensors."""
    function = getattr(method, name)
    if name == "white_energy":
        return [function(*(torch.ones(5, *shape) for shape in method.white_shapes))]
    given = {"n": 3, "x": X, "z": Z, "sigma": 0.1, "like": X, "noise": as_noise(0)}
    found = function(**{key: given[key] for key in signature(function).parameters if key in given})
    return [found] if torch.is_tensor(found) else [part for part in found if torch.is_tensor(part)]


# All functions of all capabilities, but what says how one samples, and two that methods have besides.
ASKED = {"denoise", "elbo"} | {
    name
    for protocol in map(vars(capabilities).get, capabilities.__all__)
    if isinstance(protocol, type)
    for name, value in vars(protocol).items()
    if isfunction(value) and not name.startswith("_")
}


def traces(method):
    """All that an answer might leave changed."""
    modes = [part.training for part in method.modules()]
    wanted = [parameter.requires_grad for parameter in method.parameters()]
    return modes, wanted, copy.deepcopy(method.state_dict()), torch.get_rng_state()


def assert_no_trace(method, before):
    modes, wanted, values, rng = traces(method)
    assert (modes, wanted) == before[:2]
    assert not [name for name, value in values.items() if not torch.equal(value, before[2][name])]
    assert torch.equal(rng, before[3])


@pytest.fixture(params=METHODS, ids=str)
def method(request):
    torch.manual_seed(0)
    found = METHODS[request.param]().train()
    parts = [part for part in found.modules() if not list(part.children())]
    parts[0].eval()  # modes are the parts' own, not the whole's
    next(found.parameters()).requires_grad_(False)
    return found


def test_answers_in_train_mode_are_those_of_eval_mode_and_leave_no_trace(method):
    trained = copy.deepcopy(method).eval()
    before = traces(method)
    names = [name for name in sorted(ASKED) if hasattr(method, name)]
    assert "sample" in names
    for name in names:
        for found, expected in zip(ask(method, name), ask(trained, name), strict=True):
            assert torch.equal(found, expected), name
            assert not found.requires_grad, name
        assert_no_trace(method, before)


def test_restoring_in_train_mode_leaves_no_trace():
    torch.manual_seed(0)
    model = METHODS["ecvae"]().train()
    degradation, restorer = Colorize(), Restorer(steps=2)
    y = degradation.degrade(X)
    expected = restorer(copy.deepcopy(model).eval(), degradation, y, noise=0)
    before = traces(model)
    assert torch.equal(restorer(model, degradation, y, noise=0).image, expected.image)
    assert_no_trace(model, before)


def test_an_answer_that_fails_leaves_no_trace():
    model = METHODS["wgan"]().train()
    before = traces(model)
    with pytest.raises(ValueError, match="no chain"):
        model.sample(2, steps=3)
    assert_no_trace(model, before)
    assert not model.energy(X).requires_grad  # and the next one is at rest again


def test_an_argument_keeps_its_gradient_and_parameters_get_none():
    model = METHODS["ecvae"]().train()
    x = X.clone().requires_grad_(True)
    model.energy(x).sum().backward()
    assert x.grad is not None and all(parameter.grad is None for parameter in model.parameters())


class Asks(Callback):
    """Asks in the midst of a training, as a user's own callback may."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        pl_module.sample(3, noise=0)
        pl_module.energy(X)


def test_asking_in_the_midst_of_a_training_does_not_change_it(fit):
    found = []
    for callbacks in ([], [Asks()]):
        torch.manual_seed(0)
        model = METHODS["bidvl"]()
        statistics = [value.clone() for name, value in model.state_dict().items() if "running" in name]
        fit(model, [X] * 4, callbacks=callbacks)
        found.append(model.state_dict())
        moved = [value for name, value in model.state_dict().items() if "running" in name]
        assert statistics and not any(map(torch.equal, statistics, moved))  # training itself moves them
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


class Own(VAE):
    """A method of somebody's own: what it defines itself is its answer as well."""

    def training_step(self, batch, batch_idx):
        self.seen = self.vae.decoder.training, self.decode(Z).requires_grad, super().decode(Z).requires_grad
        super().training_step(batch, batch_idx)

    def decode(self, z):
        assert isinstance(self.vae.decoder, nn.Module)
        return 2 * super().decode(z)


def test_a_subclass_answers_at_rest_and_trains_as_it_must(fit):
    model = Own(SHAPE, BASE)
    fit(model, [X])
    assert model.seen == (True, True, True)
    before = traces(model)
    assert torch.equal(model.train().decode(Z), 2 * model.vae.decoder.eval()(Z))
    model.vae.decoder.train()
    assert_no_trace(model, before)


def test_images_that_are_sampled_lie_in_their_range(method):
    method.eval()
    with torch.no_grad():
        for name, parameter in method.named_parameters():  # no network's own bounds are left
            if parameter.dim() > 1 and not name.startswith("ebm"):
                parameter.mul_(4)
    with unclamped(method):
        raw = method.sample(4, noise=0)
    found = method.sample(4, noise=0)
    assert raw.isfinite().all() and torch.equal(found, raw.clamp(-1, 1))
    if not isinstance(method, Flow | ECFlow | EBM):  # whose samples are at levels of the range, or start in it
        assert raw.abs().max() > 1


def test_a_chain_is_seen_as_it_runs_and_goes_on_as_it_was():
    model = METHODS["ecvae"]()
    model.refine = Langevin(3, 8.0)
    seen = []
    found = model.sample(4, noise=0, watch=lambda step, state: seen.append(state.x.clone()))
    assert found.abs().max() == 1 < seen[-1].abs().max()
    with unclamped(model):
        assert torch.equal(found, model.sample(4, noise=0).clamp(-1, 1))


def test_points_and_what_is_not_finite_are_left_alone():
    shape = (2,)
    model = VAE(shape, BASE)
    with torch.no_grad():
        [part for part in model.vae.decoder.modules() if isinstance(part, nn.Linear)][-1].bias.copy_(
            torch.tensor([9.0, -7])
        )
    assert (model.sample(5, noise=0) - torch.tensor([9.0, -7])).abs().max() < 4
    model = METHODS["vae"]()
    with torch.no_grad():
        last = [part for part in model.vae.decoder.modules() if isinstance(part, nn.Linear)][-1]
        last.bias[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    first = model.sample(1, noise=0).flatten()[:4]
    assert first[0].isnan() and first[1] == torch.inf and first[2] == -torch.inf and first[3].abs() <= 1
