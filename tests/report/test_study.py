"""A study of energies whose answers are known: log Z, moments, mixing, the step size that is found, the page."""

import math
import re

import pytest
import torch

from ebmzoo import HMC, MALA, Langevin, study
from ebmzoo.data import Funnel, Gaussian, ManyWell, Ring
from ebmzoo.mcmc import ReplicaExchange, UnderdampedLangevin, as_noise
from ebmzoo.report.study_result import Study
from tests.methods.cases import METHODS

QUICK = {"steps": 40, "warmup": 40, "temperatures": 0}


LONGER = [pytest.param(one, marks=pytest.mark.thorough) for one in (Funnel(3, scale=1.0), Ring(), ManyWell(4))]


@pytest.mark.parametrize("target", [Gaussian(5), *LONGER], ids=lambda target: type(target).__name__)
def test_log_z_lies_between_its_bounds(target):
    exact, temperatures = target.sample(400, as_noise(1)), 20 if isinstance(target, Gaussian) else 100
    found = study(target, (64, target.dim), steps=8, warmup=60, exact=exact, temperatures=temperatures)
    assert found.log_z.lower < target.log_z < found.log_z.upper < found.log_z.lower + 0.5
    if target.dim == 2:
        assert found.lattice_log_z == pytest.approx(target.log_z, abs=1e-2)


def test_without_exact_samples_there_is_no_upper_bound():
    found = study(Ring(), (64, 2), steps=30, warmup=60, temperatures=10)
    assert found.log_z.lower < Ring().log_z and math.isnan(found.log_z.upper)
    assert found.lattice_log_z == pytest.approx(Ring().log_z, abs=1e-2)
    assert re.search(r"log Z, at most +– +AIS in reverse needs", str(found)) and "log Z ≥ " in repr(found)


@pytest.mark.parametrize("sampler", [HMC(jitter=0.5), MALA(), UnderdampedLangevin(), ReplicaExchange(jitter=0.5)])
def test_chains_on_a_gaussian_mix_and_have_its_moments(sampler):
    target = Gaussian(2, condition=2.0)
    found = study(target, (200, 2), sampler, steps=200, warmup=100, temperatures=0)
    assert found.rhat < 1.1 and 400 < found.ess < 40_000 and found.log_z is None
    assert found.energies.shape == (200, 200) and found.draws.shape == (101, 200, 2)
    assert torch.equal(found.samples, found.draws[-1])
    states = found.draws.flatten(0, 1)
    assert (states.var(0) / target.variance - 1).abs().max() < 0.15
    assert (found.acceptance is None) == (not sampler.adjusted)
    assert len(found.swap_rates) == (3 if isinstance(sampler, ReplicaExchange) else 0)


def test_modes_that_no_chain_leaves_are_seen():
    wells = lambda x: 100 * (x.square() - 1).square().sum(1)  # noqa: E731
    found = study(wells, (64, 1), **QUICK)
    assert found.rhat > 1.5 and "not mixed" in str(found)


def test_the_step_size_is_found_or_kept():
    target, start = Gaussian(20, condition=1.0), (200, 20)
    tuned = study(target, start, MALA(step_size=1e-3), steps=40, warmup=300, temperatures=0)
    assert tuned.acceptance == pytest.approx(0.574, abs=0.05)
    unadjusted = study(target, start, Langevin(step_size=1e-3), steps=40, warmup=300, temperatures=0).sampler.step_size
    as_adjusted = study(target, start, MALA(step_size=unadjusted), tune=False, **QUICK)
    assert as_adjusted.sampler.step_size == unadjusted
    assert as_adjusted.acceptance == pytest.approx(0.99, abs=0.005)


def test_the_auroc_is_that_of_two_exponentials():
    # U of N(0, I) and of N(0, 9 I) under it, in the plane, are exponential with means 1 and 9.
    target, draws = Gaussian(2, condition=1.0), as_noise(5)
    exact, outside = target.sample(4000, draws), 3 * target.sample(4000, draws)
    found = study(target, (8, 2), exact=exact, outside=outside, **QUICK)
    assert found.auroc == pytest.approx(9 / 10, abs=0.015)


def test_a_temperature_is_of_the_density():
    hot = study(Gaussian(2, condition=1.0), (64, 2), HMC(temperature=4.0), steps=100, warmup=50, temperatures=50)
    assert hot.lattice_log_z == pytest.approx(math.log(8 * math.pi), abs=1e-2)
    assert hot.samples.var().item() == pytest.approx(4, rel=0.4)


def test_a_method_begins_where_it_begins_and_is_its_log_density():
    model = METHODS["ebm"]()
    found = study(model, **QUICK)
    assert found.draws.shape == (41, 64, *model.image_shape) and all(p.grad is None for p in model.parameters())
    x = found.samples[:5]
    torch.testing.assert_close(found.potential(x), -model.log_density(x))


def test_the_same_seed_gives_the_same_study():
    one, other = (study(Ring(), (8, 2), noise=3, **QUICK) for _ in range(2))
    assert torch.equal(one.draws, other.draws) and one.rhat == other.rhat


def test_what_cannot_be_studied_is_refused():
    ring, x = Ring(), torch.randn(8, 2)
    for message, call in {
        "where its chains begin": lambda: study(ring),
        "at T > 0": lambda: study(ring, (8, 2), Langevin(temperature=0)),
        "8 steps": lambda: study(ring, (8, 2), steps=2),
        "2 temperatures or more, or none": lambda: study(ring, (8, 2), temperatures=1),
        "VAE has no log-density": lambda: study(METHODS["vae"]()),
        "such as HMC": lambda: study(ring, (8, 2), "MALA"),
        "an energy is a function or a module": lambda: study(Ring, (8, 2)),
        r"two of them or more, not at \(1, 2\)": lambda: study(ring, (1, 2)),
        r"exact samples have the shape \(n, 2\), not \(50, 5\)": lambda: study(ring, x, exact=torch.randn(50, 5)),
        r"the other set have the shape \(n, 2\), not \(9,\)": lambda: study(ring, x, outside=torch.randn(9)),
        "40 exact samples or more, not 3": lambda: study(ring, x, exact=x[:3]),
        r"cannot be taken at x \(8, 2\): IndexError: ": lambda: study(lambda x: x[:, 7], x),
        "cannot be taken .* does not require grad": lambda: study(lambda x: torch.zeros(len(x)), x),
        "not finite where 8 of 8 chains begin": lambda: study(lambda x: x.sum(1) / 0.0, x),
        "another each time": lambda: study(lambda x: x.sum(1) + torch.randn(len(x)), x),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_a_module_is_taken_in_eval_mode_and_left_as_it_was():
    network = torch.nn.Sequential(torch.nn.Dropout(0.5), Square()).train()
    found = study(network, (8, 2), **QUICK)
    assert network.training and network[0].training
    assert found.lattice_log_z == pytest.approx(math.log(math.pi), abs=0.01)


class Square(torch.nn.Module):
    def forward(self, x):
        return x.square().sum(1)


def test_what_a_lattice_or_samples_of_another_density_cannot_tell_is_said():
    def narrow(x, far=10.0, width=0.01):
        return -torch.logaddexp(*(-((x - shift).square().sum(1)) / (2 * width**2) for shift in (far, -far)))

    start = torch.cat([torch.full((4, 2), 10.0), torch.full((4, 2), -10.0)])
    found = study(narrow, start, HMC(step_size=1e-5), **QUICK)
    assert found.lattice_log_z is None and "its spacing is too wide" in str(found)
    target = Gaussian(2, condition=1.0)
    found = study(target, (8, 2), exact=30 * target.sample(100, as_noise(0)), **{**QUICK, "temperatures": 10})
    assert found.log_z.lower > found.log_z.upper and "its bounds cross" in str(found)


def test_a_plain_has_a_page(tmp_path):
    found = study(lambda x: 0 * x.sum(1), (8, 2), **QUICK)
    assert "<svg" in found.save(tmp_path / "plain.html").read_text()
    assert found.lattice_log_z is None


def test_the_page_holds_what_was_found(tmp_path):
    target = Ring()
    found = study(target, (8, 2), exact=target.sample(100, as_noise(0)), outside=torch.randn(50, 2), **QUICK)
    assert isinstance(found, Study)
    text = found.save(tmp_path / "new" / "ring.html", "A <ring>", "ebmzoo study --energy x:y").read_text()
    assert "A &lt;ring&gt;" in text and "ebmzoo study --energy x:y" in text
    for name, value, _ in found.rows():
        assert f">{name}</th><td>{value}</td>" in text
    assert text.count("<circle") == 8 * 41 and text.count("<svg") == 3
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    images = study(lambda x: x.flatten(1).square().sum(1), (4, 1, 8, 8), **QUICK)
    assert images.save(tmp_path / "images.html").read_text().count("data:image/png") == 1
    with pytest.raises(ValueError, match=r"ending in \.html"):
        found.save(tmp_path / "ring.png")
