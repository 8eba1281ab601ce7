"""What all samplers share: the normal form, the loop, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TYPE_CHECKING, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from .backend import Backend, Walked, engine
from .noise import Noise, as_noise
from .observing import NaNCheck, both, observer_of, refuses_nan
from .potential import Potential, as_potential, frozen, one_per_example, per_example, squared_norm

if TYPE_CHECKING:
    from .averaging import DualAveraging


class State(NamedTuple):
    """What the next step needs.

    Attributes:
        x: where the chains are, ``(B, …)``.
        energy: U ``(B,)``, where it was last taken; may be NaN where nobody looks at it.
        grad: ∇U there, as ``x``, as the step used it.
        accepted: number of accepted steps of each chain, ``(B,)``; None for unadjusted samplers.
        log_ratio: logarithm of the last proposal's acceptance ratio, ``(B,)``; None where there was none.
        velocity: as ``x``, of samplers whose chains have one.
        hotter: of replica exchange, the states at the higher temperatures, from the next one on.
        swapped: of replica exchange, the number of swaps between neighbours, ``(B, len(hotter))``.
    """

    x: Tensor
    energy: Tensor
    grad: Tensor
    accepted: Tensor | None = None
    log_ratio: Tensor | None = None
    velocity: Tensor | None = None
    hotter: tuple[State, ...] = ()
    swapped: Tensor | None = None


Watch = Callable[[int, State], None]
"""Sees each step's number, and where it began with U and ∇U there (with ``noise_first``: just after the noise).

All are tensors that stay as they are, without a graph.
"""


class Chain(NamedTuple):
    """What a sampler returns; one value per example of the batch.

    Attributes:
        x: where the chains ended, shaped as they began.
        energy: ``(B,)`` U at the last evaluated state: for Metropolis samplers the returned one, for unadjusted
            Langevin the one before the last step (evaluating the returned state would cost another forward).
        grad: ∇U there, as the step used it.
        acceptance: ``(B,)`` share of accepted Metropolis steps; None for unadjusted samplers.
        proposal_acceptance: ``(B,)`` share of accepted independence proposals; None where there were none.
        step_size: that the warm-up found, s of the normal form; None without one.
        swap_rate: ``(B, R)`` share of steps that swapped with the next temperature, for each of R pairs of neighbours
            from the coldest on; None but of replica exchange.
    """

    x: Tensor
    energy: Tensor
    grad: Tensor
    acceptance: Tensor | None = None
    proposal_acceptance: Tensor | None = None
    step_size: float | None = None
    swap_rate: Tensor | None = None

    def __repr__(self) -> str:
        """Short: a chain of a thousand images would fill the terminal."""
        accepted = "" if self.acceptance is None else f", acceptance {self.acceptance.mean():.3g}"
        return f"Chain(x {tuple(self.x.shape)}, mean energy {self.energy.mean():.4g}{accepted})"

    @property
    def grad_norm(self) -> Tensor:
        """Euclidean norm of the gradient, ``(B,)``."""
        return squared_norm(self.grad).sqrt()


@dataclass(frozen=True)
class Sampler:
    """Base of the samplers: settings without state, called as ``sampler(potential, x)``; each is only its `step`.

    All samplers are written in one normal form, with stationary density proportional to exp(−U/T):

        x ← x − (s/2) ∇U(x) + √(s·T) ξ,   ξ ~ N(0, I)

    Args:
        steps: number of steps K of a call that names none.
        step_size: s above; for HMC the square of the leapfrog step.
        temperature: T above; 0 is gradient descent (unadjusted Langevin only).
        proposals: independence proposals ε' ~ N(0, T·I) before the first step, each accepted with probability
            min(1, exp((E(ε) − E(ε'))/T)); only for potentials that are white noise, tilted: E(ε) + ½‖ε‖², with E
            as their ``tilt``.
        backend: how U and its gradient are evaluated. "eager" is autograd; "trace" replays the recorded operations,
            the same to the last bit, with what does not depend on the state computed once a chain; it refuses
            potentials that draw random numbers in their forward or branch on values. "cudagraph" (on CUDA) replays
            whole steps as one graph; "compile" makes the trace over by torch.compile (to 1e-5 of the gradient, a minute
            before the first step), and on CUDA captures that. "auto" traces what can be traced once it pays, on CUDA
            captures it in its second chain of a shape, and is eager else.
    """

    adjusted: ClassVar[bool] = False  # by a Metropolis test
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
        if (self.adjusted or self.proposals) and self.temperature == 0:
            raise ValueError(f"{type(self).__name__} accepts by exp(-U/T), which needs a positive temperature")

    def start(self, potential: Walked, x: Tensor, noise: Noise) -> State:
        """The state before the first step."""
        return State(x, x.new_zeros(len(x)), torch.zeros_like(x))

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        """One step: a function of its arguments alone, which it leaves as they are."""
        raise TypeError(f"{type(self).__name__} is a base of the samplers: use Langevin, MALA or HMC")

    def warmed_up(self, potential: Potential, x: Tensor, noise: Noise) -> tuple[Sampler, Tensor]:
        """Who takes the steps of a call, and from where."""
        return self, x

    def kernels(self, steps: int) -> Iterator[tuple[Sampler, float | None]]:
        """Whose `step` each step is, and the noise level to which the potential goes for it (None: it knows none)."""
        return repeat((self, None), steps)

    def __call__(
        self,
        potential: Callable[[Tensor], Tensor],
        x: Tensor,
        noise: None | int | torch.Generator | Noise = None,
        *,
        steps: int | None = None,
        watch: Watch | None = None,
    ) -> Chain:
        """Run the chains of a batch.

        Every chain sees its own gradient: gradients are of the sum of the energies over the batch. The given tensor is
        not changed, nothing of the graph escapes, and memory does not grow with the number of steps. The state is kept
        in fp32 at least (float64 stays); an enclosing autocast holds for the potential alone.

        Args:
            potential: U, a `Potential`, a network or a plain function of ``(B, …)`` to ``(B,)`` or ``(B, 1)``. Its
                modules are frozen for the chain; a function's cannot be found.
            x: where the chains begin, ``(B, …)``.
            noise: the source of noise (a seed and a generator are accepted).
            steps: overrides the sampler's number of steps.
            watch: sees each step, see `Watch`.

        Raises:
            ValueError: the potential does not return one energy per example, a Metropolis sampler was given one that
                redraws, the backend cannot run this potential, or a chain ended with an energy that is NaN, unless
                within `unguarded`.
        """
        steps = self.steps if steps is None else steps
        if steps < 0:
            raise ValueError(f"a chain cannot run {steps} steps")
        whole, source = as_potential(potential), as_noise(noise, x.device)
        if whole.redraws and (self.adjusted or self.proposals):
            raise ValueError(f"{type(self).__name__} accepts by one fixed density: {type(whole).__name__} redraws")
        observer = observer_of(self, whole)
        # Inference mode cannot be left by enable_grad alone, and its tensors cannot enter a graph: leave and clone.
        # Parametrised weights (weight norm, spectral norm) are computed once a chain: frozen, they do not change.
        with torch.inference_mode(False), torch.no_grad(), frozen(whole), parametrize.cached():
            proposed = None
            x = _at_least_fp32(x)
            if self.proposals:
                first = Independence(self.proposals, temperature=self.temperature, backend="eager")
                found = first._run(whole, x, source, self.proposals, None)
                x, proposed = found.x, found.acceptance
            kernel, x = self.warmed_up(whole, x, source)
            # A graph is of one step size, and one that a warm-up found is of this call.
            chain = kernel._run(whole, x, source, steps, both(observer, watch), captures=kernel is self)
        if observer is not None:
            observer.ended(chain)
        return chain._replace(proposal_acceptance=proposed, step_size=None if kernel is self else kernel.step_size)

    def _run(
        self, potential: Potential, x: Tensor, noise: Noise, steps: int, watch: Watch | None, captures: bool = True
    ) -> Chain:
        """``captures``: whether its steps may be graphs."""
        first_level = next(self.kernels(1))[1]
        check = NaNCheck(x) if refuses_nan() else None
        potential.refresh(x, noise, first_level)  # what it draws has a shape from now on, as a program needs
        apart = watch is not None or not steps or not captures
        with engine(self.backend, potential, x, steps, apart) as (walked, slopes, captured):
            noted = Noted(walked)
            state = self.start(walked, x, noise)
            graph = captured(self, state)
            for k, (kernel, level) in enumerate(self.kernels(steps)):
                if k:
                    walked.refresh(state.x, noise, level)
                if graph is not None:
                    state = graph(kernel, state, noise)
                    continue
                looks = watch is not None or k == steps - 1  # the chain returns the energy of its last step
                on: Walked = walked if self.adjusted else noted if looks else slopes
                before, state = state, kernel.step(on, state, noise)
                if watch is not None:
                    watch(k, before if self.adjusted else state._replace(x=noted.x))
                if check is not None:
                    check.look(state.grad)
            if graph is not None:
                state = graph.end(state, check)
            if not steps:
                energy, grad = walked.value_and_grad(state.x)
                state = state._replace(energy=energy, grad=grad)
        if check is not None:
            check.refuse_nan(state.energy, from_start=self.adjusted)
        accepted, swapped = (
            None if count is None else count / max(steps, 1) for count in (state.accepted, state.swapped)
        )
        return Chain(state.x, state.energy, state.grad, accepted, swap_rate=swapped)


@dataclass(frozen=True)
class Metropolis(Sampler):
    """Base of the samplers that accept by exp(−U/T): their state carries U and ∇U where it is.

    Args:
        steps: number of steps K of a call that names none.
        step_size: s; with a warm-up, where the search for it begins.
        temperature: T, above 0.
        proposals: independence proposals before the first step, see `Sampler`.
        backend: how U and its gradient are evaluated, see `Sampler`.
        warmup: steps before the first, in each call, in which dual averaging moves the step size, one for all chains,
            until the share of accepted steps is the target's; then it stays. They count as no steps: nobody watches
            them, and ``acceptance`` is that of the steps after them.
        target_acceptance: δ, the share that the warm-up aims at, between 0 and 1.
    """

    adjusted: ClassVar[bool] = True
    warmup: int = field(default=0, kw_only=True)
    target_acceptance: float = field(default=0.65, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup < 0 or not 0 < self.target_acceptance < 1:
            raise ValueError(
                f"warmup is a count and target_acceptance between 0 and 1, not {self.warmup} and "
                f"{self.target_acceptance}"
            )

    def start(self, potential: Walked, x: Tensor, noise: Noise) -> State:
        energy, grad = potential.value_and_grad(x)
        return State(x, energy, grad, torch.zeros_like(energy))

    def warmed_up(self, potential: Potential, x: Tensor, noise: Noise) -> tuple[Sampler, Tensor]:
        if not self.warmup:
            return self, x
        from .averaging import DualAveraging  # few chains warm up

        averaging = DualAveraging(math.sqrt(self.step_size), self.target_acceptance)
        search = WarmUp(temperature=self.temperature, backend=self.backend, kernel=self, averaging=averaging)
        x = search._run(potential, x, noise, self.warmup, None, captures=False).x
        return replace(self, step_size=averaging.found**2, warmup=0), x

    def accept(self, state: State, x: Tensor, energy: Tensor, grad: Tensor, log_ratio: Tensor, noise: Noise) -> State:
        """The proposed state where a uniform number is below the ratio, the old one elsewhere."""
        accepts = noise.uniform(energy.shape, energy).log() < log_ratio
        there = per_example(accepts, x)
        assert state.accepted is not None
        return State(
            torch.where(there, x, state.x),
            torch.where(accepts, energy, state.energy),
            torch.where(there, grad, state.grad),
            state.accepted + accepts,
            log_ratio,
        )


@dataclass(frozen=True)
class WarmUp(Metropolis):
    """Another sampler's steps, of the size that dual averaging makes of how they fared."""

    kernel: Metropolis = field(kw_only=True)
    averaging: DualAveraging = field(kw_only=True)

    def start(self, potential: Walked, x: Tensor, noise: Noise) -> State:
        return self.kernel.start(potential, x, noise)

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        state = replace(self.kernel, step_size=self.averaging.step**2).step(potential, state, noise)
        assert state.log_ratio is not None
        probability = state.log_ratio.clamp(max=0).exp().nan_to_num(0.0)  # NaN is not accepted
        self.averaging.update(probability.mean().item())
        return state


@dataclass(frozen=True)
class Independence(Metropolis):
    """White noise N(0, T·I) as a proposal, on potentials that are white noise, tilted: accepted by the tilt alone."""

    def start(self, potential: Walked, x: Tensor, noise: Noise) -> State:
        assert isinstance(potential, Potential)
        energy = one_per_example(potential.tilt(x), x)
        return State(x, energy, torch.zeros_like(x), torch.zeros_like(energy))

    def step(self, potential: Walked, state: State, noise: Noise) -> State:
        x = noise.normal(state.x.shape, state.x).mul_(math.sqrt(self.temperature))
        assert isinstance(potential, Potential)
        energy = one_per_example(potential.tilt(x), x)
        return self.accept(state, x, energy, state.grad, (state.energy - energy) / self.temperature, noise)


class Noted:
    """A potential that knows where it was evaluated last: with ``noise_first`` that is not where a step began."""

    x: Tensor

    def __init__(self, walked: Walked):
        self._walked, self.refresh = walked, walked.refresh

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Potential`."""
        self.x = x
        return self._walked.value_and_grad(x)


def _at_least_fp32(x: Tensor) -> Tensor:
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    return x.detach().to(dtype=dtype, copy=True, memory_format=torch.contiguous_format)
