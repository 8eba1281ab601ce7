"""Sets of samples: distances recomputed, modes that are known, points that are chosen."""

import math

import pytest
import torch

from ebmzoo.data import Gaussians25, StackedDigits
from ebmzoo.figures.cost import Cost
from ebmzoo.figures.look import Look, batches_of_samples
from ebmzoo.figures.samples import Classified, Fidelity, OtherEnd, Points
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import Langevin
from ebmzoo.metrics import fidelity

from ..callbacks.fakes import Images, Tiny, ecvae, measured, model

FID = Fidelity(["fid"])


def test_the_fast_distance_is_of_the_first_thousand(tmp_path):
    tiny = model()
    found, _, _ = measured(tmp_path / "as many", tiny, figures=[FID], n_test=1000)
    assert found["fid_1k"] == pytest.approx(found["fid"], rel=1e-9)
    found, _, _ = measured(tmp_path, tiny, figures=[FID], n_test=1100, batch_size=500)
    with torch.no_grad():
        x = torch.cat(list(batches_of_samples(tiny.eval(), 1100, 500, 0)))
    reference = Images().reference("train")
    assert found["fid"] == pytest.approx(fidelity(to_uint8(x), reference, metrics=["fid"])["fid"], rel=1e-6)
    fast = fidelity(to_uint8(x[:1000]), reference, metrics=["fid"])["fid"]
    assert found["fid_1k"] == pytest.approx(fast, rel=1e-6)


def test_what_is_not_known():
    with pytest.raises(ValueError, match=r"no metrics \['fud'\]: choose from fid, kid"):
        Fidelity(["fid", "fud"])


class Triples(Tiny):
    image_shape = (3, 8, 8)

    def sample(self, n, *, steps=None, noise=None, watch=None):
        return StackedDigits().reference("train")[torch.arange(n)]


def test_modes_of_stacked_digits(tmp_path):
    found, _, _ = measured(tmp_path, Triples(), StackedDigits(), figures=[Classified()], n_test=300)
    modes = StackedDigits().reference("train").modes[:16].unique()  # every batch is the same sixteen
    assert found["stacked_modes"] == pytest.approx(len(modes), abs=1)


def test_modes_of_stacked_mnist_need_its_classifier(tmp_path):
    class Other(StackedDigits):
        classifier = None

    _, skipped, _ = measured(tmp_path, Triples(), Other(), figures=[Classified()])
    assert "the modes of stacked-digits-8 need a classifier of its digits: make one with python -m" in skipped[0]
    Other.classifier = tmp_path / "none.safetensors"
    _, skipped, _ = measured(tmp_path, Triples(), Other(), figures=[Classified()])
    assert "no weights at" in skipped[0]


def numbers(samples, data):
    look = Look(Tiny(), data)
    look.samples = samples
    return {one.name: one.value for one in Points()(look)}


def test_points_at_the_modes_have_the_densitys_peaks():
    data = Gaussians25(n_test=50)
    found = numbers(data.density.means.float(), data)
    # At a mode of 25 far apart: log of 1/25 · 1/(2π s²).
    peak = -math.log(25 * 2 * math.pi * 0.0839**2)
    assert found["log_density_mean"] == pytest.approx(peak, abs=1e-6) == pytest.approx(found["log_density_median"])
    assert found["modes_covered"] == 25 and found["mode_high_quality_share"] == 1 and found["mode_within_std"] == 0
    assert found["mode_least_share"] == 1 and found["mode_kl"] == pytest.approx(0, abs=1e-6)
    test = torch.stack([data.reference("test")[i] for i in range(50)]).double()
    assert found["log_density_mean_test"] == pytest.approx(data.density.log_prob(test).mean().item())


def test_points_at_one_mode_leave_the_others_uncovered():
    data = Gaussians25(n_test=50)
    found = numbers(data.density.means[:1].float().expand(100, 2), data)
    assert found["modes_covered"] == 1 and found["mode_least_share"] == 0
    assert found["mode_kl"] == pytest.approx(math.log(25), abs=1e-5)


def test_data_of_no_known_density_are_said():
    with pytest.raises(ValueError, match="the density of fakes? is not known"):
        numbers(torch.zeros(3, 2), type("Unknown", (), {"kind": "points", "name": "fake"})())


def test_both_ends_of_the_chain_and_what_they_cost(tmp_path):
    revised = ecvae(refine=Langevin(steps=3, step_size=0.1, temperature=1e-4))
    found, _, held = measured(tmp_path / "chain", revised, figures=[FID, OtherEnd(), Cost(7)])
    ends = {}
    for steps in (0, 3):
        with torch.no_grad():
            x = torch.cat(list(batches_of_samples(revised.eval(), 40, 16, 0, steps=steps)))
        ends[steps] = fidelity(to_uint8(x), Images().reference("train"), metrics=["fid"])["fid"]
    assert found["fid"] == pytest.approx(ends[3], rel=1e-6)
    assert found["fid_before_chain"] == pytest.approx(ends[0], rel=1e-6)
    steps = {e["name"]: e["protocol"]["steps"] for e in held["results"]}
    assert (steps["fid"], steps["fid_before_chain"]) == (3, 0)
    before = next(e["protocol"] for e in held["results"] if e["name"] == "fid_before_chain")
    assert before["sampler"] == "none (one step)" and "sampler" not in before["settings"]
    assert found["network_evaluations"] == 1 + 3 * 2 and found["seconds_7_samples"] > 0
    # One-step generation: the chain that training runs is the other end.
    found, _, held = measured(
        tmp_path / "one",
        ecvae(sampler=Langevin(steps=3, step_size=0.1, temperature=1e-4)),
        figures=[FID, OtherEnd()],
    )
    assert found["fid"] == pytest.approx(ends[0], rel=1e-6)
    assert found["fid_after_chain"] == pytest.approx(ends[3], rel=1e-6)
    protocols = {e["name"]: e["protocol"] for e in held["results"]}
    assert (protocols["fid"]["sampler"], protocols["fid"]["steps"]) == ("none (one step)", 0)
    after = protocols["fid_after_chain"]
    assert (after["sampler"], after["steps"], after["step_size"]) == ("Langevin", 3, 0.1)
    assert after["settings"]["sampler"]["steps"] == 3
