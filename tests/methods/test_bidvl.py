"""BiDVL: every option against the paper's formulas written out, in float64 to 1e-10; who learns from what."""

import copy

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.optim import SGD

from ebmzoo.factories import spec
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import BiDVL, BoundsLikelihood
from ebmzoo.networks import MLPEnergy
from ebmzoo.parts import Energy

from .by_hand import DECODER, ENCODER, LATENT, apply, error, made, steps_of

RATE = 0.5  # of plain SGD: two steps apart, gradients of both levels and of all N steps show in the weights
NAMES = ("encoder", "decoder", "energy")


def parts(method):
    return dict(zip(NAMES, (method.vae.encoder, method.vae.decoder, method.ebm.network), strict=True))


def bidvl(kind=BiDVL, contrast="gap", **settings):
    energy = spec(Energy, network=spec(MLPEnergy, width=6, depth=1, spectral_norm=True), contrast=contrast)
    optimizer = spec(SGD, lr=RATE)
    defaults = {"latent_dim": LATENT, "energy_optimizer": optimizer, "variational_optimizer": optimizer}
    return made(kind, ENCODER, DECODER, energy, **{**defaults, **settings})


def descend(loss, *networks):
    return steps_of(loss, *networks, rate=RATE)


def posterior(model, v, bound=5.0):
    mean, log_variance = model.vae.encoder(v)
    log_variance = bound * torch.tanh(log_variance / bound)
    return Normal(mean, torch.exp(log_variance / 2))


def algorithm_1(
    model, v, noise, ratio=0.05, ratio_bias=False, latent="likelihood", latent_weight=1.0, offset=True,
    contrast="gap", lower_steps=1, log_variance_bound=5.0,
):  # fmt: skip
    """One iteration with gradient steps on Eqs. 11 to 15 as printed."""
    encoder, generator, energy = parts(model).values()
    prior = Normal(torch.zeros(LATENT).double(), 1.0)
    for _ in range(lower_steps):
        energy.eval()
        q = posterior(model, v, log_variance_bound)
        reconstruction = generator(q.mean + q.stddev * noise.normal((8, LATENT), v))
        h = noise.normal((8, LATENT), v)
        generated = generator(h)
        r = ratio
        if ratio_bias:  # section 5.4
            e = energy(v).detach()
            r = ratio / (1 + torch.exp(e - e.mean()))
        vae = ((reconstruction - v) ** 2).sum((1, 2, 3)) + kl_divergence(q, prior).sum(1)
        rest = (energy(generated) + r * vae).mean()  # the weighted divergence and E_p[E(v)]
        on_generated = posterior(model, generated, log_variance_bound)
        term = {
            "likelihood": lambda q, h: -q.log_prob(h).sum(1),
            "mse": lambda q, h: ((q.mean - h) ** 2).sum(1) / LATENT,
            "none": lambda q, h: 0 * h.sum(1),
        }[latent]
        both = rest + latent_weight * term(on_generated, h).mean()
        apply(descend(both, generator) + descend(rest if offset else both, encoder))
    generated = generator(noise.normal((8, LATENT), v)).detach()
    if not offset:
        kl = kl_divergence(posterior(model, generated, log_variance_bound), prior).sum(1)
        apply(descend(latent_weight * kl.mean(), encoder))
    energy.train()  # here alone do the spectral norms' vectors move, once
    e_data, e_model = energy(torch.cat([v, generated])).chunk(2)
    loss = e_data.mean() - e_model.mean()
    if contrast == "hinge":
        loss = (torch.relu(1 + e_data) + torch.relu(1 - e_model)).mean()
    apply(descend(loss, energy))


OPTIONS = {
    "the paper's": {},
    "other weights": {"ratio": 0.3, "latent_weight": 0.2, "log_variance_bound": 0.1},
    "mean squared error": {"latent": "mse"},
    "without the latent term": {"latent": "none"},
    "biased ratio": {"ratio_bias": True},
    "not offset": {"offset": False},
    "not offset, mean squared error, weighted": {"offset": False, "latent": "mse", "latent_weight": 0.5},
    "hinge": {"contrast": "hinge"},
    "three lower steps": {"lower_steps": 3},
    "many": {"offset": False, "ratio_bias": True, "contrast": "hinge", "lower_steps": 2},
}


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
def test_an_iteration_is_algorithm_1(fit, digits, settings):
    method = bidvl(**settings)
    start, expected = copy.deepcopy(method), copy.deepcopy(method)
    batches = [digits, digits.flip(0) * 0.9]
    fit(method, batches)
    noise = as_noise(5)
    for v in batches:
        algorithm_1(expected, v, noise, **settings)
    for name in NAMES:
        trained, reference, before = (parts(m)[name].state_dict() for m in (method, expected, start))
        assert max((reference[key] - before[key]).abs().max() for key in before) > 1e-3
        for key in before:
            torch.testing.assert_close(trained[key], reference[key], rtol=1e-10, atol=1e-10, msg=f"{name}.{key}")


def test_every_option_changes_the_iteration(fit, digits):
    """The table above tells its rows apart: no option is inert."""
    found = []
    for settings in OPTIONS.values():
        method = bidvl(**settings)
        fit(method, [digits, digits])
        found.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    distances = torch.cdist(torch.stack(found), torch.stack(found)) + torch.eye(len(found))
    assert distances.min() > 1e-6


class Watched(BiDVL):
    """Notes whose gradients a step has moved, and whether the spectral vectors had moved since the last."""

    def watch(self):
        gradients = {
            name: [None if p.grad is None else p.grad.clone() for p in network.parameters()]
            for name, network in parts(self).items()
        }
        vectors = [buffer.clone() for buffer in self.ebm.buffers()]
        return gradients, vectors

    def on_before_optimizer_step(self, optimizer):
        gradients, vectors = self.watch()
        before = self.last

        def same(a, b):
            return all(
                (x is None and y is None) or (None not in (x, y) and torch.equal(x, y))
                for x, y in zip(a, b, strict=True)
            )

        moved = {name for name in NAMES if not same(gradients[name], before[0][name])}
        number = [raw is optimizer for raw in self.trainer.optimizers].index(True)
        self.seen.append((list(self.players())[number], moved, not same(vectors, before[1])))
        self.last = gradients, vectors


@pytest.mark.parametrize("latent", ["likelihood", "mse"])
def test_no_gradient_reaches_the_other_level(fit, digits, latent):
    method = bidvl(Watched, latent=latent, lower_steps=2, ratio_bias=True)
    method.seen, method.last = [], method.watch()
    fit(method, [digits, -digits])
    lower = ("variational", {"encoder", "decoder"}, False)
    upper = ("energy", {"energy"}, True)
    # zero_grad drops the gradients of the player that steps, so the energy's stay what they were and no more.
    assert method.seen == [lower, lower, upper] * 2
    assert all(p.requires_grad for p in method.parameters()) and all(m.training for m in method.modules())


def test_not_offset_the_upper_level_teaches_the_inference_network_alone(fit, digits):
    method = bidvl(Watched, offset=False)
    method.seen, method.last = [], method.watch()
    fit(method, [digits])
    players = [player for player, _, _ in method.seen]
    assert players == ["variational", "variational", "energy"]
    gradients, _ = method.last
    assert all(gradient is None for gradient in gradients["decoder"])


def test_energy_score_and_density(digits):
    method = bidvl().eval()
    energy = method.ebm.network(digits)
    assert torch.equal(method.energy(digits), energy) and energy.shape == (8,)
    assert torch.equal(method.score(digits), -energy) and torch.equal(method.log_density(digits), -energy)
    with torch.autocast("cpu", torch.bfloat16):
        assert method.float().energy(digits.float()).dtype == torch.float32


def test_samples_codes_and_reconstructions(digits):
    method = bidvl().float().eval()
    x = digits.float()
    h = as_noise(3).normal((6, LATENT))
    torch.testing.assert_close(method.sample(6, noise=3), method.vae.decoder(h).clamp(-1, 1))
    assert method.test_sampler() == (None, 0)
    with pytest.raises(ValueError, match="BiDVL samples in one step: it has no chain"):
        method.sample(6, steps=2)
    mean, log_sigma = method.encode(x)
    raw_mean, raw = method.vae.encoder(x)
    assert torch.equal(mean, raw_mean)
    torch.testing.assert_close(2 * log_sigma, 5 * torch.tanh(raw / 5))
    torch.testing.assert_close(method.reconstruct(x), method.decode(mean))
    assert method.encode(1e6 * x).log_sigma.abs().max() <= 2.5
    assert not isinstance(method, BoundsLikelihood)


def test_held_out_data_are_told_by_error_and_energy(digits):
    """The error is that of the reconstruction from the mean code, per value; there is no bound."""
    method = bidvl().eval()
    found = method.validate(digits, as_noise(0))
    assert set(found) == {"mse", "energy_data"}
    expected = error(method.vae.decoder(method.vae.encoder(digits)[0]), digits) / 64
    torch.testing.assert_close(found["mse"], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(found["energy_data"], method.ebm.network(digits), rtol=1e-12, atol=0)


def test_the_likelihood_of_its_generator_has_no_part_in_it(fit, digits):
    method = bidvl()
    fit(method, [digits])
    assert method.vae.log_sigma == 0 and not method.vae.log_sigma.requires_grad
    assert sum(p.numel() for p in method.parameters()) == sum(
        p.numel() for networks, _, _ in method.players().values() for network in networks for p in network.parameters()
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"latent": "nll"}, "unknown latent 'nll': choose one of likelihood, mse, none"),
        ({"contrast": "wgan"}, "unknown contrast 'wgan': choose one of gap, hinge"),
        ({"lower_steps": 0}, "lower_steps must be at least 1, not 0"),
        ({"latent": "none", "offset": False}, "offset: false needs the latent term"),
    ],
)
def test_what_cannot_be_is_one_clear_line(settings, line):
    with pytest.raises(ValueError, match=line) as error:
        bidvl(**settings)
    assert "\n" not in str(error.value)
