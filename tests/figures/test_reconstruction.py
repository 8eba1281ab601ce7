import pytest
import torch

from ebmzoo.figures.reconstruction import Reconstruction
from ebmzoo.mcmc import Langevin
from ebmzoo.metrics.reconstruction import reconstruction_errors

from ..callbacks.fakes import Images, Tiny, ecvae, measured


def test_errors_of_the_test_split(tmp_path):
    method = ecvae()
    found, _, _ = measured(tmp_path, method, figures=[Reconstruction()])
    x = Images().reference("test")
    with torch.no_grad():
        errors = reconstruction_errors(x, method.reconstruct(x))
    assert found["mse_per_pixel"] == pytest.approx(errors.mse.mean().item(), rel=1e-9)
    assert found["rmse_per_pixel"] == pytest.approx(errors.mse.mean().item() ** 0.5, rel=1e-9)
    assert found["psnr"] == pytest.approx(errors.psnr.mean().item(), rel=1e-9)
    assert found["ssim"] == pytest.approx(errors.ssim.mean().item(), rel=1e-9)


class Inferring(Tiny):
    """Its z chain takes away a tenth of the error at each step."""

    latent_sampler = Langevin(steps=10, step_size=0.1)

    def reconstruct(self, x, *, steps=None, noise=0):
        return x + 0.5 * 0.9 ** (self.latent_sampler.steps if steps is None else steps)


def test_reconstruction_along_the_z_chain(tmp_path):
    data = Images()
    data.own = {name: x.clamp(-0.4, 0.4) for name, x in data.own.items()}  # so that nothing is clipped
    found, _, _ = measured(tmp_path, Inferring(), data, figures=[Reconstruction()])
    for name, steps in {"before_z_chain": 0, "z_steps_5": 5, "z_steps_20": 20}.items():
        assert found[f"mse_per_pixel_{name}"] == pytest.approx((0.5 * 0.9**steps) ** 2, rel=1e-4)
    assert found["mse_per_pixel"] == pytest.approx((0.5 * 0.9**10) ** 2, rel=1e-4)
    assert (tmp_path / "reconstruction_along_chain.png").is_file()
