"""What a sample costs: network evaluations, and seconds.

A network evaluation is one forward of one example through one network; its gradient counts one more. Forwards are
counted by hooks, which recorded chains call as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Self

import torch
from torch import Tensor, nn

from ebmzoo.methods.capabilities import Samples

from .base import Figure, Findings, Look, Number

_TIMES = 3


@dataclass(frozen=True)
class Cost(Figure):
    """Network evaluations for a sample, and seconds for as many samples as the papers time.

    Args:
        n: samples that the time is for, 2 or more; the papers: 50 (VAEBM), 64 (Denoising-EBM).
    """

    n: int = 50

    name, part, takes, needs = "cost of sampling", "generation", "model", (Samples,)

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"the cost of sampling needs n of at least 2, not {self.n}")

    def __call__(self, look: Look) -> Findings:
        def draw(n: int) -> Any:
            return look.model.sample(n, noise=look.noise())

        found = network_evaluations(look.model, draw)
        yield Number("network_evaluations", found, look.of_samples(2, rounding=None))
        times = [seconds(lambda: draw(self.n), look.device) for _ in range(_TIMES)]
        device = torch.cuda.get_device_name(look.device) if look.device.type == "cuda" else "cpu"
        where = {"unit": "s", "median of": _TIMES, "device": device, "threads": torch.get_num_threads()}
        yield Number(f"seconds_{self.n}_samples", median(times), look.of_samples(self.n, rounding=None, settings=where))


def network_evaluations(model: nn.Module, call: Callable[[int], Any], n: int = 2) -> int:
    """Network evaluations for an example: one forward of a network is one, a gradient through it another.

    Args:
        model: its networks are its children; see `Tally`.
        call: handles so many examples together, such as ``model.sample``.
        n: of examples.

    Example:
        >>> model = nn.ModuleDict({"energy": nn.Sequential(nn.Linear(2, 3), nn.SiLU(), nn.Linear(3, 1))})
        >>> network_evaluations(model, lambda n: model["energy"](torch.zeros(n, 2)))
        2
    """
    with Tally(model) as tally:
        call(n)
    return round(tally.total / n)


def seconds(call: Callable[[], Any], device: torch.device | str = "cpu") -> float:
    """Wall-clock seconds of a call, all of its work on the device done."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda _: None
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began


class Tally:
    """Counts the evaluations of a model's networks, which are its children, while the context lasts.

    A forward whose result has a graph counts as one with a gradient. What a network does beside its forward (a flow's
    ``sample``) counts by its parts with weights: the one used most.

    Args:
        model: its children are the networks, or parts that name theirs by a function ``networks``.

    Example:
        >>> import torch
        >>> model = nn.ModuleDict({"energy": nn.Linear(2, 1)})
        >>> with Tally(model) as tally:
        ...     energy = model["energy"](torch.zeros(5, 2))
        >>> tally.networks
        {'energy': 10}
    """

    def __init__(self, model: nn.Module):
        self._networks: dict[str, nn.Module] = {}
        for name, part in model.named_children():
            inner = getattr(part, "networks", None)
            self._networks |= {name: part} if inner is None else {f"{name}.{own}": net for own, net in inner().items()}
        self._inside: Counter[int] = Counter()  # forwards of a network that are under way, by its id
        self.counts: Counter[tuple[int, bool]] = Counter()  # examples, by a part's id and whether with a gradient
        self._hooks: list[Any] = []

    @property
    def networks(self) -> dict[str, int]:
        """Evaluations until now, by network; those never used are left out."""
        found = {
            name: self._of(network) + max((self._of(part) for part in _parts(network)), default=0)
            for name, network in self._networks.items()
        }
        return {name: count for name, count in found.items() if count}

    @property
    def total(self) -> int:
        """Evaluations until now, of all networks."""
        return sum(self.networks.values())

    def __enter__(self) -> Self:
        for network in set(self._networks.values()):
            self._hooks.append(network.register_forward_pre_hook(self._enter))
            self._hooks.append(network.register_forward_hook(self._leave, always_call=True))
            for part in _parts(network):
                self._hooks.append(part.register_forward_hook(partial(self._count, network)))
        return self

    def __exit__(self, *_: object) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def __deepcopy__(self, memo: Any) -> Tally:
        return self  # a network's copy has its hooks; copies are not counted

    def _of(self, part: nn.Module) -> int:
        return self.counts[id(part), False] + 2 * self.counts[id(part), True]

    # Hooks that only look: a chain's recorded program has no forwards, and calls them once for so many steps.

    def _enter(self, network: nn.Module, inputs: Any, times: int = 1) -> None:
        self._inside[id(network)] += 1

    def _leave(self, network: nn.Module, inputs: Any, output: Any, times: int = 1) -> None:
        self._inside[id(network)] -= 1
        self._count(network, network, inputs, output, times)

    def _count(self, network: nn.Module, part: nn.Module, inputs: Any, output: Any, times: int = 1) -> None:
        if self._inside[id(network)]:
            return
        first = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(first, Tensor) and first.dim():
            self.counts[id(part), first.requires_grad] += times * len(first)

    _enter.observes = _leave.observes = _count.observes = True  # type: ignore[attr-defined]


def _parts(network: nn.Module) -> list[nn.Module]:
    """What of a network holds weights, itself left out."""
    parts = [part for name, part in network.named_modules() if name and "parametrizations" not in name]
    return [part for part in parts if part._parameters or hasattr(part, "parametrizations")]
