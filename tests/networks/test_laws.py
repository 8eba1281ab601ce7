"""What every network must obey, over all of them at once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ebmzoo.networks import (
    ConvDecoder,
    ConvEncoder,
    ConvEnergy,
    DualMCMCEncoder,
    DualMCMCEnergy,
    FastGANDecoder,
    MLPDecoder,
    MLPEncoder,
    MLPEnergy,
    MultiScaleResNetEnergy,
    ResNetEncoder,
    SNGANDecoder,
    SNGANEncoder,
    SNGANEnergy,
    VAEBMEnergy,
)

Build = Callable[[], nn.Module]
IMAGE = (3, 16, 16)
LATENT = 6

ENERGIES: dict[str, Build] = {
    "mlp": lambda: MLPEnergy((2,), width=16, input_scale=2.0),
    "mlp-spectral": lambda: MLPEnergy((1, 4, 4), width=16, activation="elu", spectral_norm=True),
    "multi-scale": lambda: MultiScaleResNetEnergy(IMAGE, width=4, multipliers=(1, 2, 2), scales=2, head=16),
    "single-scale": lambda: MultiScaleResNetEnergy(IMAGE, width=4, multipliers=(1, 2), blocks=1, scales=1),
    "vaebm-mnist": lambda: VAEBMEnergy(IMAGE, "stacked_mnist", width=4),
    "vaebm-cifar": lambda: VAEBMEnergy(IMAGE, "cifar10", width=4),
    "vaebm-celeba": lambda: VAEBMEnergy(IMAGE, "celeba64", width=2),
    "vaebm-lsun": lambda: VAEBMEnergy(IMAGE, "lsun64", width=2),
    "vaebm-hq": lambda: VAEBMEnergy((3, 64, 64), "celebahq256", width=1),
    "conv": lambda: ConvEnergy(IMAGE, width=6),
    "conv-linear": lambda: ConvEnergy((1, 8, 8), width=4, output="linear"),
    "sngan": lambda: SNGANEnergy(IMAGE, width=6),
    "sngan-64": lambda: SNGANEnergy((3, 64, 64), width=2),
    "dual": lambda: DualMCMCEnergy(IMAGE, width=6),
    "dual-64": lambda: DualMCMCEnergy((3, 64, 64), width=2),
}
ENCODERS: dict[str, Build] = {
    "mlp": lambda: MLPEncoder((2,), LATENT, width=16),
    "mlp-batch": lambda: MLPEncoder((1, 4, 4), LATENT, width=16, norm="batch"),
    "resnet": lambda: ResNetEncoder(IMAGE, LATENT, width=4),
    "resnet-short": lambda: ResNetEncoder(IMAGE, LATENT, width=4, stages=2, mean="linear"),
    "conv": lambda: ConvEncoder(IMAGE, LATENT, width=4),
    "sngan": lambda: SNGANEncoder(IMAGE, LATENT, width=6),
    "sngan-64": lambda: SNGANEncoder((3, 64, 64), LATENT, width=2),
    "dual": lambda: DualMCMCEncoder(IMAGE, LATENT, width=4),
    "dual-64": lambda: DualMCMCEncoder((3, 64, 64), LATENT, width=2),
}
DECODERS: dict[str, Build] = {
    "mlp": lambda: MLPDecoder((2,), LATENT, width=16),
    "mlp-batch": lambda: MLPDecoder((1, 4, 4), LATENT, width=16, output="tanh", norm="batch"),
    "fastgan-8": lambda: FastGANDecoder((1, 8, 8), LATENT, width=1),
    "fastgan-16": lambda: FastGANDecoder(IMAGE, LATENT, width=1),
    "fastgan-64": lambda: FastGANDecoder((3, 64, 64), LATENT, width=1),
    "fastgan-128": lambda: FastGANDecoder((3, 128, 128), LATENT, width=2),
    "conv": lambda: ConvDecoder(IMAGE, LATENT, width=4),
    "sngan": lambda: SNGANDecoder(IMAGE, LATENT, width=6),
    "sngan-64": lambda: SNGANDecoder((3, 64, 64), LATENT, width=2),
}
ALL = {
    f"{role}-{name}": build
    for role, builds in {"energy": ENERGIES, "encoder": ENCODERS, "decoder": DECODERS}.items()
    for name, build in builds.items()
}


def make(build: Build) -> tuple[nn.Module, Tensor]:
    """The network in float64 and a batch of its inputs."""
    torch.manual_seed(0)
    network = build().double()
    shape = network.image_shape if not hasattr(network, "latent_dim") else (network.latent_dim,)
    return network, torch.randn(4, *shape, dtype=torch.float64)


def flat(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    parts = output if isinstance(output, tuple) else (output,)
    return torch.cat([part.flatten(1) if part.ndim > 1 else part[:, None] for part in parts], dim=1)


@pytest.fixture(params=ALL.values(), ids=ALL.keys())
def network_and_input(request):
    return make(request.param)


@pytest.fixture(params=ENERGIES.values(), ids=ENERGIES.keys())
def energy_and_input(request):
    return make(request.param)


@pytest.mark.parametrize("build", ENERGIES.values(), ids=ENERGIES.keys())
def test_energy_returns_one_number_per_example(build):
    energy, x = make(build)
    assert energy(x).shape == (4,)
    assert energy(x[:1]).shape == (1,)
    assert energy(x).dtype == torch.float64


@pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS.keys())
def test_encoder_returns_mean_and_log_variance(build):
    encoder, x = make(build)
    assert [part.shape for part in encoder(x)] == [(4, LATENT), (4, LATENT)]


@pytest.mark.parametrize("build", DECODERS.values(), ids=DECODERS.keys())
def test_decoder_returns_examples(build):
    decoder, z = make(build)
    assert decoder(z).shape == (4, *decoder.image_shape)


def test_nothing_moves_in_eval_mode(network_and_input):
    network, x = network_and_input
    network.train()
    network(x)
    network.eval()
    before = copy.deepcopy(network.state_dict())
    first, second = flat(network(x)), flat(network(x))
    if isinstance(network, VAEBMEnergy):
        network.spectral_penalty()
    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_examples_do_not_meet_in_eval_mode(network_and_input):
    network, x = network_and_input
    together = flat(network.eval()(x))
    for row in range(len(x)):
        alone = flat(network(x[row : row + 1]))
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-10, atol=1e-12)


def test_examples_differ(network_and_input):
    network, x = network_and_input
    y = flat(network.eval()(x))
    assert torch.unique(y, dim=0).shape[0] == len(x)


def test_state_dict_carries_the_whole_network(network_and_input):
    network, x = network_and_input
    network.train()
    network(x)
    torch.manual_seed(1)
    other = copy.deepcopy(network)
    for tensor in other.state_dict().values():
        tensor.copy_(torch.randn_like(tensor) if tensor.is_floating_point() else tensor)
    other.load_state_dict(network.state_dict())
    for mode in (True, False):  # training uses the spectral vectors, evaluation the BatchNorm statistics
        assert torch.equal(flat(other.train(mode)(x)), flat(network.train(mode)(x)))


def test_a_copy_is_equal_and_independent(network_and_input):
    network, x = network_and_input
    network.eval()
    before = flat(network(x))
    other = copy.deepcopy(network)
    assert torch.equal(flat(other(x)), before)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert torch.equal(flat(network(x)), before)


@pytest.mark.parametrize("build", ALL.values(), ids=ALL.keys())
def test_it_can_be_built_without_memory(build):
    with torch.device("meta"):
        ghost = build()
    tensors = [*ghost.parameters(), *ghost.buffers()]
    assert all(tensor.is_meta for tensor in tensors)
    real = build()
    assert [t.shape for t in tensors] == [t.shape for t in [*real.parameters(), *real.buffers()]]


def test_every_parameter_receives_a_gradient(network_and_input):
    network, x = network_and_input
    y = flat(network.train()(x))
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert sum(parameter.grad.abs().sum() for parameter in network.parameters()) > 0


def test_another_input_shape_is_one_clear_line(network_and_input):
    network, x = network_and_input
    message = rf"{type(network).__name__} was built for \(B, .*got \(4, 5\)"
    with pytest.raises(ValueError, match=message) as error:
        network(torch.zeros(4, 5, dtype=x.dtype))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiScaleResNetEnergy((3, 28, 28)), r"multiples of 32 .*\(32, 64, ...\), got \(3, 28"),
        (lambda: VAEBMEnergy((3, 28, 28)), r"multiples of 8 .*\(8, 16, ...\), got \(3, 28, 28\)"),
        (lambda: VAEBMEnergy((3, 64, 32), "celebahq256"), r"multiples of 64 .*got \(3, 64, 32\)"),
        (lambda: VAEBMEnergy((2,)), r"images \(C, H, W\).*got \(2,\)"),
        (lambda: VAEBMEnergy((3, 32, 32), "imagenet"), "unknown column 'imagenet': choose one of cifar10, c"),
        (lambda: ResNetEncoder((1, 8, 8), 4), r"multiples of 16 .*got \(1, 8, 8\)"),
        (lambda: ResNetEncoder((1, 0, 16), 4), r"multiples of 16 .*got \(1, 0, 16\)"),
        (lambda: ResNetEncoder((1, 16, 16), 4, mean="relu"), "unknown mean 'relu': choose one of tanh"),
        (lambda: FastGANDecoder((3, 28, 28), 4), r"S one of \(8, 16, 32, 64, 128, 256\), got \(3, 28"),
        (lambda: FastGANDecoder((3, 32, 64), 4), r"S one of .*got \(3, 32, 64\)"),
        (lambda: FastGANDecoder((2,), 4), r"S one of .*got \(2,\)"),
        (lambda: ConvEncoder((3, 28, 28), 4), r"ConvEncoder is for images .*S one of 8, 16, 32, 64, 128, got"),
        (lambda: ConvDecoder((3, 256, 256), 4), r"S one of 8, 16, 32, 64, 128, got \(3, 256, 256\)"),
        (lambda: ConvEnergy((3, 32, 64)), r"S one of .*got \(3, 32, 64\)"),
        (lambda: ConvEnergy((3, 32, 32), output="relu"), "unknown output 'relu': choose one of softplus, linear"),
        (lambda: SNGANEncoder((2,), 4), r"SNGANEncoder is for images .*got \(2,\)"),
        (lambda: SNGANDecoder((3, 48, 48), 4), r"S one of 8, 16, 32, 64, 128, 256, got \(3, 48, 48\)"),
        (lambda: SNGANEnergy((3, 4, 4)), r"S one of 8, .*got \(3, 4, 4\)"),
        (lambda: DualMCMCEncoder((3, 28, 28), 4), r"DualMCMCEncoder is for images .*got \(3, 28, 28\)"),
        (lambda: DualMCMCEnergy((2,)), r"S one of 8, 16, 32, 64, 128, 256, got \(2,\)"),
    ],
)
def test_a_size_it_cannot_take_is_one_clear_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_input_gradient_matches_finite_differences(energy_and_input):
    energy, x = energy_and_input
    energy.eval()
    x.requires_grad_()
    (grad,) = torch.autograd.grad(energy(x).sum(), x)
    torch.manual_seed(1)
    direction = torch.randn_like(x)
    h = 1e-6
    with torch.no_grad():
        slope = (energy(x + h * direction) - energy(x - h * direction)) / (2 * h)
    expected = (grad * direction).flatten(1).sum(dim=1)
    torch.testing.assert_close(expected, slope, rtol=1e-6, atol=1e-9)
    assert (expected != 0).all()


def test_gradient_penalty_can_be_differentiated(energy_and_input):
    energy, x = energy_and_input
    energy.eval()

    def penalty() -> Tensor:
        leaf = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(energy(leaf).sum(), leaf, create_graph=True)
        return grad.square().sum()

    weight = next(parameter for parameter in energy.parameters() if parameter.ndim > 1)
    (grad,) = torch.autograd.grad(penalty(), weight)
    torch.manual_seed(1)
    direction, h = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        weight.add_(h * direction)
        above = penalty_without_graph(penalty)
        weight.sub_(2 * h * direction)
        below = penalty_without_graph(penalty)
    torch.testing.assert_close((grad * direction).sum(), (above - below) / (2 * h), rtol=1e-5, atol=1e-9)


def penalty_without_graph(penalty: Callable[[], Tensor]) -> Tensor:
    with torch.enable_grad():
        return penalty().detach()


def test_parametrisations_may_be_baked_for_a_chain(network_and_input):
    network, x = network_and_input
    network.eval()
    live = flat(network(x))
    with parametrize.cached():
        assert torch.equal(flat(network(x)), live)
        assert torch.equal(flat(network(x)), live)
