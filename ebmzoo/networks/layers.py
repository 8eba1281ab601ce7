"""Pieces that several networks share: named choices, size checks, pooled convolution, weight norm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")

Activation = Literal["relu", "leaky_relu", "silu", "elu", "tanh"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}


def pick(choices: Mapping[str, T], key: str, what: str) -> T:
    """Return `choices[key]`, or say which choices there are.

    Raises:
        ValueError: if `key` is not one of the choices.

    Example:
        >>> pick(ACTIVATIONS, "elu", "activation")()
        ELU(alpha=1.0)
    """
    if key not in choices:
        raise ValueError(f"unknown {what} {key!r}: choose one of {', '.join(choices)}")
    return choices[key]


def check_image(shape: tuple[int, ...], multiple: int, network: nn.Module) -> tuple[int, int, int]:
    """Return `shape` as (C, H, W), or refuse it when a side is not a multiple of `multiple`.

    Raises:
        ValueError: naming the sizes that the network can take.
    """
    if len(shape) != 3 or any(side < multiple or side % multiple for side in shape[1:]):
        raise ValueError(
            f"{type(network).__name__} takes images (C, H, W) with H and W multiples of {multiple} here "
            f"({multiple}, {2 * multiple}, ...), got {tuple(shape)}"
        )
    channels, height, width = shape
    return channels, height, width


def check_square(shape: tuple[int, ...], sizes: Sequence[int], network: nn.Module) -> tuple[int, int]:
    """Return channels and side of a square image, or refuse one whose side is not in `sizes`.

    Raises:
        ValueError: naming the sizes that the network can take.
    """
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in sizes:
        name, known = type(network).__name__, ", ".join(map(str, sizes))
        raise ValueError(f"{name} is for images (C, S, S) with S one of {known}, got {tuple(shape)}")
    return shape[0], shape[1]


def in_range(x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` clamped to [-1, 1]; points ``(B, D)``, which have no range, as they are.

    Example:
        >>> import torch
        >>> in_range(torch.full((1, 1, 1, 1), 1.5)).item(), in_range(torch.full((1, 1), 1.5)).item()
        (1.0, 1.5)
    """
    return x.clamp(-1, 1) if x.dim() == 4 else x


def check_input(x: Tensor, shape: tuple[int, ...], network: nn.Module) -> None:
    """Refuse a batch whose examples do not have the shape that the network was built for.

    Raises:
        ValueError: if `x` is not `(B, *shape)`.
    """
    if x.shape[1:] != torch.Size(shape):
        expected = ", ".join(["B", *map(str, shape)])
        raise ValueError(f"{type(network).__name__} was built for ({expected}), got {tuple(x.shape)}")


NARROW = 64


def narrow(width: int) -> bool:
    """Whether convolutions of this width are faster in channels-last order: on CPU by 1.2 to 1.35 up to 64 channels.

    Wider ones gain nothing from it in a chain and lose in training (docs/speed.md).
    """
    return width <= NARROW


def channels_last(x: Tensor, wanted: bool) -> Tensor:
    """`x` (B, C, H, W), in channels-last order where that is wanted and `x` is on a CPU; what follows keeps the order.

    Example:
        >>> channels_last(torch.zeros(2, 3, 4, 4), True).stride()
        (48, 1, 12, 3)
    """
    return x.contiguous(memory_format=torch.channels_last) if wanted and x.device.type == "cpu" else x


def order_for_gpu(module: nn.Module) -> None:
    """Bring networks that say ``channels_last_on_gpu`` into that order of memory: their maps follow.

    Those that gain by it say so, and what (one H200, docs/speed.md). EC-VAE's `FastGANDecoder` loses, 14.6 to 17 ms;
    the others have not been measured, and stay as torch has them. Values, names and shapes are the same; so are
    checkpoints.

    Example:
        >>> from ebmzoo.networks import VAEBMEnergy
        >>> energy = VAEBMEnergy((1, 8, 8), column="stacked_mnist", width=8)
        >>> order_for_gpu(nn.Sequential(energy))
        >>> energy.blocks[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
        True
    """
    for part in module.modules():
        if getattr(part, "channels_last_on_gpu", False):
            part.to(memory_format=torch.channels_last)


def doubled(x: Tensor, align_corners: bool = False) -> Tensor:
    """The map `x` (B, C, H, W) at twice its size, bilinear, in its own order of memory.

    Torch's own operation on CUDA, in channels-first order, has one thread for each pixel of a map, which goes through
    all examples and channels: 15 ms a call in a generator of 512 channels, 82% of an iteration of Dual-MCMC
    (docs/speed.md). There it is two products with matrices.

    Args:
        x: the map.
        align_corners: whether the corners of both maps lie on each other; else their outer edges do.

    Example:
        >>> doubled(torch.tensor([[[[0.0, 4.0]]]]))[0, 0, 0].tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    if x.is_cuda:
        return doubled_by_products(x, align_corners)
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align_corners)


def doubled_by_products(x: Tensor, align_corners: bool = False) -> Tensor:
    """`doubled` as two products with matrices, of the lines and of the columns."""
    lines, columns = (_doubling(size, x, align_corners) for size in x.shape[2:])
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return lines.T @ (x @ columns)
    x = x.permute(0, 2, 3, 1)  # channels innermost
    x = (lines.T @ x.flatten(2)).unflatten(2, x.shape[2:])
    return (columns.T @ x).permute(0, 3, 1, 2)


def _doubling(size: int, like: Tensor, align_corners: bool) -> Tensor:
    """What doubling makes of the unit vectors of a line, (size, 2·size): its matrix."""
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    units = torch.eye(size, dtype=dtype, device=like.device)[None]
    matrix = F.interpolate(units, scale_factor=2, mode="linear", align_corners=align_corners)[0]
    return matrix.to(like.dtype)


_set: WeakIdKeyDictionary = WeakIdKeyDictionary()


def is_set(flag: Tensor) -> bool:
    """Whether a network's flag, a buffer of its own, is set: its device is asked once, and again after each change.

    Example:
        >>> flag = torch.tensor(False)
        >>> is_set(flag), is_set(flag.fill_(True)), is_set(flag)
        (False, True, True)
    """
    if _set.get(flag) != flag._version:
        if not flag:
            return False
        _set[flag] = flag._version
    return True


class ConvMeanPool(nn.Conv2d):
    """A convolution that keeps the size, then 2x2 mean pooling, computed as one strided convolution.

    Mean pooling is linear, so the two fold into one convolution of stride 2 whose kernel is the mean of the
    four shifts of the original: for a 3x3 kernel 16 products per output instead of 36. The function is the
    same, zero padding included; only the rounding differs. Parameters, state dict and parametrisations
    (spectral norm, weight norm) see the original kernel.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd size of the kernel.
        bias: whether to add a bias.

    Example:
        >>> layer, x = ConvMeanPool(3, 5), torch.ones(2, 3, 8, 8)
        >>> layer(x).shape, layer.state_dict()["weight"].shape
        (torch.Size([2, 5, 4, 4]), torch.Size([5, 3, 3, 3]))
    """

    folding: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        # What padding and mean pooling do to each basis kernel: one small matrix product then folds any
        # kernel, 30 times faster on CPU than pooling the thousands of tiny maps that a kernel is.
        basis = torch.eye(kernel_size**2).view(-1, 1, kernel_size, kernel_size)
        folding = F.avg_pool2d(F.pad(basis, (1, 1, 1, 1)), 2, stride=1).flatten(1)
        self.register_buffer("folding", folding, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, in_channels, H, W) to (B, out_channels, H // 2, W // 2)."""
        size = self.kernel_size[0]
        if size == 1:  # commutes with pooling, so the smaller map is convolved
            return F.conv2d(F.avg_pool2d(x, 2), self.weight, self.bias)
        kernel = (self.weight.flatten(2) @ self.folding).unflatten(2, (size + 1, size + 1))
        return F.conv2d(x, kernel, self.bias, stride=2, padding=size // 2)


class WeightNorm(nn.Module):
    """Weight normalisation with a learned log-gain per output channel: weight = exp(log_gain) · v / ‖v‖.

    Salimans & Kingma, 2016 (arXiv:1602.07868), Eq. 2 with g = exp(log_gain), and the data-dependent
    initialisation of their section 3. It also carries, as a buffer, the left singular vector with which
    `spectral_norms` follows the weight.

    Args:
        weight: the weight to be normalised, output channels first; the gain starts so that nothing changes.

    Example:
        >>> v = torch.randn(8, 3, 3, 3)
        >>> torch.allclose(WeightNorm(v)(5 * v), v, atol=1e-6)
        True
    """

    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(weight.detach().flatten(1).norm(dim=1).log())
        self.register_buffer("u", F.normalize(torch.randn(len(weight)), dim=0))

    def forward(self, v: Tensor) -> Tensor:
        """Map the free weight `v` to the weight that the layer uses."""
        scale = self.log_gain.exp() / v.flatten(1).norm(dim=1)
        return v * scale.view(-1, *[1] * (v.ndim - 1))

    @torch.no_grad()
    def fit(self, conv: nn.Conv2d, x: Tensor, std: float = 0.2) -> None:
        """Choose gain and bias so that the convolution maps `x` to outputs of the given standard deviation.

        Statistics are population statistics over batch and space, per output channel. With a bias the mean
        becomes zero; a layer without one keeps its mean.
        """
        y = F.conv2d(x, conv.weight, None, conv.stride, conv.padding)
        variance, mean = torch.var_mean(y, dim=(0, 2, 3), correction=0)
        # The floor keeps a filter that saw a constant input from getting an enormous gain.
        scale = std / variance.sqrt().clamp_min(1e-4)
        self.log_gain.add_(scale.log())
        if conv.bias is not None:
            conv.bias.copy_(-mean * scale)


def weight_norm(conv: nn.Conv2d) -> WeightNorm:
    """Put `WeightNorm` on the weight of a convolution and return it.

    Example:
        >>> conv = nn.Conv2d(3, 8, 3)
        >>> norm = weight_norm(conv)
        >>> norm.fit(conv, torch.rand(16, 3, 8, 8))
        >>> round(conv(torch.rand(16, 3, 8, 8)).std().item(), 1)
        0.2
    """
    norm = WeightNorm(conv.weight)
    register_parametrization(conv, "weight", norm)
    return norm


def spectral_norms(layers: Sequence[nn.Conv2d], iterations: int, move: bool) -> Tensor:
    """The spectral norms of convolutions' kernels as matrices (outputs, rest), in no particular order.

    Kernels of one shape go through the power iteration together: a network has tens or hundreds of a few shapes.

    Args:
        layers: convolutions that keep a left singular vector each: in their `WeightNorm`, or as their buffer ``u``.
        iterations: number of power iterations from the kept vectors.
        move: whether to keep the new vectors.
    """
    groups: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for layer in layers:
        matrix = layer.weight.flatten(1)
        groups[matrix.shape].append((matrix, _vector(layer)))
    norms = []
    for members in groups.values():
        kept = [vector for _, vector in members]
        matrices, u = torch.stack([matrix for matrix, _ in members]), torch.stack(kept)[:, None, :]
        with torch.no_grad():
            for _ in range(iterations):
                v = F.normalize(u @ matrices, dim=2)
                u = F.normalize(v @ matrices.mT, dim=2)
            if move:
                torch._foreach_copy_(kept, list(u[:, 0].unbind()))
        norms.append((u @ matrices @ v.mT).flatten())
    return torch.cat(norms)


def _vector(layer: nn.Conv2d) -> Tensor:
    if is_parametrized(layer, "weight"):
        norm = layer.get_submodule("parametrizations.weight.0")
        assert isinstance(norm, WeightNorm)
        return norm.u
    return layer.get_buffer("u")
