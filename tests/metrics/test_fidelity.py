"""Inception with random weights: the real ones cannot be had offline."""

import numpy as np
import pytest
import scipy.linalg
import torch
import torch_fidelity
from torch.utils.data import Dataset

from ebmzoo.data.digits import Digits, digits
from ebmzoo.images import to_uint8
from ebmzoo.metrics.digit_classifier import load_digit_classifier
from ebmzoo.metrics.extractors import InceptionFeatures, find_extractor
from ebmzoo.metrics.fidelity import StreamingFID, fidelity, frechet_distance, metric_settings


class Rows(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


@pytest.fixture(scope="module")
def real():
    return digits("train")[0][:400]


@pytest.fixture(scope="module")
def fake(real):
    generator = torch.Generator().manual_seed(0)
    chosen = real[torch.randint(len(real), (300,), generator=generator)]
    return (chosen + 0.3 * torch.randn(chosen.shape, generator=generator)).clamp(-1.2, 1.2)


def features(x):
    return load_digit_classifier().double().features(to_uint8(x))


def by_hand(a, b, **options):
    find_extractor("digits")  # registers it
    return torch_fidelity.calculate_metrics(
        input1=Rows(to_uint8(a)),
        input2=Rows(to_uint8(b)),
        feature_extractor="ebmzoo-digits",
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        **options,
    )


@pytest.mark.thorough
def test_equals_torch_fidelity_by_hand(real, fake):
    found = fidelity(fake, real, "digits")
    hand = by_hand(fake, real, fid=True, kid=True, isc=True, kid_subset_size=300)
    assert found["fid"] == pytest.approx(hand["frechet_inception_distance"], rel=1e-9)
    assert found["kid"] == pytest.approx(hand["kernel_inception_distance_mean"], rel=1e-9)
    assert found["kid_std"] == pytest.approx(hand["kernel_inception_distance_std"], rel=1e-6)
    assert found["isc"] == pytest.approx(hand["inception_score_mean"], rel=1e-9)
    assert found["isc_std"] == pytest.approx(hand["inception_score_std"], rel=1e-6)
    spread = torch.linspace(0, 399, 300, dtype=torch.float64).round().long()
    hand = by_hand(fake, real[spread], prc=True)
    assert (found["precision"], found["recall"]) == (hand["precision"], hand["recall"])
    assert 0 < found["precision"] < 1 and 0 < found["recall"] < 1
    assert metric_settings("prc", 300, 400) == {"k": 3, "n_used": 300, "n_reference_used": 300}


def test_fid_equals_the_exact_distance(real, fake):
    assert fidelity(fake, real, metrics=["fid"])["fid"] == pytest.approx(
        frechet_distance(features(fake), features(real)), rel=1e-5
    )


def test_streaming_equals_one_go_and_keeps_the_reference(real, fake):
    streaming = StreamingFID("digits")
    for part in real.split(400):
        streaming.update(part, real=True)
    for samples in (fake, fake[:170]):
        streaming.reset()
        for part in samples.split(130):
            streaming.update(part, real=False)
        expected = fidelity(samples, real, metrics=["fid"])["fid"]
        assert streaming.compute() == pytest.approx(expected, rel=1e-7)


def test_precision_and_recall_have_their_textbook_values():
    x, _ = digits("train")
    half = x[:40]
    found = fidelity(half, x[:40], metrics=["prc"])
    assert found == {"precision": 1.0, "recall": 1.0}
    one = x[:1].repeat(40, 1, 1, 1)  # a collapsed model: precise, and it covers nothing but itself
    found = fidelity(one, x[:40], metrics=["prc"])
    assert found["precision"] == 1.0
    assert found["recall"] == pytest.approx(1 / 40)


def test_frechet_distance_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 7)), rng.normal(size=(90, 7)) @ rng.normal(size=(7, 7)) + 1
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_fewer_rows_than_features():
    # Two points at distance 2h along one axis: variance 2h² there, 0 elsewhere.
    a, b = torch.zeros(2, 50), torch.zeros(2, 50)
    a[:, 3] = torch.tensor([-1.0, 1.0])
    b[:, 3] = torch.tensor([-2.0, 2.0])
    b[:, 7] = 5.0
    assert frechet_distance(a, b) == pytest.approx(25 + (8**0.5 - 2**0.5) ** 2, rel=1e-12)
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(a[:1], b)
    with pytest.raises(ValueError, match=r"\(n, d\)"):
        frechet_distance(a, b[:, :49])


def test_bytes_are_rounded_and_clamped(real, fake):
    bytes_ = to_uint8(fake)
    floats = fidelity(fake, real, metrics=["fid"])["fid"]
    assert fidelity(bytes_, Rows(real), metrics=["fid"])["fid"] == floats
    truncated = ((fake.clamp(-1, 1) + 1) * 127.5).to(torch.uint8)
    assert fidelity(truncated, real, metrics=["fid"])["fid"] != floats


def test_a_data_module_s_reference_is_taken_as_it_is(real, fake):
    reference = Digits(size=8).reference("train")
    assert fidelity(fake, reference, metrics=["fid"]) == fidelity(fake, digits("train")[0], metrics=["fid"])


def test_the_same_images_have_no_distance(real):
    assert 0 <= fidelity(real, real, metrics=["fid"])["fid"] < 1e-6


def test_the_global_generator_is_left_alone(real, fake):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fidelity(fake[:50], real[:50])
    assert torch.equal(torch.rand(2), expected)


def test_the_cache_is_found_by_content(real, fake, tmp_path):
    plain = [fidelity(fake, reference, metrics=["fid", "isc"]) for reference in (real, real[:350])]
    for _ in range(2):
        cached = [fidelity(fake, reference, metrics=["fid", "isc"], cache=tmp_path) for reference in (real, real[:350])]
        assert cached == plain
    kept = sorted(tmp_path.iterdir())
    assert kept
    times = [path.stat().st_mtime_ns for path in kept]
    fidelity(fake[:250], real, metrics=["fid", "isc"], cache=tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == times


def test_small_sets_shrink_the_subsets():
    assert metric_settings("kid", 300, 1500)["subset_size"] == 300
    assert metric_settings("isc", 4, 1500)["splits"] == 4
    assert metric_settings("prc", 50_000, 50_000)["n_used"] == 10_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metrics": ["fid", "fud"]}, "fud.*choose from fid, kid, isc, prc"),
        ({"metrics": []}, "choose from"),
        ({"extractor": "resnet"}, "no feature extractor 'resnet': digits, cifar10, inception"),
        ({"samples": torch.zeros(1, 1, 8, 8), "metrics": ["fid"]}, "at least 2 images.*not 1 samples"),
        ({"samples": torch.zeros(3, 1, 8, 8), "metrics": ["prc"]}, "at least 4 images"),
        ({"samples": torch.zeros(9, 1, 4, 4)}, "8 px or more"),
    ],
)
def test_bad_input_is_one_line(real, change, words):
    arguments = {"samples": real[:10], "reference": real, "extractor": "digits"} | change
    with pytest.raises(ValueError, match=words) as caught:
        fidelity(**arguments)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def inception_path(tmp_path_factory):
    """Inception with random weights: the real ones cannot be had offline."""

    class Untrained(InceptionFeatures):
        def load_state_dict(self, *args, **kwargs):
            return None

    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save({}, path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = Untrained("any", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(untrained.state_dict(), path)
    return path


@pytest.mark.thorough
def test_inception_goes_the_same_way(real, inception_path):
    found = find_extractor("inception", inception_path)
    images = found.bytes_of(real[:2])
    assert images.shape == (2, 3, 8, 8) and images.dtype == torch.uint8
    (ours,) = found.build()(images)
    options = {"feature_extractor_weights_path": str(inception_path)}
    original = torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], **options
    )
    (theirs,) = original(images)
    assert ours.dtype == torch.float64 and ours.shape == (2, 2048)
    assert torch.equal(ours, theirs.double())
    scores = fidelity(real[:2], real[2:4], "inception", ["isc"], inception_path)
    assert scores["isc"] >= 1 and set(scores) == {"isc", "isc_std"}
