"""A page whose chains are Python's: its weights are the network's, its energies, gradients and moments Python's own."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from ebmzoo.cli.explore import _shape
from ebmzoo.mcmc import Langevin
from ebmzoo.networks import MLPEnergy
from ebmzoo.networks.layers import ACTIVATIONS
from ebmzoo.report.explorable import Chains, Perceptron, explorable

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
STARTS = np.random.default_rng(0).normal(size=(600, 2))


def written(network):
    linear = [layer for layer in network.net if isinstance(layer, torch.nn.Linear)]
    weights, biases = ([getattr(one, name).detach().numpy() for one in linear] for name in ("weight", "bias"))
    energy = Perceptron(weights, biases, *_shape(network))
    box = ((-3.0, -4.0), (3.0, 4.0))
    values = np.add.outer(np.linspace(-1, 1, 20) ** 2, np.linspace(-1, 1, 20))
    return explorable(
        energy, values, box, {"its own": STARTS}, Chains(40, 0.05, 0.5), "A <title>", "ebmzoo explore --x '&'"
    )


def network(activation="silu", **settings):
    torch.manual_seed(1)
    return MLPEnergy((2,), width=12, depth=2, activation=activation, input_scale=1.5, **settings).double()


def content(page):
    return json.loads(re.search(r"const content = (.*);\n", page)[1])


def test_what_the_page_holds_is_the_network():
    own = network(spectral_norm=True)
    found = content(written(own))
    unpacked = [
        np.frombuffer(base64.b64decode(one["weight"]), "<f4").reshape(one["outputs"], one["inputs"])
        for one in found["layers"]
    ]
    for weight, layer in zip(unpacked, own.net[::2], strict=True):
        assert np.abs(weight - layer.weight.detach().numpy()).max() < 1e-7
    assert (found["activation"], found["scale"], found["box"]) == ("silu", 1.5, [[-3.0, -4.0], [3.0, 4.0]])
    assert np.allclose(np.frombuffer(base64.b64decode(found["starts"]["its own"]), "<f4"), STARTS.ravel())


def test_words_of_a_run_are_not_markup():
    page = written(network())
    assert "<title>A &lt;title&gt;</title>" in page and "--x &#39;&amp;&#39;" in page
    assert "http://" not in page and "https://" not in page


def run(page, settings):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{page}#{settings}&now=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(re.search(r'id="moments">(.*?)</script>', done.stdout)[1])


@pytest.mark.thorough
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_chains_in_the_browser_are_pythons(tmp_path, activation):
    own = network(activation)
    (tmp_path / "page.html").write_text(written(own))
    found = run(tmp_path / "page.html", "n=600&steps=40&s=0.4&T=0.5&seed=3")
    points = torch.tensor(found["first"]["points"]).double()
    energy, grad = torch.func.vmap(torch.func.grad_and_value(lambda x: own(x[None])[0]))(points)[::-1]
    assert np.allclose(points, STARTS[:8], atol=1e-6) and found["last"]["step"] == 40
    assert np.allclose(found["first"]["energies"], energy.detach(), atol=1e-6)
    assert np.allclose(found["first"]["gradients"], grad.detach(), atol=1e-6)
    # Two samples of the same law: their means differ by no more than five standard errors.
    chain = Langevin(40, 0.4, 0.5)(own, torch.from_numpy(STARTS), noise=0)
    mean, std = chain.x.mean(0), chain.x.std(0)
    assert np.abs(np.array(found["last"]["mean"]) - mean.numpy()).max() < 5 * (2 / 600) ** 0.5 * std.max()
    assert np.abs(np.array(found["last"]["deviation"]) / std.numpy() - 1).max() < 5 / 600**0.5
    assert abs(found["last"]["energy"] - own(chain.x).mean().item()) < 5 * (2 / 600) ** 0.5 * own(chain.x).std().item()
