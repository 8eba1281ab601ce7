"""What all samplers share: the call, the target they walk on, and what they return."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, NamedTuple, TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .backend import Backend, Evaluation, Potential, evaluation
from .frozen import frozen
from .noise import Noise, as_noise
from .watch import Watch, guarded

State = Tensor | tuple[Tensor, ...]
S = TypeVar("S", Tensor, tuple[Tensor, ...])
Callback = Callable[[int, State, Tensor], None]


class Chain(NamedTuple, Generic[S]):
    """What a sampler returns; one value per example of the batch.

    Attributes:
        state: where the chains ended, shaped as they began.
        energy: ``(B,)`` U at the last evaluated state: for Metropolis samplers the returned one, for unadjusted
            Langevin the one before the last step (evaluating the returned state would cost another forward).
        grad_norm: ``(B,)`` Euclidean norm of the gradient there, as the step used it.
        acceptance: ``(B,)`` share of accepted Metropolis steps; None for unadjusted samplers.
        proposal_acceptance: ``(B,)`` share of accepted independence proposals; None where there were none.
    """

    state: S
    energy: Tensor
    grad_norm: Tensor
    acceptance: Tensor | None = None
    proposal_acceptance: Tensor | None = None


@dataclass(frozen=True)
class Sampler:
    """Base of the samplers: settings without state, called as ``sampler(potential, state)``.

    All samplers are written in one normal form, with stationary density proportional to exp(−U/T):

        x ← x − (s/2) ∇U(x) + √(s·T) ξ,   ξ ~ N(0, I)

    Args:
        steps: number of steps K of a call that names none.
        step_size: s above; for HMC the square of the leapfrog step.
        temperature: T above; 0 is gradient descent (unadjusted Langevin only).
        proposals: independence proposals ε' ~ N(0, T·I) before the first step, each accepted with probability
            min(1, exp((E(ε) − E(ε'))/T)); only for states that are white noise under the base density (``white``).
        backend: how U and its gradient are evaluated. "eager" is autograd; "trace" replays the recorded operations,
            the same to the last bit, with what depends on the networks' weights alone computed once a chain; it
            refuses potentials that draw random numbers or branch on values. "compile" (torch.compile, to 1e-5 of the
            gradient, a minute before the first step) and "cudagraph" (on CUDA) run the trace. "auto" traces what can
            be traced once it pays, and is eager else.
    """

    metropolis: ClassVar[bool] = False
    steps: int = 20
    step_size: float = 0.01
    temperature: float = 1.0
    proposals: int = 0
    backend: Backend = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        if self.backend not in get_args(Backend):
            raise ValueError(f"unknown backend {self.backend!r}: choose one of {', '.join(get_args(Backend))}")
        if self.steps < 0 or self.proposals < 0:
            raise ValueError(f"steps and proposals are counts, not {self.steps} and {self.proposals}")
        if self.step_size <= 0 or self.temperature < 0:
            raise ValueError(
                f"step_size must be positive and temperature not negative, not {self.step_size} and {self.temperature}"
            )
        if self.metropolis and self.temperature == 0:
            raise ValueError(f"{type(self).__name__} accepts by exp(-U/T), which needs a positive temperature")

    def __call__(
        self,
        potential: Potential,
        state: S,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        callback: Callback | None = None,
        networks: Iterable[nn.Module] = (),
        white: bool | Sequence[bool] = False,
        given: Sequence[Tensor] = (),
        draws: Sequence[tuple[int, ...]] = (),
    ) -> Chain[S]:
        """Run the chains of a batch.

        Every chain sees its own gradient: gradients are of the sum of the energies over the batch. The given state is
        not changed, nothing of the graph escapes, and memory does not grow with the number of steps. The state is kept
        in fp32 at least (float64 stays); an enclosing autocast holds for the potential alone.

        Args:
            potential: U, called with the state's leaves, what is ``given`` and what is drawn, all as positional
                arguments, returning ``(B,)`` or ``(B, 1)``. It must not draw random numbers.
            state: where the chains begin: a tensor ``(B, …)`` or a tuple of such.
            steps: overrides the sampler's number of steps.
            noise: the source of noise (a seed and a generator are accepted).
            callback: called as ``callback(step, state, energy)`` before each step. The state is the running buffer:
                clone what you keep, as `Trajectory` does.
            networks: the modules that the potential uses; they are frozen for the chain. A potential that is itself
                a module is frozen anyway.
            white: leaves (all, or one flag a leaf) with a white-noise prior: ½‖leaf‖² is added to U analytically.
            given: tensors ``(B, …)`` that the potential takes after the leaves, the same at every step: what the chain
                is conditioned on.
            draws: shapes, without the batch, of white noise that the potential takes after those, drawn afresh at every
                step (unadjusted Langevin only: an acceptance needs one fixed density).

        Raises:
            ValueError: the potential does not return one energy per example, noise was asked for with a Metropolis
                sampler, the backend cannot run this potential, or a chain ended with an energy that is NaN,
                unless within `unguarded`.
        """
        steps = self.steps if steps is None else steps
        if steps < 0:
            raise ValueError(f"a chain cannot run {steps} steps")
        source = as_noise(noise, (state if isinstance(state, Tensor) else state[0]).device)
        if draws and (self.metropolis or self.proposals):
            raise ValueError(
                f"{type(self).__name__} accepts by one fixed density: its potential cannot take fresh noise"
            )
        modules = [*networks, *([potential] if isinstance(potential, nn.Module) else [])]
        # Inference mode cannot be left by enable_grad alone, and its tensors cannot enter a graph: leave and clone.
        # Parametrised weights (weight norm, spectral norm) are computed once a chain: frozen, they do not change.
        with torch.inference_mode(False), torch.no_grad(), frozen(*modules), parametrize.cached():
            leaves = [_at_least_fp32(leaf) for leaf in ([state] if isinstance(state, Tensor) else state)]
            fixed = [tensor.detach() for tensor in given]
            evaluate = evaluation(self.backend, potential, leaves, fixed, draws, modules, steps + self.proposals)
            watch = Watch(leaves[0]) if guarded() else None
            target = Target(evaluate, isinstance(state, Tensor), _flags(white, leaves), draws, source, watch)
            proposed = self._propose(target, leaves, source) if self.proposals else None
            energy, grad_norm, acceptance = self._run(target, leaves, steps, source, callback)
            if watch is not None:
                watch.refuse_nan(energy, from_start=self.metropolis)
        return Chain(cast(S, target.pack(leaves)), energy, grad_norm, acceptance, proposed)

    def _run(
        self, target: Target, leaves: list[Tensor], steps: int, noise: Noise, callback: Callback | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Move ``leaves`` in place; return the last energy, its gradient's norm, and the acceptance."""
        raise TypeError(f"{type(self).__name__} is the base of the samplers: use Langevin, MALA or HMC")

    def _propose(self, target: Target, leaves: list[Tensor], noise: Noise) -> Tensor:
        if not all(target.white) or self.temperature == 0:
            raise ValueError("independence proposals need a white-noise prior on every leaf and a positive temperature")
        energy = target.energy(leaves)
        accepted = torch.zeros_like(energy)
        for _ in range(self.proposals):
            fresh = [noise.normal(leaf.shape, leaf).mul_(math.sqrt(self.temperature)) for leaf in leaves]
            proposed = target.energy(fresh)
            accept = noise.uniform(energy.shape, energy).log() < (energy - proposed) / self.temperature
            energy = torch.where(accept, proposed, energy)
            select_(accept, leaves, fresh)
            accepted += accept
        return accepted / self.proposals


class Target:
    """U and its gradient over the leaves of a state, with the analytic white-noise terms."""

    def __init__(
        self,
        evaluate: Evaluation,
        single: bool,
        white: Sequence[bool],
        draws: Sequence[tuple[int, ...]],
        noise: Noise,
        watch: Watch | None = None,
    ):
        self.evaluate, self.single, self.white, self.draws, self.noise = evaluate, single, white, draws, noise
        self.watch = watch

    def pack(self, leaves: Sequence[Tensor]) -> State:
        """The leaves in the shape in which the state came."""
        return leaves[0] if self.single else tuple(leaves)

    def energy(self, leaves: Sequence[Tensor]) -> Tensor:
        """The potential alone, without the white-noise terms, ``(B,)``, at least fp32."""
        energy, _ = self.evaluate(leaves, self._drawn(leaves), energy=True, gradient=False)
        return cast(Tensor, energy)

    def gradient(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of U for each leaf, prior terms included: new tensors."""
        _, grads = self.evaluate(leaves, self._drawn(leaves), energy=False, gradient=True)
        if self.watch is not None:
            self.watch.look(grads[0])
        return self._with_prior(leaves, grads)

    def value_and_grad(self, leaves: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """U ``(B,)`` and its gradient for each leaf, prior terms included: new tensors."""
        energy, grads = self.evaluate(leaves, self._drawn(leaves), energy=True, gradient=True)
        energy = cast(Tensor, energy)
        if self.watch is not None:
            self.watch.look(energy)
        for leaf, white in zip(leaves, self.white, strict=True):
            if white:
                energy = energy + 0.5 * squared_norm([leaf])
        return energy, self._with_prior(leaves, grads)

    def _with_prior(self, leaves: Sequence[Tensor], grads: list[Tensor]) -> list[Tensor]:
        for leaf, white, grad in zip(leaves, self.white, grads, strict=True):
            if white:
                grad.add_(leaf)
        return grads

    def _drawn(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """The noise that the potential takes at this step."""
        return [self.noise.normal((len(leaves[0]), *shape), leaves[0]) for shape in self.draws]


def squared_norm(leaves: Sequence[Tensor]) -> Tensor:
    """Sum of squares per example over all leaves, ``(B,)``."""
    first, *others = (leaf.flatten(1).square().sum(1) for leaf in leaves)
    return sum(others, start=first)


def select_(accept: Tensor, leaves: Sequence[Tensor], proposed: Sequence[Tensor]) -> None:
    """Overwrite, in place, the accepted examples of ``leaves`` with the proposed ones."""
    for leaf, new in zip(leaves, proposed, strict=True):
        torch.where(per_example(accept, leaf), new, leaf, out=leaf)


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Values ``(B,)`` shaped so that they broadcast over the examples of ``like`` ``(B, …)``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _flags(white: bool | Sequence[bool], leaves: Sequence[Tensor]) -> list[bool]:
    """One flag a leaf."""
    flags = [white] * len(leaves) if isinstance(white, bool) else list(white)
    if len(flags) != len(leaves):
        raise ValueError(f"white has {len(flags)} flags for {len(leaves)} leaves")
    return flags


def _at_least_fp32(leaf: Tensor) -> Tensor:
    dtype = leaf.dtype if leaf.dtype == torch.float64 else torch.float32
    return leaf.detach().to(dtype=dtype, copy=True, memory_format=torch.contiguous_format)
