"""BatchNorm in what samples begin with has, the statistics of prior draws."""

import pytest
import torch

import ebmzoo
from ebmzoo.callbacks import EMA, averaged_weights
from ebmzoo.factories import spec
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import ECVAE, GAN, VAE, VAEBM, WGAN, BiDVL, CooperativeVAE, DualMCMC
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE
from ebmzoo.parts.statistics import normalising_by, running_statistics

from .conftest import quiet_trainer

SHAPE = (1, 4, 4)
DECODER = spec(MLPDecoder, width=6, depth=2, norm="batch")
CODE = {"encoder": spec(MLPEncoder, width=6, depth=1), "decoder": DECODER, "latent_dim": 3}
OWN = spec(GaussianVAE, **CODE, sigma=0.3)
ENERGY = spec(MLPEnergy, width=6, depth=1)
CHAIN = Langevin(2, 0.1, 1e-3)
METHODS = {
    "vae": lambda: VAE(SHAPE, OWN),
    "ecvae": lambda: ECVAE(SHAPE, OWN, ENERGY, sampler=CHAIN),
    "cooperative": lambda: CooperativeVAE(SHAPE, OWN, ENERGY, sampler=CHAIN),
    "wgan": lambda: WGAN(SHAPE, OWN, ENERGY),
    "gan": lambda: GAN(SHAPE, DECODER, ENERGY, latent_dim=3),
    "bidvl": lambda: BiDVL(SHAPE, **CODE, energy=ENERGY),
    "dual_mcmc": lambda: DualMCMC(SHAPE, **CODE, energy=ENERGY, sampler=CHAIN, latent_sampler=CHAIN),
}


def decoder_of(model):
    return model.generator if isinstance(model, GAN) else model.vae.decoder


def trained(model, path, callbacks=()):
    """A few iterations on noise: running statistics that are of no prior draws, and averages behind the weights."""
    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(2 * torch.rand(80, *SHAPE) - 1, batch_size=8)
    trainer = quiet_trainer(max_steps=10, default_root_dir=path, callbacks=[*callbacks])
    trainer.fit(model, data)
    return trainer


def copies(statistics):
    return {name: value.clone() for name, value in statistics.items()}


@pytest.mark.parametrize("name", METHODS)
def test_they_are_those_of_the_decoder_on_prior_draws(name, tmp_path):
    torch.manual_seed(1)
    model = METHODS[name]()
    trained(model, tmp_path)
    model.eval()
    before = copies(model.state_dict())
    model.refit_statistics()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    first, own, _, second, norm = decoder_of(model).net[:5]
    with torch.no_grad(), normalising_by(model, model.of_draws):
        z = torch.randn(40_000, 3, generator=torch.Generator().manual_seed(2))
        of_first = first(z)
        of_second = second(decoder_of(model).net[:3](z))
        # Of 1,280 draws: the mean's standard error is 0.028 standard deviations, the variance's 4%.
        for layer, drawn in ((own, of_first), (norm, of_second)):
            mean, variance = drawn.mean(0), drawn.var(0)
            assert ((layer.running_mean - mean).abs() < 0.15 * variance.sqrt()).all()
            assert ((layer.running_var / variance - 1).abs() < 0.25).all()
    assert model.statistics == "1,280 prior draws"


def test_those_of_the_first_layer_are_exact():
    """What enters it is linear in z: its mean and variance are those of the 20 batches that seed 0 draws."""
    model = METHODS["vae"]()
    model.refit_statistics()
    noise = as_noise(0)
    entered = [model.vae.decoder.net[0](noise.normal((64, 3), torch.empty(0))).detach() for _ in range(20)]
    found = [model.of_draws[f"vae.decoder.net.1.running_{kind}"] for kind in ("mean", "var")]
    torch.testing.assert_close(found[0], torch.stack([x.mean(0) for x in entered]).mean(0))
    torch.testing.assert_close(found[1], torch.stack([x.var(0) for x in entered]).mean(0))


def test_they_are_the_same_at_every_call_and_move_no_random_numbers():
    model = METHODS["ecvae"]()
    before = torch.random.get_rng_state()
    model.train()
    model.refit_statistics()
    once = model.of_draws
    model.refit_statistics()
    assert once and all(torch.equal(value, once[name]) for name, value in model.of_draws.items())
    assert torch.equal(before, torch.random.get_rng_state()) and all(part.training for part in model.modules())


def test_nothing_happens_without_such_layers_or_where_samples_begin_elsewhere():
    plain = spec(GaussianVAE, **{**CODE, "decoder": spec(MLPDecoder, width=6, depth=2)})
    for model in (VAE(SHAPE, plain), VAEBM(SHAPE, OWN, ENERGY, sampler=CHAIN, refine=CHAIN)):
        model.refit_statistics()
        assert (model.of_draws, model.statistics) == ({}, None)


def test_samples_begin_with_them_and_reconstructions_keep_the_trainings(tmp_path):
    model = METHODS["vae"]()
    trainer = trained(model, tmp_path)
    x = torch.zeros(3, *SHAPE)
    own, rebuilt, held = model.sample(5, noise=3), model.reconstruct(x), copies(running_statistics(model))
    with averaged_weights(trainer, model):
        sampled = model.sample(5, noise=3)
        assert torch.equal(model.reconstruct(x), rebuilt) and not torch.equal(sampled, own)
        with normalising_by(model, model.of_draws):  # as if the whole model had them
            assert torch.equal(model.decode(model.draw_latents(5, as_noise(3), x)), sampled)
    assert torch.equal(model.sample(5, noise=3), own)
    assert all(torch.equal(value, held[name]) for name, value in running_statistics(model).items())


def test_a_training_that_goes_on_does_so_with_its_own(tmp_path):
    model = METHODS["cooperative"]()
    model.refit_statistics()
    trained(model, tmp_path)
    assert (model.of_draws, model.statistics) == ({}, None)


@pytest.mark.parametrize("ema", [True, False])
def test_checkpoints_and_exports_give_the_samples_that_were_measured(ema, tmp_path):
    model = METHODS["ecvae"]()
    trainer = trained(model, tmp_path, [EMA(0.9)] if ema else [])
    with averaged_weights(trainer, model) as active:
        assert active == ema and model.statistics
        measured = model.sample(5, noise=3)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = ebmzoo.load(tmp_path / "x.ckpt")
    ebmzoo.export(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    ebmzoo.export(again, tmp_path / "y.safetensors")
    for one in (again, ebmzoo.load(tmp_path / "x.safetensors"), ebmzoo.load(tmp_path / "y.safetensors")):
        assert torch.equal(one.sample(5, noise=3), measured)
        assert one.statistics == "1,280 prior draws"
