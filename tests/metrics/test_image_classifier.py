import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.metrics import StreamingFID, fidelity, find_extractor
from ebmzoo.metrics.digit_classifier import WEIGHTS as DIGITS
from ebmzoo.metrics.image_classifier import ImageClassifier, accuracy, load, train, write

SIDE, CLASSES = 8, 4


def stripes(n, seed):
    """Stripes in four directions, anywhere, of any contrast, noisy: uint8 (n, 1, 8, 8) and their direction."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    angle = labels * torch.pi / CLASSES
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    across = rows * angle.cos()[:, None, None] + columns * angle.sin()[:, None, None]
    phase, contrast = torch.rand(2, n, 1, 1, generator=chance)
    x = (0.5 + contrast / 2) * (2 * torch.pi * (across / 4 + phase)).sin()
    return to_uint8(x[:, None] + 0.1 * torch.randn(n, 1, SIDE, SIDE, generator=chance)), labels


@pytest.fixture(scope="module")
def made():
    return train(*stripes(512, 0), CLASSES, epochs=4, batch_size=32, width=2)


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("extractor") / "stripes.safetensors"
    write(made, path, data="stripes", accuracy=0.97, seed=0)
    return path


def test_it_learns_and_leaves_the_random_state_alone(made):
    assert accuracy(made, *stripes(200, 1)) > 0.9
    before = torch.get_rng_state()
    again, other = (train(*stripes(64, 0), CLASSES, epochs=1, batch_size=32, width=1, seed=seed) for seed in (5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    twin = train(*stripes(64, 0), CLASSES, epochs=1, batch_size=32, width=1, seed=5)
    x = stripes(8, 2)[0]
    assert torch.equal(again(x), twin(x)) and not torch.equal(again(x), other(x))


def test_a_file_says_what_it_is_and_holds_it(made, file):
    found = load(file)
    with safe_open(file, "pt") as header:
        assert header.metadata().items() >= {"data": "stripes", "accuracy": "0.9700", "image_shape": "1 8 8"}.items()
        assert len(header.metadata()["sha256"]) == 64
    assert (found.data, found.accuracy, found.network.training) == ("stripes", 0.97, False)
    x = stripes(50, 3)[0]
    torch.testing.assert_close(found.network(x), made(x), rtol=0, atol=0.05)  # half precision
    assert torch.equal(found.network.features(x), found.network.features(from_uint8(x)))


def test_what_is_none_is_one_line(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="no feature extractor at .*: ebmzoo extractor makes one"):
        load(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("not this")
    for path in (text, DIGITS):
        with pytest.raises(ValueError, match="is not an image classifier of ebmzoo extractor"):
            load(path)
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load(damaged)
    with pytest.raises(ValueError, match="no feature extractor 'inceptoin': digits, cifar10, inception, or a"):
        find_extractor("inceptoin")


def test_one_of_cifar10_ships():
    shipped = find_extractor("cifar10")
    assert (shipped.name, shipped.num_features, shipped.image_shape) == ("cifar10-jpeg-32", 96, (3, 32, 32))
    network, _, accuracy, facts = load(shipped.weights)
    assert (accuracy, facts["images"], facts["classes"]) == (0.8316, "50000", "10")
    assert facts["sha256"] == "c675797d24cb3bd2de32bcb89484806b182d0136e87df4675120de491ac67de5"
    assert shipped.weights.stat().st_size < 700_000
    with pytest.raises(ValueError, match="images of .3, 32, 32., and takes none of .3, 64, 64."):
        shipped.check((3, 64, 64))
    flat = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    assert torch.equal(network.features(flat)[0], network.features(flat)[1])  # evaluation mode: no image sees another


def test_distances_grow_with_noise_and_with_blur(file):
    real, test = stripes(400, 0)[0], stripes(200, 1)[0]
    chance = torch.Generator().manual_seed(0)
    x = from_uint8(test)
    noisy = [x + strength * torch.randn(x.shape, generator=chance) for strength in (0.0, 0.2, 0.4, 0.8)]
    blurred = [x, *(functional.avg_pool2d(x, k, 1, k // 2, count_include_pad=False) for k in (3, 5))]
    for worse in (noisy, blurred):
        found = [fidelity(one, real, str(file), ["fid", "kid"]) for one in worse]
        for metric in ("fid", "kid"):
            values = [one[metric] for one in found]
            assert values == sorted(values) and values[-1] > 3 * abs(values[0]), values
    mixed = [torch.cat([test[: 200 - n], to_uint8(noisy[-1])[:n]]) for n in (0, 50, 100, 200)]
    values = [fidelity(one, real, str(file), ["fid"])["fid"] for one in mixed]
    assert values == sorted(values)


def test_streaming_agrees_with_the_test(file):
    real, test = stripes(400, 0)[0], stripes(200, 1)[0]
    streaming = StreamingFID(str(file))
    streaming.update(real, real=True)
    for part in test.split(70):
        streaming.update(part, real=False)
    assert streaming.compute() == pytest.approx(fidelity(test, real, str(file), ["fid"])["fid"], rel=1e-4, abs=1e-6)


def test_other_images_are_refused_in_one_line(file):
    network = find_extractor(str(file))
    assert (network.name, network.num_features, network.resize) == ("stripes", 12, "none, 8x8 only")
    for shape in ((4, 1, 16, 16), (4, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"learned from stripes, images of \(1, 8, 8\), and takes none of"):
            fidelity(torch.zeros(shape), torch.zeros(shape), str(file))
    with pytest.raises(ValueError, match="sees images of"):
        ImageClassifier((1, 8, 8), 2, 1).features(torch.zeros(2, 1, 9, 9))
    for shape in ((3, 8, 9), (2, 8, 8), (1, 4, 4), (8,)):
        with pytest.raises(ValueError, match="square grey or colour images of 8 px or more"):
            ImageClassifier(shape, 2)


MANY = """
import sys, torch
from ebmzoo.metrics import StreamingFID
fid = StreamingFID(sys.argv[1])
def peak():  # of this process alone: getrusage's begins with that of the process that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
fid.update(torch.zeros(500, 1, 8, 8), real=True)
before = peak()
for real in (True, False):
    for i in range(100):
        fid.update(torch.randint(256, (500, 1, 8, 8), dtype=torch.uint8), real=real)
fid.compute()
print(before, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_fifty_thousand_images_take_no_more_memory_than_five_hundred(file):
    done = subprocess.run([sys.executable, "-c", MANY, str(file)], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())  # KiB
    assert after - before < 50_000 and after < 1_000_000
