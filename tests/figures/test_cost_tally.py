"""Network evaluations by hand: a forward of an example is one, its gradient another, whatever evaluates it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from ebmzoo.figures.cost import Tally
from ebmzoo.mcmc import HMC, MALA, AnnealedLangevin, Langevin, Potential
from ebmzoo.mcmc.backend import _programs
from ebmzoo.mcmc.potential import squared_norm
from ebmzoo.mcmc.program import Program
from ebmzoo.networks import MLPDecoder, MLPDenoiser, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE
from ebmzoo.parts.textures import Semantic, Texture

IMAGE = (1, 8, 8)


@pytest.fixture(autouse=True)
def no_programs():
    _programs.clear()


@pytest.fixture
def model():
    torch.manual_seed(0)
    vae = GaussianVAE(IMAGE, MLPEncoder, MLPDecoder, latent_dim=4)
    return nn.ModuleDict({"vae": vae, "energy": MLPEnergy(IMAGE, width=16)})


class OfMeans(Potential):
    """The energy of what the VAE makes of a code, and white noise."""

    def __init__(self, model):
        super().__init__()
        self.vae, self.energy = model["vae"], model["energy"]

    def tilt(self, z):
        return self.energy(self.vae.generate(z).mean)

    def forward(self, z):
        return self.tilt(z) + 0.5 * squared_norm(z)


def programs():
    return [entry for entry in _programs.values() if isinstance(entry, Program)]


@pytest.mark.parametrize("kind", ["eager", "trace"])
@pytest.mark.parametrize(
    ("sampler", "gradients", "plain"),
    [
        (Langevin(5, 0.1), 5, 0),
        (MALA(5, 0.1), 6, 0),
        (HMC(4, 0.1, leapfrogs=3), 13, 0),
        (MALA(5, 0.1, proposals=3), 6, 4),  # energies alone, of the start and of each proposal
    ],
)
def test_a_chain_costs_the_same_eager_and_recorded(model, sampler, gradients, plain, kind):
    z = torch.randn(3, 4)
    with Tally(model) as tally:
        for times in (1, 2):  # the second time the program is there
            replace(sampler, backend=kind)(OfMeans(model), z, noise=1)
            each = times * 3 * (2 * gradients + plain)
            assert tally.networks == {"vae.decoder": each, "energy": each}
    assert tally.total == 2 * each


@pytest.mark.parametrize("kind", ["eager", "trace"])
def test_chains_at_noise_levels_too(kind):
    torch.manual_seed(0)
    denoiser, decoder = MLPDenoiser(IMAGE, 4, width=8), MLPDecoder(IMAGE, 4, width=8)
    model = nn.ModuleDict({"denoiser": denoiser, "decoder": decoder})
    sampler = AnnealedLangevin(7, 0.1, backend=kind, sigma=0.5, sigma_end=0.2)
    for potential, of_denoiser, of_decoder in (
        (Semantic(denoiser, decoder), 7 * 5 * 2, 7 * 5 * 2),
        (Texture(denoiser), 7 * 5 * 2, 0),
        (Texture(denoiser, "residual"), 7 * 5, 0),  # no gradient goes through it
    ):
        with Tally(model) as tally:
            sampler(potential, torch.randn(5, 4) if of_decoder else torch.randn(5, *IMAGE), noise=0)
        assert (tally.networks["denoiser"], tally.networks.get("decoder", 0)) == (of_denoiser, of_decoder)


def test_training_is_still_recorded_and_a_program_from_before_is_counted_too(model):
    z, sampler = torch.randn(3, 4), Langevin(60, 0.1)
    sampler(OfMeans(model), z, noise=1)
    (before,) = programs()
    with Tally(model) as tally:
        counted = sampler(OfMeans(model), z, noise=1)
        sampler(OfMeans(model), z, noise=1)
    assert tally.total == 2 * 60 * 3 * 2 * 2
    assert torch.equal(sampler(OfMeans(model), z, noise=1).x, counted.x)
    assert programs() == [before]  # recorded once
    assert tally.total == 2 * 60 * 3 * 2 * 2  # no more once it is over


def test_what_is_recorded_while_somebody_counts_is_no_step(model):
    with Tally(model) as tally:
        Langevin(1, 0.1, backend="trace")(OfMeans(model), torch.randn(3, 4), noise=1)
    assert len(programs()) == 1 and tally.networks == {"vae.decoder": 6, "energy": 6}


def test_two_tallies_count_apart(model):
    sampler = Langevin(2, 0.1, backend="trace")
    with Tally(model) as outer:
        sampler(OfMeans(model), torch.randn(3, 4), noise=1)
        with Tally(nn.ModuleDict({"one": model["energy"]})) as inner:
            sampler(OfMeans(model), torch.randn(3, 4), noise=1)
    assert outer.networks == {"vae.decoder": 24, "energy": 24} and inner.networks == {"one": 12}


def test_hooks_of_others_still_forbid_a_program(model):
    model["energy"].register_forward_hook(lambda *_: None)
    with Tally(model) as tally:
        with pytest.raises(ValueError, match="MLPEnergy has hooks"):
            Langevin(2, 0.1, backend="trace")(OfMeans(model), torch.randn(3, 4))
        assert tally.total == 0


def test_forwards_without_a_graph_are_one_and_copies_are_not_counted(model):
    x = torch.randn(7, *IMAGE)
    with Tally(model) as tally:
        twin = copy.deepcopy(model)
        twin["energy"](x)
        assert tally.total == 0
        with torch.no_grad():
            model["energy"](x)
        assert tally.networks == {"energy": 7}
        model["energy"](x)
    assert tally.networks == {"energy": 7 + 14}
    assert not any(part._forward_hooks for part in model.modules())
