from functools import partial

import numpy as np
import pytest
import torch

from ebmzoo.data import Gaussians25
from ebmzoo.figures.landscape import Energies, Landscape
from ebmzoo.mcmc import Langevin
from ebmzoo.methods import ECVAE
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from ..callbacks.fakes import measured


def test_arrays_for_the_report_hold_energies_scores_and_the_plane(tmp_path):
    data = Gaussians25(n_train=50, n_test=30, batch_size=10)
    torch.manual_seed(0)
    vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=2)
    method = ECVAE((2,), vae, MLPEnergy, sampler=Langevin(steps=3, temperature=0.5))
    measured(tmp_path, method, data, figures=[Energies(), Landscape()])
    arrays = np.load(tmp_path / "arrays.npz")
    data.setup("test")
    test = torch.stack([data.reference("test")[i] for i in range(30)])
    assert arrays["energy/gaussians25 test"] == pytest.approx(method.energy(test).detach().numpy(), rel=1e-5)
    (left, low), (right, high) = arrays["plane/box"]
    assert (test > torch.tensor([left, low])).all() and (test < torch.tensor([right, high])).all()
    corner = torch.tensor([[left, high]])  # the first axis of the array is the first coordinate
    assert arrays["plane/model"][0, -1] == pytest.approx(method.log_density(corner).item(), rel=1e-4)
    assert arrays["plane/truth"][0, -1] == pytest.approx(data.density.log_prob(corner.double()).item(), rel=1e-4)
    assert arrays["plane/steps"].tolist() == [0, 1, 2, 3]
    for frame, steps in ((0, 0), (-1, 3)):
        expected = method.sample(400, steps=steps, noise=0).detach().numpy()
        assert arrays["plane/chain"][frame] == pytest.approx(expected, abs=1e-5)
