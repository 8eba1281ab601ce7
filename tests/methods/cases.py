"""Every method of the shelf, small, with its options: the one list that all of them is tested by."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.optim import Adam

from ebmzoo.callbacks import EMA
from ebmzoo.factories import spec
from ebmzoo.mcmc import AnnealedLangevin, Langevin
from ebmzoo.methods import (
    EBM,
    ECVAE,
    GAN,
    VAE,
    VAEBM,
    WGAN,
    BiDVL,
    BoundsLikelihood,
    CooperativeVAE,
    DenoisingEBM,
    DualMCMC,
    ECFlow,
    Encodes,
    Flow,
    HasEnergy,
    Method,
    Reconstructs,
    Samples,
    Scores,
)
from ebmzoo.networks import FlowPrior, Glow, MLPDecoder, MLPDenoiser, MLPEncoder, MLPEnergy, RandomFeatures
from ebmzoo.parts import CalibratedPosterior, Calibration, Energy, GaussianVAE, Pairs
from ebmzoo.parts.objectives import EnergyL2, GradientPenalty, LipschitzPenalty

SHAPE = (1, 8, 8)
RARELY = {"log_every_n_steps": 4}  # a third of such a small step is Lightning's logging

_TINY = {"width": 16, "depth": 1}
CODE = {"encoder": spec(MLPEncoder, **_TINY), "decoder": spec(MLPDecoder, **_TINY), "latent_dim": 4}
ENERGY = spec(MLPEnergy, **_TINY)
GLOW = spec(Glow, levels=2, steps=1, width=4)
CHAIN, DISTANT = Langevin(3, 0.1, 1e-3), Langevin(2, 0.1)
LADDER = {"semantic_sampler": AnnealedLangevin(2, 0.2), "texture_sampler": AnnealedLangevin(3, 0.1)}


@dataclass(frozen=True)
class Case:
    """A method of the list.

    Attributes:
        make: makes it; a case is called for that.
        can: what it can do, of `PROTOCOLS`.
        rests: players that by these settings no iteration updates.
    """

    make: Callable[[], Method]
    can: frozenset[type]
    rests: frozenset[str] = frozenset()

    def __call__(self) -> Method:
        return self.make()


def case(kind: type[Method], can: set[Any], *networks: Any, rests: str = "", **settings: Any) -> Case:
    """A row of the list: the class, what it can do, and what it is made of."""
    return Case(lambda: kind(SHAPE, *networks, **settings), frozenset(can), frozenset(rests.split()))


def vae(**settings: Any) -> Any:
    return spec(GaussianVAE, **{**CODE, "sigma": 0.3, **settings})


def energy(**settings: Any) -> Any:
    return spec(Energy, **{"network": ENERGY, **settings})


ALL = {BoundsLikelihood, Encodes, HasEnergy, Reconstructs, Samples, Scores}
PROTOCOLS = frozenset(ALL)
CODED = ALL - {BoundsLikelihood}
IGEBM = Langevin(3, 2.0, 5e-5, grad_clamp=0.1, bounds=(-1.2, 1.2), noise_first=True)
CODE_AND_ENERGY = {**CODE, "energy": energy(network=spec(MLPEnergy, **_TINY, spectral_norm=True))}

METHODS: dict[str, Case] = {
    "vae": case(VAE, ALL - {HasEnergy}, vae(sigma="learned")),
    "ecvae": case(ECVAE, ALL, vae(kl_weight=0.1), ENERGY, sampler=CHAIN),
    "ecvae with all its options": case(
        ECVAE,
        ALL,
        vae(),
        energy(data_noise=0.1, penalties=[EnergyL2(0.1), GradientPenalty(0.1)]),
        spec(Calibration, rate=0.1),
        sampler=CHAIN,
        vae_steps=5,
        pairs=spec(Pairs, updates=2, memory=150),
        fresh_chains=True,
        grad_clip=1.0,
    ),
    "ecvae with its extensions": case(
        ECVAE,
        ALL,
        vae(prior=spec(FlowPrior, steps=1, width=8), distance=spec(RandomFeatures, width=4)),
        ENERGY,
        sampler=CHAIN,
        posterior=spec(CalibratedPosterior, sampler=Langevin(2, 1e-2), rate=0.1),
    ),
    "cooperative": case(CooperativeVAE, ALL, vae(), ENERGY, sampler=CHAIN),
    "cooperative with all its options": case(
        CooperativeVAE,
        ALL,
        vae(),
        energy(data_noise=0.1),
        sampler=CHAIN,
        refine=DISTANT,
        vae_steps=3,
        pairs=spec(Pairs, updates=2, memory=350),
        grad_clip=1.0,
    ),
    "flow": case(Flow, {BoundsLikelihood, Samples, Scores}, GLOW, levels=17),
    "ecflow with all its options": case(
        ECFlow,
        ALL - {Encodes, Reconstructs},
        GLOW,
        ENERGY,
        levels=17,
        sampler=Langevin(3, 0.1),
        flow_steps=4,
        condition_weight=0.0,
        refine=DISTANT,
        grad_clip=1.0,
    ),
    "bidvl": case(BiDVL, CODED, **CODE_AND_ENERGY),
    "bidvl with all its options": case(
        BiDVL,
        CODED,
        **{**CODE, "energy": energy(contrast="hinge")},
        ratio_bias=True,
        latent="mse",
        offset=False,
        lower_steps=2,
        grad_clip=1.0,
    ),
    "dual-mcmc": case(
        DualMCMC, CODED, **CODE, energy=ENERGY, sampler=Langevin(3, 0.2, 1e-4), latent_sampler=Langevin(2)
    ),
    "dual-mcmc with all its options": case(
        DualMCMC,
        CODED,
        **CODE,
        energy=energy(data_noise=0.1),
        sampler=Langevin(3, 0.2, 1e-4),
        latent_sampler=Langevin(2),
        vae_steps=3,
        z_init="noise",
        pairs=spec(Pairs, updates=2, memory=350),
        fresh_chains=True,
        grad_clip=1.0,
    ),
    "denoising ebm": case(DenoisingEBM, CODED, spec(MLPDenoiser, **_TINY), CODE["decoder"], latent_dim=4, **LADDER),
    "denoising ebm with all its options": case(
        DenoisingEBM,
        CODED,
        spec(MLPDenoiser, **_TINY),
        CODE["decoder"],
        latent_dim=4,
        **LADDER,
        code_weight=1.0,
        contrast_every=2,
        contrast_start=3,
        contrast_sigma=0.4,
        chains=50,
        kernel="residual",
        denoise_sigma=0.1,
        texture_refine=AnnealedLangevin(4, 0.1, sigma_end=0.1),
        grad_clip=1.0,
    ),
    "vaebm": case(VAEBM, ALL, vae(), ENERGY, sampler=Langevin(3, 1e-2), rests="vae"),
    "vaebm, persistent, from its VAE on": case(
        VAEBM,
        ALL,
        vae(),
        ENERGY,
        sampler=Langevin(3, 1e-2),
        vae_steps=4,
        kl_warmup=3,
        buffer=700,
        replay_ramp=3,
        decoder_optimizer=spec(Adam, lr=1e-4),
        grad_clip=1.0,
    ),
    "vaebm, persistent in (x, z)": case(
        VAEBM,
        ALL,
        vae(),
        ENERGY,
        sampler=Langevin(3, 1e-2),
        vae_steps=4,
        space="data",
        negatives="mean",
        buffer=700,
        replay_probability=1.0,
        replay_ramp=0,
        replay_x=True,
    ),
    "ebm": case(EBM, {HasEnergy, Samples, Scores}, energy(data_noise=0.1), sampler=IGEBM, buffer=700, grad_clip=1.0),
    "wgan": case(WGAN, ALL, vae(), energy(penalties=[LipschitzPenalty(1.0)]), critic_steps=2),
    "wgan, the decoder alone": case(WGAN, ALL, vae(), ENERGY, elbo_weight=0.0),
    "gan": case(GAN, {Samples}, CODE["decoder"], ENERGY, latent_dim=4, discriminator_steps=2),
}

# Of laws that repeat whole trainings these two are quick: networks that learn in turn, and chains that are kept.
QUICK = ("ecvae with all its options", "vaebm, persistent in (x, z)")
MOST_SLOW = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


def seeded(name: str) -> Method:
    """A method of the list, with the same weights at every call."""
    torch.manual_seed(0)
    return METHODS[name]()


def state(trainer: Any) -> dict[str, torch.Tensor]:
    """Everything that training changes, as one flat dictionary of tensors."""
    method = trainer.lightning_module
    found = {f"model.{name}": value for name, value in method.state_dict().items()}
    for index, optimizer in enumerate(trainer.optimizers):
        for parameter, slots in optimizer.state_dict()["state"].items():
            found.update({f"optimizer{index}.{parameter}.{k}": v for k, v in slots.items()})
        rates = [group["lr"] for group in optimizer.param_groups]
        found[f"optimizer{index}.lr"] = torch.tensor(rates, dtype=torch.float64)
    for name, buffer in kept(method).items():
        found.update({f"{name}{i}": leaf for i, leaf in enumerate(buffer.leaves)})
    for average in (one for one in trainer.callbacks if isinstance(one, EMA)):
        found.update({f"ema.{name}": value for name, value in average.averages.items()})
    found["rng"] = torch.get_rng_state()
    return found


def kept(method: Method) -> dict[str, Any]:
    """The buffers of a method that keep pairs and chains."""
    found = {
        "pairs": getattr(getattr(method, "pairs", None), "buffer", None),
        "replay": getattr(method, "replay", None),
    }
    return {name: buffer for name, buffer in found.items() if buffer is not None}


def assert_identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different


def copied(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return copy.deepcopy(found)
