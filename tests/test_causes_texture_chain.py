"""What Denoising-EBM's chains make of a perfect denoiser, and that the shipped configs follow the law."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.causes import texture_chain
from ebmzoo.mcmc import AnnealedLangevin
from ebmzoo.parts import chain_std

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("denoising_ebm_*.yaml"))
S = 0.0839


def chains(config):
    """The texture chains of training and test, and the method's arguments."""
    settings = yaml.safe_load(config.read_text())["model"]["init_args"]
    names = [name for name in ("texture_sampler", "texture_refine") if name in settings]
    return [AnnealedLangevin(**settings[name]["init_args"]) for name in names], settings


def test_the_perfect_model_of_the_25_gaussians_samples_as_the_law_says(capsys):
    gaussians, images = texture_chain.main(["--quick"])
    before, now = (next(row for name, row in gaussians.items() if name.startswith(word)) for word in ("before", "now"))
    assert before[0] < 0.91  # no training can lift such a chain above it
    assert now[0] > 0.99 and now[1] == pytest.approx(1, abs=0.06)
    for name, (_, width, law) in gaussians.items():
        if law < 1.3:  # wider ones are cut at 4 s
            assert width == pytest.approx(law, rel=0.06), name
    for name, (left, law, _) in images.items():
        assert left == pytest.approx(law, rel=0.04), name
    assert next(iter(images.values()))[2] > 0.3 and list(images.values())[-1][2] < 1e-6
    assert "within 4 s" in capsys.readouterr().out
    shipped = chains(next(config for config in CONFIGS if "gaussians25" in config.stem))[0]
    assert replace(shipped[1], bounds=None) in texture_chain.CHAINS.values()


@pytest.mark.parametrize("config", CONFIGS, ids=[config.stem for config in CONFIGS])
def test_shipped_chains_forget_their_start_and_end_as_narrow_as_is_told(config):
    samplers, settings = chains(config)
    for sampler in samplers:
        h, levels = sampler.step_size, sampler.sigmas()
        assert (1 - h / 2) ** sampler.steps < 0.02  # of an error off the manifold
        falls = math.log(levels[0] / levels[-1])
        assert falls == 0 or sampler.steps / falls >= 2 / h  # steps a factor e
        settled = math.sqrt(sampler.temperature / (1 - h / 4)) * levels[-1]
        assert chain_std(sampler) == pytest.approx(settled, rel=0.25)
    if "gaussians25" in config.stem:
        assert settings["denoise_sigma"] is None
        assert [chain_std(sampler, S) / S for sampler in samplers] == pytest.approx([1, 1], abs=0.1)
    elif settings["denoise_sigma"] != "left":
        assert settings["denoise_sigma"] == pytest.approx(chain_std(samplers[-1]), rel=0.25)
