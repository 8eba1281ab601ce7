"""What can be computed of a config's numbers is computed: from the set's size, the batch, the chain, the precision."""

import math
from pathlib import Path

import pytest
import yaml

CONFIGS = {path.stem: path for path in (Path(__file__).parent.parent / "configs").glob("*.yaml")}
#: training images, and those of one of them
IMAGES = {"cifar": (50_000, 3_072), "celeba64": (162_770, 12_288), "church64": (126_227, 12_288)}
IMAGES |= {"svhn": (73_257, 3_072), "imagenet32": (1_281_167, 3_072), "stl10": (105_000, 3_072)}
IMAGES |= {"celebahq256": (27_000, 196_608)}


def settings(name):
    return yaml.safe_load(CONFIGS[name].read_text())


def model(name):
    return settings(name)["model"]["init_args"]


def arguments(part):
    return part["init_args"]


def iterations_an_epoch(name):
    return IMAGES[name.rpartition("_")[2]][0] // arguments(settings(name)["data"])["batch_size"]


@pytest.mark.parametrize("which", ["cifar", "celeba64", "church64", "imagenet32", "stl10", "celebahq256"])
def test_the_dual_rate_is_the_released_codes_in_units_of_the_margin(which):
    # The code: lambda += 0.01 (d - 0.05); here lambda += rate (d/floor - margin)/margin, floor = K s T D.
    own = model(f"ecvae_{which}")
    chain, dual = arguments(own["sampler"]), arguments(own["calibration"])
    floor = chain["steps"] * chain["step_size"] * chain["temperature"] * IMAGES[which][1]
    assert dual["rate"] == pytest.approx(0.01 * dual["margin"] * floor, rel=0.05)


def test_the_margin_is_the_released_codes():
    assert arguments(model("ecvae_stl10")["calibration"])["margin"] == pytest.approx(
        0.05 / (15 * 1e-6 * 3072), rel=0.02
    )


@pytest.mark.parametrize("which", ["cifar", "celeba64", "church64", "celebahq256"])
def test_dual_mcmc_generators_precision_and_weight_decay_are_the_released_codes(which):
    # The code: U(z) = SSE/0.3^2 + |z|^2/2, and weight decay 5e-4 on SSE; here both carry 1/(2 sigma^2).
    own = model(f"dual_mcmc_{which}")
    precision = 1 / (2 * own["sigma"] ** 2)
    assert precision == pytest.approx(1 / 0.3**2, rel=1e-3)
    assert arguments(own["generator_optimizer"])["weight_decay"] == pytest.approx(5e-4 * precision, rel=0.01)


@pytest.mark.parametrize("name", ["dual_mcmc_cifar", "dual_mcmc_celeba64", "dual_mcmc_church64", "bidvl_cifar"])
def test_an_epochs_decay_is_spread_over_its_iterations(name):
    own, an_epoch = model(name), iterations_an_epoch(name)
    schedules = [part for key, part in own.items() if key.endswith("_schedule")]
    assert len(schedules) == (3 if name.startswith("dual") else 2)
    for schedule in schedules:
        assert an_epoch * math.log(arguments(schedule)["gamma"]) == pytest.approx(math.log(0.998), rel=1e-3)


@pytest.mark.parametrize(
    "name, epochs", [("dual_mcmc_cifar", 301), ("dual_mcmc_celeba64", 301), ("dual_mcmc_church64", 301)]
)
def test_iterations_are_the_released_codes_epochs(name, epochs):
    assert settings(name)["trainer"]["max_steps"] == pytest.approx(epochs * iterations_an_epoch(name), rel=1e-3)


def test_bidvl_trains_600_epochs():
    assert settings("bidvl_cifar")["trainer"]["max_steps"] == 600 * iterations_an_epoch("bidvl_cifar")


@pytest.mark.parametrize("which", ["cifar", "celeba64", "church64", "imagenet32", "stl10", "celebahq256"])
def test_adams_epsilon_stands_to_the_raw_energy_as_the_released_codes_to_its_own(which):
    own = model(f"ecvae_{which}")
    temperature = arguments(own["sampler"])["temperature"]
    assert arguments(own["energy_optimizer"])["eps"] == pytest.approx(1e-8 * temperature)
