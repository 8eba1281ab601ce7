"""What chains walk on: functions of one tensor that hold, as attributes, all that they are conditioned on, at rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .noise import Noise


class Potential(nn.Module):
    """U, of ``(B, …)`` to ``(B,)``, low where likely: what a sampler walks on.

    A potential is made where it is used. Its attributes are all that it is conditioned on: networks, tensors that are
    given (an origin, an image to explain), numbers (a weight, a temperature). So a sampler finds the networks that it
    must freeze, and what can be recorded of a potential is known by what it holds.

    Potentials compose: ``E1 + E2`` is the product of two densities, ``w * E`` a power of one, ``E / T`` the density at
    a temperature, and `Given` a conditional one. The result is a potential like any other.

    Example:
        >>> class Well(Potential):
        ...     def __init__(self, depth: float):
        ...         super().__init__()
        ...         self.depth = depth
        ...     def forward(self, x):
        ...         return self.depth * (x.square() - 1).square().sum(1)
        >>> energy, grad = Well(2.0).value_and_grad(torch.full((3, 1), 0.5))
        >>> energy.tolist(), grad.flatten().tolist()
        ([1.125, 1.125, 1.125], [-3.0, -3.0, -3.0])
    """

    redraws: ClassVar[bool] = False
    """Whether `refresh` draws or changes something: then there is no one density to accept by."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.refresh is not Potential.refresh and not cls.redraws:
            raise TypeError(f"{cls.__name__} has a refresh of its own: it must say redraws = True")

    def refresh(self, x: Tensor, noise: Noise, level: float | None = None) -> None:
        """Before each step of a chain at ``x``: go to a noise level, draw anew what each step draws.

        What it changes are tensors that the potential itself holds, never numbers.

        Raises:
            ValueError: the sampler has noise levels, and this potential knows none.
        """
        if level is not None:
            raise ValueError(f"{type(self).__name__} knows no noise levels: take a sampler without")

    def tilt(self, x: Tensor) -> Tensor:
        """Of a potential that is white noise, tilted, E(x) + ½‖x‖²: E alone, ``(B,)``.

        Raises:
            ValueError: it is none.
        """
        raise ValueError(f"independence proposals need a potential that is white noise, tilted: {type(self).__name__}")

    def __add__(self, other: Callable[[Tensor], Tensor]) -> Sum:
        return Sum(self, other) if callable(other) else NotImplemented

    def __radd__(self, other: Callable[[Tensor], Tensor]) -> Sum:
        return Sum(other, self) if callable(other) else NotImplemented

    def __mul__(self, weight: float) -> Scaled:
        return Scaled(self, weight) if isinstance(weight, int | float) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, temperature: float) -> Scaled:
        if not isinstance(temperature, int | float):
            return NotImplemented
        if not temperature > 0:
            raise ValueError(f"a temperature is positive, not {temperature}")
        return Scaled(self, 1 / temperature)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """U ``(B,)`` and ∇U, as ``x``: new tensors without a graph, fp32 at least.

        Raises:
            ValueError: it does not return one energy per example.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = one_per_example(self(x), x)
            (grad,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), grad.contiguous()


class Function(Potential):
    """A plain function as a potential; a module's own method freezes that module.

    Example:
        >>> Function(lambda x: x.square().sum(1))(torch.ones(2, 3)).tolist()
        [3.0, 3.0]
    """

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function
        owner = getattr(function, "__self__", None)
        self.owner = owner if isinstance(owner, nn.Module) else None

    def forward(self, x: Tensor) -> Tensor:
        return one_per_example(self.function(x), x)


class Network(Potential):
    """A network as a potential."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The raw network output, ``(B,)``, at least fp32."""
        return one_per_example(self.network(x), x)


class Tethered(Potential):
    """U(x) + w·½‖x − x₀‖²: chains on it are held to where they began.

    Args:
        potential: U, a potential or what can be one.
        origin: x₀, as the state.
        weight: w.

    Raises:
        ValueError: U redraws: a chain refreshes the potential that it walks on, and none inside it.

    Example:
        >>> Tethered(lambda x: x.sum(1), torch.zeros(1, 2), 2.0)(torch.ones(1, 2)).item()
        4.0
    """

    def __init__(self, potential: Callable[[Tensor], Tensor], origin: Tensor, weight: float):
        super().__init__()
        self.potential, self.origin, self.weight = _still(potential, "tethered"), origin, weight

    def forward(self, x: Tensor) -> Tensor:
        return self.potential(x) + 0.5 * self.weight * squared_norm(x - self.origin)


class Sum(Potential):
    """U₁(x) + U₂(x) + …: of the product of the densities, where all of them find x likely.

    Hinton, "Training products of experts by minimizing contrastive divergence", 2002; of trained energies Du, Li and
    Mordatch, "Compositional visual generation with energy based models", 2020.

    Args:
        *potentials: two or more, potentials or what can be one.

    Raises:
        ValueError: one of them redraws: a chain refreshes the potential that it walks on, and none inside it.

    Example:
        >>> total = as_potential(lambda x: x.sum(1)) + (lambda x: 2 * x.sum(1)) + (lambda x: 3 * x.sum(1))
        >>> total(torch.ones(1, 2)).item(), len(total.potentials)
        (12.0, 3)
    """

    potentials: nn.ModuleList

    def __init__(self, *potentials: Callable[[Tensor], Tensor]):
        super().__init__()
        flat = [part for one in potentials for part in (one.potentials if isinstance(one, Sum) else [one])]
        self.potentials = nn.ModuleList(_still(part, "added to another") for part in flat)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (potential(x) for potential in self.potentials)
        for other in others:
            first = first + other
        return first


class Scaled(Potential):
    """w·U(x): of the density to the power w; 1/w is a temperature, and below 0 what was likely is not.

    Args:
        potential: U, a potential or what can be one.
        weight: w.

    Raises:
        ValueError: U redraws, see `Sum`.

    Example:
        >>> E = as_potential(lambda x: x.sum(1))
        >>> (2 * E)(torch.ones(1, 2)).item(), (E / 4)(torch.ones(1, 2)).item()
        (4.0, 0.5)
    """

    def __init__(self, potential: Callable[[Tensor], Tensor], weight: float):
        super().__init__()
        self.potential, self.weight = _still(potential, "scaled"), float(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.potential(x)


class Given(Potential):
    """U of the coordinates that are not observed, the observed ones being held: of the conditional density.

    Its state is a row of what is not observed, ``(B, k)``, in the order of the coordinates.

    Args:
        potential: U of the whole x, a potential or what can be one.
        observation: x where it was observed, NaN where it was not: ``(B, …)``, or ``(1, …)`` for all chains; the same
            coordinates in every row.

    Raises:
        ValueError: rows that differ in what was observed, nothing observed, everything observed, or U redraws.

    Example:
        >>> nan = float("nan")
        >>> conditional = Given(lambda x: (x[:, 0] - x[:, 1]).square(), torch.tensor([[3.0, nan]]))
        >>> state = torch.zeros(4, 1)
        >>> conditional(state).tolist(), conditional.whole(state)[0].tolist()
        ([9.0, 9.0, 9.0, 9.0], [3.0, 0.0])
    """

    def __init__(self, potential: Callable[[Tensor], Tensor], observation: Tensor):
        super().__init__()
        self.potential, self.shape = _still(potential, "conditioned"), tuple(observation.shape[1:])
        if observation.dim() < 2:
            raise ValueError(f"an observation is (B, …) or (1, …), not {tuple(observation.shape)}")
        rows = observation.detach().flatten(1)
        missing = rows[0].isnan()
        if not torch.equal(rows.isnan(), missing.expand_as(rows)):
            raise ValueError("an observation has the same coordinates missing in every row")
        if missing.all() or not missing.any():
            raise ValueError(f"of an observation some coordinates are NaN, not {'all' if missing.all() else 'none'}")
        self.missing, self.known = missing.nonzero()[:, 0], rows[:, ~missing]
        self.order = torch.cat([self.missing, (~missing).nonzero()[:, 0]]).argsort()

    def forward(self, state: Tensor) -> Tensor:
        return self.potential(self.whole(state))

    def whole(self, state: Tensor) -> Tensor:
        """x ``(B, …)``, of what is not observed ``(B, k)``."""
        if state.shape[1:] != self.missing.shape or len(self.known) not in (1, len(state)):
            wanted = f"({'B' if len(self.known) == 1 else len(self.known)}, {len(self.missing)})"
            raise ValueError(f"what is not observed is {wanted}, not {tuple(state.shape)}")
        known = self.known.to(state.dtype).expand(len(state), -1)
        return torch.cat([state, known], 1).index_select(1, self.order).unflatten(1, self.shape)

    def unobserved(self, x: Tensor) -> Tensor:
        """What is not observed of x ``(B, …)``, as a state ``(B, k)``: where a chain may begin."""
        return x.flatten(1).index_select(1, self.missing)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode without parameter gradients; restore both afterwards, on an exception too.

    In eval mode spectral-norm vectors and BatchNorm statistics do not move, so the potential is the same function at
    every step of the chain. Sub-modules get back the very flags they had.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with frozen(net):
        ...     print(net.training, net[0].weight.requires_grad)
        False False
        >>> net.training, net[0].weight.requires_grad
        (True, True)
    """
    # Lists, not generators: a generator that an optimiser has exhausted freezes nothing.
    parts = [part for module in modules for part in module.modules()]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    training = [part.training for part in parts]
    required = [parameter.requires_grad for parameter in parameters]
    try:
        for part in parts:
            part.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, flag in zip(parts, training, strict=True):
            part.training = flag
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)


def _still(function: Callable[[Tensor], Tensor], what: str) -> Potential:
    """A potential that may be a part of another."""
    potential = as_potential(function)
    if potential.redraws:
        raise ValueError(f"{type(potential).__name__} redraws: chains on it cannot be {what}")
    return potential


@dataclass(frozen=True)
class Row:
    """Several tensors ``(B, *shape)`` as one, ``(B, D)``: a state is one tensor.

    Example:
        >>> row = Row(((1, 2, 2), (3,)))
        >>> x = row.pack(torch.zeros(5, 1, 2, 2), torch.ones(5, 3))
        >>> x.shape, [part.shape[1:] for part in row.parts(x)]
        (torch.Size([5, 7]), [torch.Size([1, 2, 2]), torch.Size([3])])
    """

    shapes: tuple[tuple[int, ...], ...]

    def pack(self, *parts: Tensor) -> Tensor:
        """One row of all parts."""
        return torch.cat([part.flatten(1) for part in parts], 1)

    def parts(self, row: Tensor) -> tuple[Tensor, ...]:
        """Views of a row."""
        pieces = zip(row.split([math.prod(shape) for shape in self.shapes], 1), self.shapes, strict=True)
        return tuple(piece.unflatten(1, shape) for piece, shape in pieces)


def as_potential(function: Callable[[Tensor], Tensor]) -> Potential:
    """A potential of a potential (itself), of a network, or of a plain function."""
    if isinstance(function, Potential):
        return function
    return Network(function) if isinstance(function, nn.Module) else Function(function)


def squared_norm(x: Tensor) -> Tensor:
    """‖x‖² of each example, ``(B,)``."""
    return x.flatten(1).square().sum(1)


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Values ``(B,)`` shaped so that they broadcast over the examples of ``like`` ``(B, …)``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def one_per_example(energy: Tensor, x: Tensor) -> Tensor:
    """Energies ``(B,)``, or ``(B, 1)`` as a linear layer leaves them, as ``(B,)``, at least fp32.

    Raises:
        ValueError: it is not one energy per example.
    """
    if energy.shape == (len(x), 1):
        energy = energy.squeeze(1)
    if energy.shape != x.shape[:1]:
        raise ValueError(f"a potential returns one energy per example, shape ({len(x)},), not {tuple(energy.shape)}")
    return energy if energy.dtype == torch.float64 else energy.float()
