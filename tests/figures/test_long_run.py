import pytest
import torch

from ebmzoo.figures.long_run import LongRun
from ebmzoo.figures.look import batches_of_samples
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import Langevin
from ebmzoo.methods.at_rest import unclamped
from ebmzoo.metrics import fidelity

from ..callbacks.fakes import Images, ecvae, measured


@pytest.mark.thorough
def test_where_chains_are_after_ten_times_their_length(tmp_path):
    method = ecvae(sampler=Langevin(steps=8, step_size=0.1, temperature=1e-2))
    found, skipped, _ = measured(tmp_path, method, figures=[LongRun()])
    assert skipped == []
    with torch.no_grad(), unclamped(method):
        x = torch.cat(list(batches_of_samples(method.eval(), 40, 16, 0, steps=80)))
    assert x.abs().max() > 1  # energies are of where chains are, whatever range images have
    assert found["energy_chain_x10"] == pytest.approx(method.energy(x).double().mean().item(), rel=1e-5)
    assert found["saturation_chain_x10"] == pytest.approx((x.abs() >= 1).double().mean().item(), abs=1e-9)
    reference = Images().reference("train")
    assert found["fid_chain_x10"] == pytest.approx(fidelity(to_uint8(x), reference, metrics=["fid"])["fid"], rel=1e-6)
    for name in ("long_run", "long_run_energy"):
        assert (tmp_path / f"{name}.png").is_file()
