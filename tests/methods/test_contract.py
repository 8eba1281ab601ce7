"""What every method promises: the contract, the clock, determinism, exact resume, rebuilding."""

import copy
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import Adam

from ebmzoo.callbacks import EMA, Evaluate, LastCheckpoint, MonitoredCheckpoint
from ebmzoo.data import Digits
from ebmzoo.mcmc import AnnealedLangevin, Langevin, PerImageNoise, as_noise
from ebmzoo.methods import (
    EBM,
    ECVAE,
    GAN,
    VAE,
    VAEBM,
    WGAN,
    BiDVL,
    BoundsLikelihood,
    CalibratedPosterior,
    DenoisingEBM,
    DualMCMC,
    ECFlow,
    Encodes,
    Flow,
    HasEnergy,
    Reconstructs,
    Samples,
    Scores,
)
from ebmzoo.methods.base import build, plain, spec
from ebmzoo.networks import (
    FlowPrior,
    GaussianVAE,
    Glow,
    MLPDecoder,
    MLPDenoiser,
    MLPEncoder,
    MLPEnergy,
    RandomFeatures,
    VAEBMEnergy,
)

from .conftest import quiet_trainer

SHAPE = (1, 8, 8)
PARTS = {"encoder": spec(MLPEncoder, width=16, depth=1), "decoder": spec(MLPDecoder, width=16, depth=1)}


PROTOCOLS = {BoundsLikelihood, Encodes, HasEnergy, Reconstructs, Samples, Scores}
# What each method of the shelf can do.
CAPABILITIES = {
    BiDVL: PROTOCOLS - {BoundsLikelihood},
    DenoisingEBM: PROTOCOLS - {BoundsLikelihood},
    DualMCMC: PROTOCOLS - {BoundsLikelihood},
    EBM: {HasEnergy, Samples, Scores},
    ECFlow: PROTOCOLS - {Encodes, Reconstructs},
    ECVAE: PROTOCOLS,
    Flow: {BoundsLikelihood, Samples, Scores},
    GAN: {Samples},
    VAE: PROTOCOLS - {HasEnergy},
    VAEBM: PROTOCOLS,
    WGAN: PROTOCOLS,
}


def vae():
    return VAE(SHAPE, **PARTS, latent_dim=4)


def ecvae(**settings):
    return ECVAE(SHAPE, **PARTS, energy=spec(MLPEnergy, width=16, depth=1), latent_dim=4, **settings)


def bidvl(**settings):
    return BiDVL(
        SHAPE, **PARTS, energy=spec(MLPEnergy, width=16, depth=1, spectral_norm=True), latent_dim=4, **settings
    )


def vaebm(**settings):
    base = spec(GaussianVAE, **PARTS, latent_dim=4, sigma=0.3)
    return VAEBM(SHAPE, base, spec(MLPEnergy, width=16, depth=1), sampler=Langevin(3, 1e-2), **settings)


def ebm(**settings):
    chain = Langevin(3, 2.0, 5e-5, grad_clamp=0.1, bounds=(-1.2, 1.2), noise_first=True)
    return EBM(SHAPE, spec(MLPEnergy, width=16, depth=1), sampler=chain, **settings)


def wgan(**settings):
    base = spec(GaussianVAE, **PARTS, latent_dim=4, sigma=0.3)
    return WGAN(SHAPE, base, spec(MLPEnergy, width=16, depth=1), **settings)


def gan(**settings):
    return GAN(SHAPE, PARTS["decoder"], spec(MLPEnergy, width=16, depth=1), latent_dim=4, **settings)


def dual_mcmc(**settings):
    chains = {"sampler": Langevin(3, 0.2, 1e-4), "latent_sampler": Langevin(2)}
    return DualMCMC(SHAPE, **PARTS, energy=spec(MLPEnergy, width=16, depth=1), latent_dim=4, **{**chains, **settings})


def denoising_ebm(**settings):
    denoiser = spec(MLPDenoiser, width=16, depth=1)
    steps = {"semantic_sampler": AnnealedLangevin(2, 0.2), "texture_sampler": AnnealedLangevin(3, 0.1)}
    return DenoisingEBM(SHAPE, denoiser, PARTS["decoder"], latent_dim=4, **steps, **settings)


GLOW = spec(Glow, levels=2, steps=1, width=4)


def flow():
    return Flow(SHAPE, GLOW, levels=17)


def ecflow(**settings):
    return ECFlow(SHAPE, GLOW, spec(MLPEnergy, width=16, depth=1), levels=17, sampler=Langevin(3, 0.1), **settings)


METHODS = {
    "vae": vae,
    "ecvae": ecvae,
    "ecvae with all its options": lambda: ecvae(
        vae_steps=5, decoder_steps=2, pair_memory=150, fresh_chains=True, data_noise=0.1, grad_clip=1.0
    ),
    "ecvae with its extensions": lambda: ecvae(
        prior=spec(FlowPrior, steps=1, width=8),
        posterior=spec(CalibratedPosterior, sampler=Langevin(2, 1e-2), dual_rate=0.1),
        distance=spec(RandomFeatures, width=4),
    ),
    "flow": flow,
    "ecflow with all its options": lambda: ecflow(
        flow_steps=4, condition_weight=0.0, refine=Langevin(2, 0.1), grad_clip=1.0
    ),
    "bidvl": bidvl,
    "bidvl with all its options": lambda: bidvl(
        ratio_bias=True, latent="mse", offset=False, upper="hinge", lower_steps=2, grad_clip=1.0
    ),
    "dual-mcmc": dual_mcmc,
    "dual-mcmc with all its options": lambda: dual_mcmc(
        z_init="noise", generator_steps=2, pair_memory=350, fresh_chains=True, data_noise=0.1, grad_clip=1.0
    ),
    "denoising ebm": denoising_ebm,
    "denoising ebm with all its options": lambda: denoising_ebm(
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
    "vaebm": vaebm,
    "vaebm, persistent, from its VAE on": lambda: vaebm(
        vae_steps=4, kl_warmup=3, buffer=700, replay_ramp=3, decoder_optimizer=spec(Adam, lr=1e-4), grad_clip=1.0
    ),
    "vaebm, persistent in (x, z)": lambda: vaebm(
        vae_steps=4, space="data", negatives="mean", buffer=700, replay_probability=1.0, replay_ramp=0, replay_x=True
    ),
    "ecvae, cooperative": lambda: ecvae(bound_on="revised", decoder_steps=2, calibration_weight=0, dual_rate=0),
    "ebm": lambda: ebm(buffer=700, data_noise=0.1, grad_clip=1.0),
    "wgan": lambda: wgan(critic_steps=2, gradient_penalty=1.0),
    "wgan, the decoder alone": lambda: wgan(elbo_weight=0.0),
    "gan": lambda: gan(discriminator_steps=2),
}


# Of laws that repeat whole trainings these two are quick: networks that learn in turn, and chains that are kept.
QUICK = ("ecvae with all its options", "vaebm, persistent in (x, z)")
MOST_SLOW = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]


@pytest.fixture(params=METHODS, ids=str)
def name(request):
    return request.param


@pytest.fixture
def make(name):
    return partial(seeded, name)


def seeded(name):
    torch.manual_seed(0)
    return METHODS[name]()


def state(trainer):
    """Everything that training changes, as one flat dictionary of tensors."""
    method = trainer.lightning_module
    found = {f"model.{name}": value for name, value in method.state_dict().items()}
    for index, optimizer in enumerate(trainer.optimizers):
        for parameter, slots in optimizer.state_dict()["state"].items():
            found.update({f"optimizer{index}.{parameter}.{k}": v for k, v in slots.items()})
    if getattr(method, "pairs", None) is not None:
        found.update({f"pairs{i}": leaf for i, leaf in enumerate(method.pairs.leaves)})
    if getattr(method, "replay", None) is not None:
        found.update({f"replay{i}": leaf for i, leaf in enumerate(method.replay.leaves)})
    for average in (one for one in trainer.callbacks if isinstance(one, EMA)):
        found.update({f"ema.{name}": value for name, value in average.averages.items()})
    found["rng"] = torch.get_rng_state()
    return found


def assert_identical(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different


def test_an_image_does_not_depend_on_its_batch(make):
    method = make().eval()
    with torch.no_grad():
        together = method.sample(4, noise=PerImageNoise.of_rows(0, range(4)))
        alone = method.sample(1, noise=PerImageNoise.of_rows(0, [2]))
    assert (together[2] - alone[0]).abs().max() <= 1e-5 < (together[2] - together[1]).abs().max()


def test_contract(make):
    method = make().eval()
    x = torch.rand(5, *SHAPE) * 2 - 1
    assert {protocol for protocol in PROTOCOLS if isinstance(method, protocol)} == CAPABILITIES[type(method)]
    assert method.sample(3, noise=1).shape == (3, *SHAPE)
    assert torch.equal(method.sample(3, noise=1), method.sample(3, noise=1))
    assert not method.sample(3, noise=1).requires_grad
    if isinstance(method, Scores):
        assert method.score(x).shape == (5,)
        # Neither its place in the batch nor the others decide an example's score.
        torch.testing.assert_close(method.score(x.flip(0)).flip(0)[1:3], method.score(x[1:3]), rtol=1e-4, atol=1e-4)
    if isinstance(method, Encodes):
        assert [part.shape for part in method.encode(x)] == [(5, 4), (5, 4)]
    if isinstance(method, Reconstructs):
        assert method.reconstruct(x).shape == x.shape
    if not isinstance(method, BoundsLikelihood):
        return
    one, many = (method.log_likelihood_bound(x, samples, noise=0).mean() for samples in (1, 200))
    assert many > one


STEPS = 16  # five an epoch
# After an epoch, at an epoch's last step, in the middle of an epoch, and on to the end.
STOPS = [({"max_epochs": 1}, 5), ({"max_steps": 10}, 10), ({"max_steps": 12}, 12), ({"max_steps": STEPS}, STEPS)]
RARELY = {"log_every_n_steps": 4}  # a third of such a small step is Lightning's logging


@cache
def whole(name):
    """The state after a training that nothing interrupts, and its two clocks; not to be changed."""
    trainer = quiet_trainer(max_steps=STEPS, callbacks=[EMA(decay=0.9)], **RARELY)
    method = seeded(name)
    torch.manual_seed(7)
    trainer.fit(method, Digits(batch_size=300))
    return copy.deepcopy(state(trainer)), trainer.global_step, trainer.fit_loop.epoch_loop.total_batch_idx


def test_one_training_step_is_one_clock_step(name):
    _, clock, index = whole(name)
    assert clock == STEPS
    assert index + 1 == STEPS


@pytest.mark.parametrize("name", MOST_SLOW)  # what follows needs it of all of them
def test_the_same_seed_twice_is_identical(name):
    assert_identical(whole(name)[0], whole.__wrapped__(name)[0])


def test_stopping_and_resuming_changes_nothing(name, tmp_path):
    def run(settings, checkpoint=None):
        method = seeded(name)
        saver = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=settings.get("max_steps"))
        trainer = quiet_trainer(**settings, **RARELY, callbacks=[EMA(decay=0.9), saver], enable_checkpointing=True)
        torch.manual_seed(7 if checkpoint is None else 99)  # whatever a new process did before
        trainer.fit(method, Digits(batch_size=300), ckpt_path=checkpoint)
        return trainer

    stopped = None
    for settings, steps in STOPS:
        trainer = run(settings, stopped)
        assert trainer.global_step == steps
        stopped = (tmp_path / "last.ckpt").rename(tmp_path / f"{steps}.ckpt")
    assert_identical(whole(name)[0], state(trainer))


@pytest.mark.parametrize(
    "name",
    [
        "ecvae",
        "vaebm",
        *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name not in ("ecvae", "vaebm")),
    ],
)
def test_what_monitors_read_survives_a_resume(name, tmp_path):
    """Inside an epoch, before a validation and after one: the figures, and which of them is kept as the best."""

    def run(folder, steps, checkpoint=None):
        last = LastCheckpoint(folder / "last.ckpt")
        best = MonitoredCheckpoint(dirpath=folder, filename="{step}", monitor="val/fid_20")
        figures = Figures("val/fid_20")
        callbacks = [Evaluate(n_val=20), figures, best, last]
        trainer = quiet_trainer(
            max_steps=steps,
            val_check_interval=4,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            **RARELY,
            callbacks=callbacks,
            enable_checkpointing=True,
        )
        method = seeded(name)
        torch.manual_seed(7 if checkpoint is None else 99)
        trainer.fit(method, Digits(batch_size=300), ckpt_path=checkpoint)
        return figures.seen, best

    whole, kept = run(tmp_path / "whole", 12)
    seen = {}
    cut, stopped = tmp_path / "cut", None
    for steps in (7, 9, 12):
        more, best = run(cut, steps, stopped)
        stopped, seen = cut / "last.ckpt", seen | more
    # Each training has a figure of its end besides; those that both have are the same.
    assert list(whole) == [4, 8, 12] and list(seen) == [4, 7, 8, 9, 12]
    assert {step: seen[step] for step in whole} == whole
    for saver, figures in ((kept, whole), (best, seen)):
        assert float(saver.best_model_score) == min(figures.values())
        assert Path(saver.best_model_path).name == f"step={min(figures, key=figures.get)}.ckpt"


class Figures(Callback):
    """Notes what monitors see after each validation."""

    def __init__(self, name):
        self.name, self.seen = name, {}

    def on_validation_end(self, trainer, pl_module):
        self.seen[trainer.global_step] = float(trainer.callback_metrics[self.name])


def test_checkpoints_hold_tensors_and_primitives_only(make, tmp_path):
    trainer = quiet_trainer(max_steps=2)
    trainer.fit(make(), Digits(batch_size=300))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint["ebmzoo"]["class_path"].startswith("ebmzoo.methods.")
    parts = checkpoint["hyper_parameters"]
    parts = (parts.get("vae") or {}).get("init_args", parts)
    named = {"decoder": "MLPDecoder", "generator": "MLPDecoder", "encoder": "MLPEncoder", "energy": "MLPEnergy"}
    found = {name: parts[name]["class_path"] for name in named if name in parts}
    assert found == {name: f"ebmzoo.networks.mlp.{named[name]}" for name in found}
    assert found or parts["flow"]["class_path"] == "ebmzoo.networks.flow.Glow"


def test_hyper_parameters_are_plain_data_that_can_be_built_again():
    sampler = Langevin(3, 0.2, bounds=(-1, 1))
    method = ECVAE(SHAPE, MLPEncoder, MLPDecoder, MLPEnergy, sampler=sampler)
    stored = method.hparams["sampler"]
    assert stored["init_args"]["bounds"] == [-1, 1]
    rebuilt = build(stored)
    assert plain(rebuilt) == stored and isinstance(rebuilt, Langevin)
    assert method.hparams["energy_optimizer"]["init_args"] == {"lr": 1e-4, "betas": [0.0, 0.9]}
    free = ECVAE(SHAPE, lambda shape, d: MLPEncoder(shape, d), MLPDecoder, MLPEnergy)
    assert "callable" in free.hparams["encoder"]


def test_ecvae_samples_one_step_or_with_a_chain():
    torch.manual_seed(0)
    method = ecvae(sampler=Langevin(3, 0.5, 1e-2), refine=None).eval()
    assert method.test_sampler() == (None, 0)
    start = method.sample(4, noise=0)
    torch.testing.assert_close(start, method.decode(as_noise(0).normal((4, 4))))
    frames = []
    with torch.inference_mode():
        revised = method.sample(4, steps=3, noise=0, callback=lambda step, x, energy: frames.append(x.clone()))
    assert len(frames) == 3 and torch.equal(frames[0], start) and not torch.equal(revised, start)
    chained = ecvae(refine=Langevin(3, 0.5, 1e-2)).eval()
    chained.load_state_dict(method.state_dict())
    assert torch.equal(chained.sample(4, noise=0), revised)
    with pytest.raises(ValueError, match="no chain"):
        vae().sample(1, steps=2)


def test_settings_out_of_range_are_refused():
    for wrong in ({"decoder_steps": 0}, {"dual_margin": 0.0}):
        with pytest.raises(ValueError, match="decoder_steps must be at least 1 and dual_margin positive"):
            ECVAE(SHAPE, MLPEncoder, MLPDecoder, MLPEnergy, **wrong)


@pytest.mark.parametrize("kind", [BiDVL, DualMCMC, EBM, ECVAE, WGAN], ids=lambda kind: kind.__name__)
def test_an_energy_takes_its_first_scales_from_the_first_batch(kind):
    energy = spec(VAEBMEnergy, column="stacked_mnist", width=4)
    networks = {EBM: (energy,), WGAN: (spec(GaussianVAE, **PARTS, latent_dim=4), energy)}
    method = kind(SHAPE, *networks.get(kind, (*PARTS.values(), energy)))
    expected = copy.deepcopy(method.energy_network).train()
    batch = torch.randn(6, *SHAPE).clamp(-1, 1)
    expected.initialise(batch)
    taken = []
    method.energy_network.register_forward_pre_hook(
        lambda network, _: taken.append({name: value.clone() for name, value in network.state_dict().items()})
    )
    quiet_trainer(max_steps=1).fit(method, torch.utils.data.DataLoader([batch], batch_size=None))
    # Its own forward of the initialisation is the first; whatever comes next sees the scales of data.
    assert_identical(taken[1], expected.state_dict())


def test_a_flow_takes_its_first_scales_from_data_and_not_from_its_samples(monkeypatch):
    method = ECFlow(SHAPE, spec(Glow, levels=1, steps=1, width=8), MLPEnergy, levels=17, sampler=Langevin(2, 0.1))
    generate, known = method.generate, []

    def watched(*args, **call):
        known.append(bool(method.flow.initialised))
        return generate(*args, **call)

    monkeypatch.setattr(method, "generate", watched)
    quiet_trainer(max_steps=1).fit(method, Digits(batch_size=300))
    assert known[0]


def test_a_schedule_steps_once_an_iteration_and_only_its_player():
    method = ecvae(vae_schedule=spec(torch.optim.lr_scheduler.StepLR, step_size=4, gamma=0.1), decoder_steps=2)
    trainer = quiet_trainer(max_steps=5)
    trainer.fit(method, Digits(batch_size=300))
    assert [group["lr"] for o in trainer.optimizers for group in o.param_groups] == pytest.approx([2e-5, 1e-4])


def test_gradients_are_clipped_to_the_norm_asked_for():
    class Spy(Adam):
        seen: list[float] = []

        def step(self, closure=None):
            super().step(closure)
            grads = [p.grad.norm() for group in self.param_groups for p in group["params"]]
            Spy.seen.append(float(torch.stack(grads).norm()))

    torch.manual_seed(0)
    method = VAE(SHAPE, **PARTS, latent_dim=4, optimizer=lambda p: Spy(p), grad_clip=0.01)
    quiet_trainer(max_steps=3).fit(method, Digits(batch_size=300))
    assert Spy.seen == pytest.approx([0.01] * 3, rel=1e-3)
