import pytest
import torch

from ebmzoo.figures.cost import Cost
from ebmzoo.figures.fidelity import Fidelity
from ebmzoo.figures.look import batches_of_samples
from ebmzoo.figures.other_end import OtherEnd
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import Langevin
from ebmzoo.metrics import fidelity

from ..callbacks.fakes import Images, ecvae, measured

FID = Fidelity(["fid"])


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
