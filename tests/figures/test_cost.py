import pytest
import torch

from ebmzoo.factories import spec
from ebmzoo.figures.cost import Cost, network_evaluations, seconds
from ebmzoo.mcmc import HMC, MALA, Langevin
from ebmzoo.methods import ECVAE, VAEBM, BiDVL, DenoisingEBM, Flow
from ebmzoo.networks import Glow, MLPDecoder, MLPDenoiser, MLPEncoder, MLPEnergy, MultiScaleResNetEnergy
from ebmzoo.parts import GaussianVAE

SHAPE = (1, 8, 8)


BASE = spec(GaussianVAE, encoder=spec(MLPEncoder), decoder=spec(MLPDecoder), latent_dim=4)


def vaebm(sampler):
    return VAEBM(SHAPE, BASE, MLPEnergy, sampler=sampler)


def evaluations(model, **call):
    return network_evaluations(model, lambda n: model.sample(n, noise=0, **call), 3)


def test_one_step_generators_cost_one():
    assert evaluations(BiDVL(SHAPE, MLPEncoder, MLPDecoder, MLPEnergy, latent_dim=4)) == 1
    assert evaluations(ECVAE(SHAPE, BASE, MLPEnergy)) == 1


def test_a_chain_costs_two_a_step_and_network():
    model = ECVAE(SHAPE, BASE, MLPEnergy)
    assert evaluations(model, steps=7) == 1 + 7 * 2
    # decoder and energy at every step, and the decoder once for what the chain ended at
    assert evaluations(vaebm(Langevin(steps=5, step_size=0.01))) == 5 * 2 * 2 + 1
    assert evaluations(vaebm(MALA(steps=5, step_size=0.01))) == 6 * 2 * 2 + 1
    assert evaluations(vaebm(HMC(steps=5, step_size=0.01, leapfrogs=3))) == 16 * 2 * 2 + 1
    # proposals need no gradient: the present state and three new ones
    assert evaluations(vaebm(MALA(steps=5, step_size=0.01, proposals=3))) == 4 * 2 + 6 * 2 * 2 + 1


def test_normalised_weights_are_counted_once():
    model = ECVAE((3, 32, 32), BASE, MultiScaleResNetEnergy)
    assert evaluations(model, steps=2) == 1 + 2 * 2


def test_what_a_network_does_beside_its_forward_is_counted_too():
    assert evaluations(Flow(SHAPE, spec(Glow, levels=1, steps=1, width=8))) == 1
    model = DenoisingEBM(SHAPE, spec(MLPDenoiser, width=8), spec(MLPDecoder, width=8), latent_dim=4)
    # its code, and the reconstruction from it; asked from outside a training, neither keeps a graph
    assert network_evaluations(model, lambda n: model.reconstruct(torch.zeros(n, *SHAPE))) == 1 + 1


def test_nothing_stays_behind():
    model = vaebm(Langevin(steps=2, step_size=0.01))
    sampler = model.sampler
    evaluations(model)
    assert model.sampler is sampler
    assert not any(module._forward_hooks for module in model.modules())


def test_seconds():
    ran = []
    assert seconds(lambda: ran.append(torch.zeros(1))) > 0 and len(ran) == 1


def test_one_sample_is_too_few_to_time():
    with pytest.raises(ValueError, match="n of at least 2, not 1"):
        Cost(1)
