import pytest
import torch

from ebmzoo.figures.long_run import LongRun
from ebmzoo.figures.look import batches_of_samples
from ebmzoo.images import to_uint8
from ebmzoo.mcmc import Langevin
from ebmzoo.methods.at_rest import unclamped
from ebmzoo.metrics import fidelity

from ..callbacks.fakes import Images, Tiny, ecvae, measured


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
    for name in ("long_run", "long_run_curves"):
        assert (tmp_path / f"{name}.png").is_file()


class Gaussian(Tiny):
    """U = ½‖x‖² in 64 dimensions; chains begin at draws of its density, or at the mode."""

    def __init__(self, sampler, at_mode=False):
        super().__init__()
        self.sampler, self.at_mode = sampler, at_mode

    def energy(self, x):
        return 0.5 * x.square().flatten(1).sum(1)

    def sample(self, n, *, steps=None, noise=None, watch=None):
        x = torch.zeros(n, 1, 8, 8) if self.at_mode else noise.normal((n, 1, 8, 8), torch.empty(0))
        return self.sampler(self.energy, x, noise, steps=steps, watch=watch).x


def test_a_metropolis_test_keeps_chains_at_their_density(tmp_path):
    method = Gaussian(Langevin(steps=5, step_size=1.0, bounds=(-9.0, 9.0)))
    found, skipped, _ = measured(tmp_path, method, figures=[LongRun(multiples=(1, 4))], n_test=200)
    assert skipped == [] and method.sampler.bounds == (-9.0, 9.0)
    assert found["energy_chain_x4"] == pytest.approx(32 / (1 - 1 / 4), rel=0.04)  # Langevin's variance of 1/(1 - s/4)
    assert found["energy_chain_metropolis_x1"] == pytest.approx(32, rel=0.04)
    assert found["energy_chain_metropolis_x4"] == pytest.approx(32, rel=0.04)
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    there = x / 2 + torch.randn(20_000, 64, generator=torch.Generator().manual_seed(1))
    passes = ((x.square().sum(1) - there.square().sum(1)) / 8).clamp(max=0).exp().mean().item()
    assert found["acceptance_chain_metropolis_x4"] == pytest.approx(passes, abs=0.02)
    assert "acceptance_chain_x4" not in found
    for name in ("long_run", "long_run_metropolis", "long_run_curves"):
        assert (tmp_path / f"{name}.png").is_file()


def test_a_long_step_from_the_mode_is_refused(tmp_path):
    method = Gaussian(Langevin(steps=1, step_size=0.25), at_mode=True)
    found, *_ = measured(tmp_path, method, figures=[LongRun(multiples=(1,))], n_test=1000, batch_size=1000)
    assert found["acceptance_chain_metropolis_x1"] == pytest.approx((1 + 0.25**2 / 4) ** -32, abs=0.04)


def test_chains_of_a_descent_have_no_metropolis_test(tmp_path):
    still = Gaussian(Langevin(steps=5, step_size=0.1, temperature=0.0))
    found, skipped, _ = measured(tmp_path, still, figures=[LongRun(multiples=[1])])
    assert skipped == ["chains with Metropolis tests: Gaussian has no Langevin chain of a temperature above 0"]
    assert "energy_chain_x1" in found
    with pytest.raises(ValueError, match="multiples of 1 and more"):
        LongRun(multiples=(0, 1))
