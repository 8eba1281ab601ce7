"""The parts of an evaluation, each held against numbers found without it."""

import json
import math

import numpy as np
import pytest
import torch

from ebmzoo.callbacks import Evaluate
from ebmzoo.callbacks.looking import batches_of_samples
from ebmzoo.data import Digits, Gaussians25, Glyphs, ImageFolder, StackedDigits, StackedMNIST
from ebmzoo.factories import spec
from ebmzoo.images import save_images, to_uint8
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import ECVAE, VAEBM
from ebmzoo.methods.at_rest import unclamped
from ebmzoo.metrics import fidelity, load_digit_classifier
from ebmzoo.metrics.density import base_log_partition
from ebmzoo.metrics.ood import detection, interpolations
from ebmzoo.metrics.reconstruction import reconstruction_errors
from ebmzoo.networks import GaussianVAE, MLPDecoder, MLPEncoder, MLPEnergy

from .fakes import Images, Tiny, model, trainer

SHAPE = (1, 8, 8)
QUICK = {"n_test": 40, "batch_size": 16}


def measured(path, method, data=None, **options):
    """Numbers by name, the lines of what was left out, and the whole file."""
    evaluate = Evaluate(**{**QUICK, **options})
    trainer(path, [evaluate]).test(method, data or Images(), verbose=False)
    held = json.loads((path / "results.json").read_text())
    return {entry["name"]: entry["value"] for entry in held["results"]}, held["run"]["skipped"], held


def ecvae(**settings):
    torch.manual_seed(0)
    return ECVAE(SHAPE, MLPEncoder, MLPDecoder, MLPEnergy, latent_dim=4, **settings)


class Scored(Tiny):
    def score(self, x):
        return -x.square().flatten(1).sum(1)


# -- scores -----------------------------------------------------------------------------------------------


def test_scores_against_other_sets(tmp_path):
    data = Images()
    data.outsiders = lambda: [Glyphs(size=8, like="digits", n_train=1, n_test=30)]
    torch.manual_seed(0)
    method = Scored()
    found, skipped, held = measured(tmp_path, method, data, only=["ood"])
    test, train = data.reference("test"), data.reference("train")
    letters = Glyphs(size=8, like="digits", n_train=1, n_test=30).reference("test")[torch.arange(30)]
    sets = {"glyphs-letters-like-digits-8": letters, "interpolations": interpolations(test, as_noise(0))}
    for name, x in sets.items():
        expected = detection(method.score(test), method.score(x))
        for metric, value in expected._asdict().items():
            assert found[f"ood_{metric}_{name}"] == pytest.approx(value, abs=1e-9), (name, metric)
    expected = detection(method.score(test), method.score(train)).auroc
    assert found["auroc_test_against_train"] == pytest.approx(expected, abs=1e-9)
    assert {"ood_auroc_uniform_noise", "ood_auroc_constants"} < set(found) and skipped == []
    arrays = np.load(tmp_path / "arrays.npz")
    assert arrays["score/interpolations"] == pytest.approx(method.score(sets["interpolations"]).numpy(), rel=1e-6)
    assert len(found) == 1 + 4 * 3
    protocol = next(e["protocol"] for e in held["results"] if e["name"] == "ood_auroc_interpolations")
    assert (protocol["n"], protocol["n_reference"], protocol["reference"]) == (12, 12, "interpolations")
    assert protocol["settings"]["positive"] == "in-distribution"
    for name in ("score_ood", "score_train_test"):
        assert (tmp_path / f"{name}.png").is_file()


def test_a_set_that_is_missing_or_of_another_shape_is_a_line(tmp_path):
    sets = [StackedMNIST(tmp_path / "nowhere"), StackedDigits(), "constants", Digits(16)]
    found, skipped, _ = measured(tmp_path, Scored(), ood=sets, only=["ood"])
    assert "ood_auroc_constants" in found and len(found) == 4
    missing, coloured, large = skipped
    assert missing.startswith("out-of-distribution, stacked-mnist-32: ") and "(3, 32, 32)" in missing
    assert coloured == "out-of-distribution, stacked-digits-8: its images are (3, 8, 8), the model's (1, 8, 8)"
    assert large.startswith("out-of-distribution, digits-16: its images are (1, 16, 16)")


def test_a_broken_image_of_a_set_is_a_line(tmp_path):
    folder = tmp_path / "others"
    save_images(Images().reference("test")[:6], folder)
    (folder / "00003.png").write_bytes(b"nothing")
    data = ImageFolder(folder, size=8, channels=1, holdout=0)
    found, skipped, _ = measured(tmp_path / "out", Scored(), ood=[data, "constants"], only=["ood"])
    assert len(skipped) == 1 and "00003.png cannot be read as an image" in skipped[0] and "\n" not in skipped[0]
    assert "ood_auroc_constants" in found and len(found) == 4


def test_missing_files_of_a_set_are_a_line(tmp_path):
    class Missing(Digits):
        def load(self, split):
            raise FileNotFoundError("no such set at there: get it from here")

    found, skipped, _ = measured(tmp_path, Scored(), ood=[Missing(), "uniform noise"], only=["ood"])
    assert skipped == ["out-of-distribution, digits-8: no such set at there: get it from here"]
    assert "ood_fpr95_uniform_noise" in found


# -- generation -------------------------------------------------------------------------------------------


def test_both_ends_of_the_chain_and_what_they_cost(tmp_path):
    revised = ecvae(refine=Langevin(steps=3, step_size=0.1, temperature=1e-4))
    found, _, held = measured(tmp_path / "chain", revised, only=["generation"], metrics=["fid"], n_timed=7)
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
        only=["generation"],
        metrics=["fid"],
    )
    assert found["fid"] == pytest.approx(ends[0], rel=1e-6)
    assert found["fid_after_chain"] == pytest.approx(ends[3], rel=1e-6)
    protocols = {e["name"]: e["protocol"] for e in held["results"]}
    assert (protocols["fid"]["sampler"], protocols["fid"]["steps"]) == ("none (one step)", 0)
    after = protocols["fid_after_chain"]
    assert (after["sampler"], after["steps"], after["step_size"]) == ("Langevin", 3, 0.1)
    assert after["settings"]["sampler"]["steps"] == 3


def test_the_fast_distance_is_of_the_first_thousand(tmp_path):
    tiny = model()
    found, _, _ = measured(tmp_path / "as many", tiny, only=["generation"], metrics=["fid"], n_test=1000)
    assert found["fid_1k"] == pytest.approx(found["fid"], rel=1e-9)
    found, _, _ = measured(tmp_path, tiny, only=["generation"], metrics=["fid"], n_test=1100, batch_size=500)
    with torch.no_grad():
        x = torch.cat(list(batches_of_samples(tiny.eval(), 1100, 500, 0)))
    reference = Images().reference("train")
    assert found["fid"] == pytest.approx(fidelity(to_uint8(x), reference, metrics=["fid"])["fid"], rel=1e-6)
    fast = fidelity(to_uint8(x[:1000]), reference, metrics=["fid"])["fid"]
    assert found["fid_1k"] == pytest.approx(fast, rel=1e-6)


class Triples(Tiny):
    image_shape = (3, 8, 8)

    def sample(self, n, *, steps=None, noise=None, watch=None):
        return StackedDigits().reference("train")[torch.arange(n)]


def test_modes_of_stacked_digits(tmp_path):
    found, _, _ = measured(tmp_path, Triples(), StackedDigits(), only=["generation"], metrics=[], n_test=300)
    modes = StackedDigits().reference("train").modes[:16].unique()  # every batch is the same sixteen
    assert found["stacked_modes"] == pytest.approx(len(modes), abs=1)


def test_modes_of_stacked_mnist_need_its_classifier(tmp_path):
    class Other(StackedDigits):
        classifier = None

    _, skipped, _ = measured(tmp_path, Triples(), Other(), only=["generation"], metrics=[])
    assert "the modes of stacked-digits-8 need a classifier of its digits: make one with python -m" in skipped[1]
    Other.classifier = tmp_path / "none.safetensors"
    _, skipped, _ = measured(tmp_path, Triples(), Other(), only=["generation"], metrics=[])
    assert "no weights at" in skipped[1]


# -- the test split ---------------------------------------------------------------------------------------


def test_reconstruction_and_bounds(tmp_path):
    method = ecvae()
    found, _, _ = measured(tmp_path, method, only=["reconstruction", "likelihood"], iw_draws=[50])
    x = Images().reference("test")
    with torch.no_grad():
        errors = reconstruction_errors(x, method.reconstruct(x))
        bound = method.log_likelihood_bound(x, 50, 0).double().mean().item()
    assert found["mse_per_pixel"] == pytest.approx(errors.mse.mean().item(), rel=1e-9)
    assert found["rmse_per_pixel"] == pytest.approx(errors.mse.mean().item() ** 0.5, rel=1e-9)
    assert found["psnr"] == pytest.approx(errors.psnr.mean().item(), rel=1e-9)
    assert found["ssim"] == pytest.approx(errors.ssim.mean().item(), rel=1e-9)
    assert found["iw_bound_50_nats"] == pytest.approx(bound, rel=1e-6)
    assert found["iw_bound_50_nats"] > found["elbo_nats"]


class Inferring(Tiny):
    """Its z chain takes away a tenth of the error at each step."""

    latent_sampler = Langevin(steps=10, step_size=0.1)

    def reconstruct(self, x, *, steps=None, noise=0):
        return x + 0.5 * 0.9 ** (self.latent_sampler.steps if steps is None else steps)


def test_reconstruction_along_the_z_chain(tmp_path):
    data = Images()
    data.own = {name: x.clamp(-0.4, 0.4) for name, x in data.own.items()}  # so that nothing is clipped
    found, _, _ = measured(tmp_path, Inferring(), data, only=["reconstruction"])
    for name, steps in {"before_z_chain": 0, "z_steps_5": 5, "z_steps_20": 20}.items():
        assert found[f"mse_per_pixel_{name}"] == pytest.approx((0.5 * 0.9**steps) ** 2, rel=1e-4)
    assert found["mse_per_pixel"] == pytest.approx((0.5 * 0.9**10) ** 2, rel=1e-4)
    assert (tmp_path / "reconstruction_along_chain.png").is_file()


# -- copies -----------------------------------------------------------------------------------------------


class Copies(Tiny):
    """Training images with another border."""

    def sample(self, n, *, steps=None, noise=None, watch=None):
        x = Images().reference("train")[torch.arange(n) % 40].clone()
        x[..., 0, :] = 1 - x[..., 0, :].abs()
        return x


def test_a_centre_crop_finds_copies_with_another_background(tmp_path):
    whole, _, _ = measured(tmp_path / "whole", Copies(), only=["memorisation"], extractor=None)
    centre, _, held = measured(tmp_path / "centre", Copies(), only=["memorisation"], extractor=None, crop=6)
    assert whole["nn_rmse_mean"] > 0.1 and centre["nn_rmse_mean"] < 1e-6 < centre["nn_rmse_test_mean"]
    protocol = next(e["protocol"] for e in held["results"] if e["name"] == "nn_rmse_mean")
    assert protocol["settings"]["crop"] == 6
    assert (tmp_path / "centre" / "neighbours.png").is_file()
    _, skipped, _ = measured(tmp_path / "large", Copies(), only=["memorisation"], crop=9)
    assert skipped == ["nearest neighbours: a centre crop of 9 px does not fit images of 8 x 8 px"]


def test_copies_are_near_in_features_too(tmp_path):
    found, _, _ = measured(tmp_path, Copies(), only=["memorisation"], batch_size=40)
    network = load_digit_classifier().double()
    x = Images().reference("train")
    copies, train = (network.features(to_uint8(y)) for y in (Copies().sample(40), x))
    expected = torch.cdist(copies, train, compute_mode="donot_use_mm_for_euclid_dist").amin(1) / 64**0.5
    assert found["nn_feature_mean"] == pytest.approx(expected.mean().item(), rel=1e-6)


# -- chains -----------------------------------------------------------------------------------------------


def test_chain_health_and_the_long_run(tmp_path):
    method = ecvae(sampler=Langevin(steps=8, step_size=0.1, temperature=1e-2))
    found, skipped, _ = measured(tmp_path, method, only=["chains"], long_run=True)
    assert skipped == []
    health = {"energy_start", "energy_end", "displacement", "drift_to_noise", "acceptance_if_adjusted", "rhat"}
    assert {f"chain_{name}" for name in health} < set(found)
    assert "chain_ess" not in found  # of four steps
    # From one start, the noise alone displaces by √(K·s·T) per coordinate; the last state seen had 7 steps.
    assert found["chain_displacement"] == pytest.approx((7 * 0.1 * 1e-2) ** 0.5, rel=0.2)
    assert 0.9 < found["chain_acceptance_if_adjusted"] <= 1
    with torch.no_grad(), unclamped(method):
        x = torch.cat(list(batches_of_samples(method.eval(), 40, 16, 0, steps=80)))
    assert x.abs().max() > 1  # energies are of where chains are, whatever range images have
    assert found["energy_chain_x10"] == pytest.approx(method.energy(x).double().mean().item(), rel=1e-5)
    assert found["saturation_chain_x10"] == pytest.approx((x.abs() >= 1).double().mean().item(), abs=1e-9)
    reference = Images().reference("train")
    assert found["fid_chain_x10"] == pytest.approx(fidelity(to_uint8(x), reference, metrics=["fid"])["fid"], rel=1e-6)
    for name in ("chain_energy", "long_run", "long_run_energy"):
        assert (tmp_path / f"{name}.png").is_file()


def test_longer_chains_have_an_effective_sample_size(tmp_path):
    method = ecvae(sampler=Langevin(steps=20, step_size=0.1, temperature=1e-2))
    found, _, _ = measured(tmp_path, method, only=["chains"], extractor=None)
    assert found["chain_rhat"] > 1.5 and found["chain_ess"] < 4 * 64  # 64 chains that hardly move


def test_arrays_for_the_report_hold_energies_scores_and_the_plane(tmp_path):
    data = Gaussians25(n_train=50, n_test=30, batch_size=10)
    torch.manual_seed(0)
    method = ECVAE((2,), MLPEncoder, MLPDecoder, MLPEnergy, latent_dim=2, sampler=Langevin(steps=3, temperature=0.5))
    measured(tmp_path, method, data, only=["chains"], extractor=None)
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


def test_annealed_bounds_of_a_vaebm(tmp_path):
    torch.manual_seed(0)
    vae = spec(GaussianVAE, encoder=spec(MLPEncoder), decoder=spec(MLPDecoder), latent_dim=2, sigma=0.5)
    method = VAEBM(SHAPE, vae, MLPEnergy)
    found, _, _ = measured(tmp_path, method, only=["likelihood"], ais_temperatures=4)
    log_z = base_log_partition(method.energy(method.base_sample(4000, noise=1)).detach())
    assert found["log_z_ais_lower"] < log_z.value < found["log_z_ais_upper_approximate"]
    assert found["log_z_ais_upper_approximate"] - found["log_z_ais_lower"] < 0.1


def test_annealed_bounds_of_an_energy_on_x(tmp_path):
    class Gaussian(Tiny):
        log_likelihood_bound = None

        def log_density(self, x):
            return -4 * (x + 0.5).square().flatten(1).sum(1)

    found, skipped, _ = measured(tmp_path, Gaussian(), only=["likelihood"], ais_temperatures=40)
    exact = 32 * math.log(math.pi / 4)
    assert found["log_z_ais_lower"] < exact < found["log_z_ais_upper_approximate"]
    x = Images().reference("test")
    value = Gaussian().log_density(x).mean().item() - found["log_z_ais_lower"]
    assert found["log_likelihood_ais_upper"] == pytest.approx(value, rel=1e-5)
    assert skipped == ["ELBO: Gaussian bounds no likelihood"]
