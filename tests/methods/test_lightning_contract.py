"""What users of Lightning expect besides training: model(x), export, networks as they are, plain words for batches."""

import warnings

import pytest
import torch
from lightning.pytorch.utilities.model_summary import ModelSummary
from torch.utils.data import DataLoader

import ebmzoo
from ebmzoo.factories import spec
from ebmzoo.images import from_uint8
from ebmzoo.methods import EBM, ECVAE, GAN, VAE, VAEBM, Flow, Method
from ebmzoo.networks import Glow, MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import GaussianVAE

from .conftest import quiet_trainer

SHAPE = (1, 8, 8)
CODE = {"encoder": spec(MLPEncoder, width=8, depth=1), "decoder": spec(MLPDecoder, width=8, depth=1), "latent_dim": 4}
ENERGY = spec(MLPEnergy, width=8, depth=1, spectral_norm=True)
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
Z = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def vae(**settings):
    return VAE(SHAPE, spec(GaussianVAE, **{**CODE, **settings}))


def test_a_model_that_is_called_gives_what_is_natural():
    ecvae = ECVAE(SHAPE, spec(GaussianVAE, **CODE), ENERGY)
    expected = ecvae.eval().ebm(X).detach()
    found = ecvae.train()(X)
    assert torch.equal(found, expected) and not found.requires_grad  # at rest, as all answers
    model = vae()
    assert torch.equal(model(Z), model.decode(Z)) and model(Z).shape == (5, *SHAPE)
    gan = GAN(SHAPE, CODE["decoder"], ENERGY, latent_dim=4)
    assert torch.equal(gan(Z), gan.generator(Z))
    flow = Flow(SHAPE, spec(Glow, levels=2, steps=1, width=4), levels=17)
    assert torch.equal(flow(X), flow.eval().flow.log_prob(X).detach())
    with pytest.raises(TypeError, match="^Method has neither an energy nor a decoder"):
        Method(SHAPE)(X)


def test_a_model_exports_and_summarises():
    model = EBM(SHAPE, ENERGY).eval()
    exported = torch.export.export(model, (X,))
    torch.testing.assert_close(exported.module()(-X), model(-X))
    model.example_input_array = X
    summary = ModelSummary(model, max_depth=1)
    assert (summary.layer_names, summary.out_sizes) == (["ebm"], [[5]])


def test_a_vae_may_be_given_as_it_is(tmp_path):
    def own():
        return GaussianVAE(SHAPE, MLPEncoder(SHAPE, 4, width=8, depth=1), MLPDecoder(SHAPE, 4, width=8, depth=1), 4)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = VAE(SHAPE, part := own())
    assert model.vae is part
    before = part.encoder.state_dict()["net.0.weight"].clone()
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(model, DataLoader([X], batch_size=None))
    assert not torch.equal(before, part.encoder.state_dict()["net.0.weight"])
    trainer.save_checkpoint(path := tmp_path / "vae.ckpt")
    with pytest.raises(ValueError, match=r"vae given as functions or instances.*vae=\.\.\."):
        ebmzoo.load(path)
    with pytest.raises(ValueError, match="GaussianVAE was given as a function or an instance"):
        VAE.load_from_checkpoint(path)
    for again in (ebmzoo.load(path, vae=own()), VAE.load_from_checkpoint(path, vae=own())):
        assert torch.equal(again(Z), model(Z))
    vaebm = VAEBM(SHAPE, part, energy := MLPEnergy(SHAPE, width=8, depth=1))
    assert vaebm.vae is part and vaebm.ebm.network is energy and vaebm.sample(2, noise=0).shape == (2, *SHAPE)


def test_a_checkpoint_of_another_method_is_called_by_its_name(tmp_path):
    trainer = quiet_trainer()
    trainer.strategy.connect(ECVAE(SHAPE, spec(GaussianVAE, **CODE), ENERGY))
    trainer.save_checkpoint(path := tmp_path / "ecvae.ckpt")
    for kind in (VAE, EBM):
        with pytest.raises(ValueError, match=rf"ecvae\.ckpt is a checkpoint of ECVAE, not of {kind.__name__}$"):
            kind.load_from_checkpoint(path)
    assert type(ECVAE.load_from_checkpoint(path)) is ECVAE


BATCHES = {
    "bytes": (torch.zeros(4, *SHAPE, dtype=torch.uint8), r"\(4, 1, 8, 8\) of uint8; ebmzoo\.images\.from_uint8"),
    "integers": (torch.zeros(4, *SHAPE, dtype=torch.int64), r"this one is \(4, 1, 8, 8\) of int64$"),
    "no channels": (torch.zeros(4, 8, 8), r"tensor \(B, 1, 8, 8\) of floats.*; this one is \(4, 8, 8\) of float32$"),
    "other channels": (torch.zeros(4, 3, 8, 8), r"this one is \(4, 3, 8, 8\) of float32$"),
    "names": ({"image": X}, "this one is a dict$"),
    "labels first": (["four", X], "this one is a str$"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_what_is_no_batch_is_refused_in_one_sentence(case, fit):
    batch, words = BATCHES[case]
    with pytest.raises(ValueError, match=words) as caught:
        fit(vae(), [batch])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [X, X.double(), [X, torch.zeros(5)], (X,)], ids=["plain", "double", "list", "tuple"])
def test_what_is_a_batch_is_taken_as_it_is(batch):
    model = vae()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(model.data(batch), X)


RANGES = {
    "bytes": ((X + 1) * 127.5, r"values from \S+ to 2\d\d, and images are in \[-1, 1\]"),
    "unit": ((X + 1) / 2, r"values from 0\S* to 0?\.?\S+, as of images in \[0, 1\], .*: 2 \* x - 1 "),
}


@pytest.mark.parametrize("case", RANGES)
def test_images_on_another_scale_are_told_once_a_fit(case, fit):
    x, words = RANGES[case]
    model = vae()
    for _ in range(2):
        with pytest.warns(UserWarning, match=words) as caught:
            fit(model, [x, x])
        assert sum("the first batch" in str(one.message) for one in caught) == 1


def test_points_and_images_in_their_range_are_not_told_of(recwarn):
    VAE((2,), spec(GaussianVAE, **CODE)).data(torch.full((4, 2), 9.0))
    vae().data(X * 1.005)
    vae().data(from_uint8(torch.arange(64, dtype=torch.uint8).view(1, *SHAPE)))
    assert not [one for one in recwarn if "batch" in str(one.message)]
