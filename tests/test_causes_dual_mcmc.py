"""What the scripts on Dual-MCMC's chains measure, on networks of a moment's training."""

import pytest
import torch

from benchmarks.causes import dual_mcmc_restoration, dual_mcmc_slope
from ebmzoo.data.digits import digits
from ebmzoo.networks import MLPEnergy


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh"])
def test_spectral_norm_bounds_the_energys_slope(activation):
    """By 1, once its power iterations have converged; weights ten times as large are as steep."""
    slopes = []
    for scale in (1, 10):
        torch.manual_seed(0)
        energy = MLPEnergy((2,), width=32, activation=activation, spectral_norm=True)
        x = torch.randn(500, 2, requires_grad=True)
        with torch.no_grad():
            for layer in energy.net[::2]:
                layer.parametrizations.weight.original *= scale
            for _ in range(100):
                energy(x)
        slopes.append(torch.autograd.grad(energy.eval()(x).sum(), x)[0].norm(dim=1))
    assert slopes[0].max() <= 1 + 1e-4
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-5)


@pytest.mark.thorough
def test_the_slopes_script(capsys):
    found = dual_mcmc_slope.main(["--quick", "--steps", "2", "6"])
    assert [key for key in found if key[0].startswith("no bound")] == [("no bound, s 2", 2), ("no bound, s 2", 6)]
    for (name, steps), row in found.items():
        step_size = dual_mcmc_slope.KINDS[name][1]
        assert row["K·s/2·slope"] == pytest.approx(steps * step_size / 2 * row["slope"], rel=1e-12)
        assert row["slope"] < 1.05 or "no bound" in name
        assert min(row[f"FD, {what}"] for what in ("generator", "K", "2 K")) > 0
    assert "| slope ≤ 1, s 2 | 6 |" in capsys.readouterr().out


def test_a_chain_in_pieces_is_measured_from_its_start():
    model, data = dual_mcmc_slope.made(4, {}, 2.0, 0.0, 16).eval(), digits("train")[0]
    found = dual_mcmc_slope.along(model, data, 50)
    start = model.sample(50, steps=0, noise=1)
    of_data = model.energy(data).mean()
    assert found[0][0] == pytest.approx((model.energy(start).mean() - of_data).item(), abs=1e-6)
    end = model.sampler(model.ebm, start, 0, steps=60).x  # at T = 0: no noise
    assert found[60][0] == pytest.approx((model.energy(end).mean() - of_data).item(), abs=1e-6)
    assert list(found) == list(dual_mcmc_slope.LENGTHS)


@pytest.mark.thorough
def test_the_restorations_script():
    found = dual_mcmc_restoration.main(["--quick"])
    assert list(found) == ["M20", "M30", "R20", "R40"]
    for row in found.values():
        # Without noise steps of both chains are those of the defaults.
        assert row["defaults"] == pytest.approx(row["4 x steps"], abs=1e-6)
    operator = dual_mcmc_restoration.masks(8)["R40"]
    x = digits("test")[0][:8]
    assert torch.equal(operator.degrade(x), operator.degrade(operator.degrade(x)))
    with pytest.raises(SystemExit):
        dual_mcmc_restoration.main([])
