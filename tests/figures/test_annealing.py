import math

import pytest
import torch

from ebmzoo.data.densities import GaussianMixture
from ebmzoo.factories import spec
from ebmzoo.figures.annealing import Annealing, annealed_bracket, white_gaussian
from ebmzoo.figures.likelihood import Bounds, base_log_partition
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import VAEBM
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from ..callbacks.fakes import Images, Tiny, measured

WIDEST = {2: 0.1, 20: 3.0}  # nats, by dimension
TEMPERATURES = {2: 160, 20: 320}  # more of them narrow a bracket


def ring(dim):
    """Four unequal-sided corners, widths 0.5, in the first two dimensions; the rest is a Gaussian there too."""
    means = torch.zeros(4, dim)
    means[:, :2] = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.5], [0.0, -2.5]])
    return GaussianMixture(means, std=0.5)


def stretched(dim):
    scale = torch.linspace(0.3, 1.5, dim)

    def log_density(x):
        return -0.5 * ((x - 0.5) / scale).square().sum(1)

    def sample(n, generator):
        return 0.5 + scale * torch.randn(n, dim, generator=generator)

    return log_density, sample, scale.log().sum().item() + dim / 2 * math.log(2 * math.pi)


def brackets(kind, dim, seeds):
    """How many brackets hold the truth, and the widest of them."""
    mean, std = torch.zeros(dim), torch.full((dim,), 1.5)
    if kind == "gaussian":
        log_density, sample, truth = stretched(dim)
    else:
        density, truth = ring(dim), 2.0
        sample = density.sample

        def log_density(x):
            return density.log_prob(x) + 2.0

    held, widths = [], []
    for seed in seeds:
        exact = (sample(2000, torch.Generator().manual_seed(seed)) - mean) / std
        potential = white_gaussian(log_density, mean, std)
        settings = {"temperatures": TEMPERATURES[dim], "leapfrogs": 3}
        found = annealed_bracket(potential, [(dim,)], as_noise(seed), [exact], **settings)
        held.append(found.lower <= truth <= found.upper)
        widths.append(found.upper - found.lower)
        assert found.acceptance > 0.6
    return sum(held), max(widths)


@pytest.mark.parametrize(("kind", "dim"), [pytest.param("gaussian", 20, marks=pytest.mark.thorough), ("mixture", 2)])
def test_brackets_hold_the_truth(kind, dim):
    held, width = brackets(kind, dim, range(1))
    assert held == 1 and width < WIDEST[dim]


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 20])
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_brackets_hold_the_truth_in_19_of_20_seeds(kind, dim):
    held, width = brackets(kind, dim, range(20))
    assert held >= 19 and width < WIDEST[dim], (held, width)


def test_without_exact_samples_there_is_no_upper_bound():
    found = annealed_bracket(lambda u: u.sum(1) * 0 + 3, [(2,)], as_noise(0), chains=40, temperatures=3)
    assert found.lower == pytest.approx(-3, abs=1e-6) and math.isnan(found.upper)


@pytest.mark.thorough
def test_long_chains_stand_in_for_exact_samples():
    density = ring(2)
    potential = white_gaussian(lambda x: density.log_prob(x) + 2, torch.zeros(2), torch.full((2,), 1.5))
    found = annealed_bracket(potential, [(2,)], as_noise(0), temperatures=80, leapfrogs=3, long_chains=20)
    assert found.lower <= 2 <= found.upper and found.upper - found.lower < 0.1


def test_several_leaves_are_one_state():
    # E[exp(−(a² + b²))] over two independent white leaves of one and two dimensions is 3^(−3/2).
    found = annealed_bracket(
        lambda a, b: a.square().sum(1) + b.square().sum(1), [(1,), (2,)], as_noise(1), temperatures=60
    )
    assert -0.1 < found.lower + 1.5 * math.log(3) < 0


def test_one_chain_in_a_hundred_steps_is_recorded_no_less_exactly():
    """A network as the potential, recorded or not: its bracket is that of the same numbers."""
    torch.manual_seed(0)
    energy = MLPEnergy((2,), width=8).double()
    like, settings = torch.empty(0).double(), {"chains": 40, "temperatures": 60, "networks": [energy]}
    one = annealed_bracket(energy, [(2,)], as_noise(0), like=like, **settings)
    other = annealed_bracket(lambda u: energy(u), [(2,)], as_noise(0), like=like, **settings)
    assert one.lower == pytest.approx(other.lower, rel=1e-9) and one.acceptance == other.acceptance
    white = as_noise(1).normal((200_000, 2), like)
    assert one.lower < (-energy(white)).logsumexp(0).item() - math.log(200_000) + 0.01


def test_networks_stay_as_they_are():
    torch.manual_seed(0)
    energy = MLPEnergy((2,), width=8, spectral_norm=True).train()
    before = {name: value.clone() for name, value in energy.state_dict().items()}
    annealed_bracket(energy, [(2,)], as_noise(0), chains=20, temperatures=3, networks=[energy])
    assert energy.training and all(torch.equal(before[name], value) for name, value in energy.state_dict().items())


def test_what_a_user_can_get_wrong():
    with pytest.raises(ValueError, match="AIS needs 20 chains and 2 temperatures or more, not 5 and 10"):
        annealed_bracket(lambda u: u.sum(1), [(2,)], as_noise(0), chains=5, temperatures=10)
    with pytest.raises(ValueError, match="40 backward chains need as many samples to start from, not 3"):
        annealed_bracket(lambda u: u.sum(1), [(2,)], as_noise(0), [torch.zeros(3, 2)], chains=40)


def test_annealed_bounds_of_a_vaebm(tmp_path):
    torch.manual_seed(0)
    vae = spec(GaussianVAE, encoder=spec(MLPEncoder), decoder=spec(MLPDecoder), latent_dim=2, sigma=0.5)
    method = VAEBM((1, 8, 8), vae, MLPEnergy)
    found, _, _ = measured(tmp_path, method, figures=[Bounds(), Annealing(4)])
    log_z = base_log_partition(method.energy(method.base_sample(4000, noise=1)).detach())
    assert found["log_z_ais_lower"] < log_z.value < found["log_z_ais_upper_approximate"]
    assert found["log_z_ais_upper_approximate"] - found["log_z_ais_lower"] < 0.1


def test_annealed_bounds_of_an_energy_on_x(tmp_path):
    class Gaussian(Tiny):
        log_likelihood_bound = None

        def log_density(self, x):
            return -4 * (x + 0.5).square().flatten(1).sum(1)

    found, skipped, _ = measured(tmp_path, Gaussian(), figures=[Bounds(), Annealing(40)])
    exact = 32 * math.log(math.pi / 4)
    assert found["log_z_ais_lower"] < exact < found["log_z_ais_upper_approximate"]
    x = Images().reference("test")
    value = Gaussian().log_density(x).mean().item() - found["log_z_ais_lower"]
    assert found["log_likelihood_ais_upper"] == pytest.approx(value, rel=1e-5)
    assert skipped == ["ELBO: Gaussian bounds no likelihood"]


@pytest.mark.parametrize("options", [{"temperatures": 1}, {"n": 1}])
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match="AIS needs temperatures and n of at least 2"):
        Annealing(**options)
