"""How fast chains are: steps a second against other ways to write the loop, against the hardware, and how exact.

All ways of a case are timed in the same rounds, in changing order, so that ratios do not depend on how busy the machine
is; each ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ebmzoo.mcmc import HMC, MALA, Langevin, Sampler, as_noise, frozen
from ebmzoo.networks import MLPEnergy, VAEBMEnergy

from .cells import markdown
from .speed_others import as_written, loop, torchebm

aten = torch.ops.aten
_PRODUCTS = (
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
)


@dataclass(frozen=True)
class Case:
    """What is timed.

    Args:
        energy: makes the energy.
        shape: of one example.
        batch: number of chains.
        sampler: the chain; its steps are those of a call.
    """

    energy: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    sampler: Sampler


_ULA = Langevin(steps=10, step_size=1e-2, temperature=1e-2)
_POINTS = Langevin(steps=100, step_size=1e-2, temperature=1e-2)


def _mlp() -> nn.Module:
    return MLPEnergy((2,), width=128, depth=2)


CASES: dict[str, Case] = {
    "table7 c128 b8": Case(partial(VAEBMEnergy, (3, 32, 32)), (3, 32, 32), 8, _ULA),
    "table7 c32 b16": Case(partial(VAEBMEnergy, (3, 32, 32), width=32), (3, 32, 32), 16, _ULA),
    "table7 c32 b8": Case(partial(VAEBMEnergy, (3, 32, 32), width=32), (3, 32, 32), 8, _ULA),
    "table7 c32 b32": Case(partial(VAEBMEnergy, (3, 32, 32), width=32), (3, 32, 32), 32, _ULA),
    "table7 c32 b8 64px": Case(partial(VAEBMEnergy, (3, 64, 64), width=32), (3, 64, 64), 8, _ULA),
    "table7 c32 b1": Case(partial(VAEBMEnergy, (3, 32, 32), width=32), (3, 32, 32), 1, _ULA),
    "mlp b32": Case(_mlp, (2,), 32, _POINTS),
    "mlp b128": Case(_mlp, (2,), 128, _POINTS),
    "mlp b256": Case(_mlp, (2,), 256, _POINTS),
    "mlp hmc b128": Case(_mlp, (2,), 128, HMC(steps=20, step_size=1e-2, leapfrogs=5)),
    "mlp mala b128": Case(_mlp, (2,), 128, MALA(steps=100, step_size=1e-2)),
}


@dataclass(frozen=True)
class Measured:
    """One way of one case.

    Attributes:
        case: name of what is timed.
        way: name of how it is done.
        seconds: median time of one step.
        quartiles: of that time.
        image_steps: chains times steps a second.
        gflops: 2·F·B a step over the time, F the multiply-add FLOPs of a forward of the network as written.
        roofline: time of the convolutions and matrix products of this way's own network alone over that of a step.
        against: name of another way to that way's time over this one's, median and quartiles of the rounds.
        bitwise: whether the chain is to the last bit that of the plain autograd.grad loop (without one: eager's).
        error: largest error of the gradient against float64, over the largest gradient.
        memory: peak above what lay there before, MiB; None where the system does not tell.
    """

    case: str
    way: str
    seconds: float
    quartiles: tuple[float, float]
    image_steps: float
    gflops: float
    roofline: float
    against: dict[str, tuple[float, float, float]]
    bitwise: bool
    error: float
    memory: float | None


def measure(name: str, case: Case, *, rounds: int = 7, device: str = "cpu") -> list[Measured]:
    """Time every way to run a case.

    The ways: "reference", the loop of the public VAEBM and IGEBM code (``.backward()``, parameters live); "naive", the
    same with ``autograd.grad``; "torchebm", its sampler, where it is installed; these three on the network as written.
    "exact" is the kernel on that network, "kernel" on the package's own, "eager" the same by autograd, and "bf16" the
    kernel under autocast.

    Args:
        name: of the case.
        case: what to time.
        rounds: number of interleaved rounds.
        device: where.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = case.energy().to(device)
    x = as_noise(0, device).normal((case.batch, *case.shape), torch.empty(0, device=device))
    written = as_written(net)
    ways = dict(_ways(case.sampler, net, written, x))
    products = {way: _products(used, x, way == "bf16") for way, (used, _) in ways.items()}
    for run in [run for _, run in ways.values()] + list(products.values()):
        run()  # traces, allocations, choices of algorithms
    timed: dict[str, list[float]] = {way: [] for way in ways}
    alone: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        order = list(ways)[:: 1 if turn % 2 else -1]
        for way in order:
            timed[way].append(_seconds(ways[way][1], x.device) / case.sampler.steps)
            alone[way].append(_seconds(products[way], x.device))
    flops = _flops(written, x)
    exact = _gradient(copy.deepcopy(written).double(), x.double())
    end = ways["naive" if "naive" in ways else "eager"][1]()
    gradients = getattr(case.sampler, "leapfrogs", 1)
    found = []
    for way, (used, run) in ways.items():
        low, median, high = _quartiles(timed[way])
        with _autocast(x.device, way == "bf16"):
            error = float((_gradient(used, x) - exact).abs().max() / exact.abs().max())
        same = torch.equal(run(), end)
        against = {
            other: _quartiles([a / b for a, b in zip(timed[other], timed[way], strict=True)])
            for other in ("reference", "naive", "torchebm")
            if other in ways and other != way
        }
        found.append(
            Measured(
                case=name,
                way=way,
                seconds=median,
                quartiles=(low, high),
                image_steps=case.batch / median,
                gflops=2 * flops * gradients / median / 1e9,
                roofline=gradients * _quartiles([a / b for a, b in zip(alone[way], timed[way], strict=True)])[1],
                against={other: (m, lo, hi) for other, (lo, m, hi) in against.items()},
                bitwise=same,
                error=error,
                memory=_peak(run, x.device),
            )
        )
    return found


def _ways(
    sampler: Sampler, net: nn.Module, written: nn.Module, x: Tensor
) -> Iterator[tuple[str, tuple[nn.Module, Callable[[], Tensor]]]]:
    """Name, network, and a run of one call, of every way; the loops know unadjusted Langevin alone."""
    if isinstance(sampler, Langevin):
        yield "reference", (written, partial(loop, written, x, sampler, backward=True))
        yield "naive", (written, partial(loop, written, x, sampler, backward=False))
    other = torchebm(sampler, written, x)
    if other is not None:
        yield "torchebm", (written, other)

    def kernel(used: nn.Module, backend: Any, bf16: bool = False) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with _autocast(x.device, bf16):
                return replace(sampler, backend=backend)(used, x, noise=0).x

        return run

    yield "exact", (written, kernel(written, "trace"))
    yield "eager", (net, kernel(net, "eager"))
    yield "kernel", (net, kernel(net, "trace"))
    if sampler.adjusted is False:
        yield "bf16", (net, kernel(net, "trace", bf16=True))


class _Products(TorchDispatchMode):
    """Keeps the convolutions and matrix products that are run beneath it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _PRODUCTS:
            self.calls.append(partial(function, *args, **(kwargs or {})))
        return function(*args, **(kwargs or {}))


def _products(net: nn.Module, x: Tensor, bf16: bool) -> Callable[[], None]:
    """A run of one gradient's convolutions and matrix products alone, at their shapes, order and dtype."""
    with _autocast(x.device, bf16), _Products() as products:
        _gradient(net, x)

    def run() -> None:
        with torch.no_grad():
            for call in products.calls:
                call()

    return run


def _gradient(net: nn.Module, x: Tensor) -> Tensor:
    with frozen(net):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(net(x).double().sum() if x.dtype == torch.float64 else net(x).float().sum(), x)[0]


def _flops(net: nn.Module, x: Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    return float(counter.get_total_flops())


@contextmanager
def _autocast(device: torch.device, bf16: bool) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
        yield


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Processor time of a run, on CUDA the time between two events."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end) / 1e3
    began = time.process_time()
    run()
    return time.process_time() - began


def _peak(run: Callable[[], Any], device: torch.device) -> float | None:
    """MiB that a run takes at its peak beyond what lies there before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
        before = _status("VmRSS")
        run()
        return (_status("VmHWM") - before) / 2**10
    except (OSError, StopIteration):
        return None


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return low, median, high


def table(rows: Sequence[Measured]) -> str:
    """A Markdown table, one line a way."""
    names = ["reference", "naive", "torchebm"]
    head = ["case", "way", "ms/step", "image-steps/s", "GFLOP/s", "roofline", *(f"x {name}" for name in names)]
    head += ["bitwise", "error", "MiB"]
    lines = []
    for row in rows:
        low, high = (1e3 * quartile for quartile in row.quartiles)
        ratios = [row.against.get(name) for name in names]
        cells = [
            row.case,
            row.way,
            f"{1e3 * row.seconds:.3g} [{low:.3g}, {high:.3g}]",
            f"{row.image_steps:.3g}",
            f"{row.gflops:.3g}",
            f"{row.roofline:.2f}",
            *("" if ratio is None else "{:.2f} [{:.2f}, {:.2f}]".format(*ratio) for ratio in ratios),
            "yes" if row.bitwise else "no",
            f"{row.error:.1e}",
            "" if row.memory is None else f"{row.memory:.0f}",
        ]
        lines.append(cells)
    return markdown(head, lines)
