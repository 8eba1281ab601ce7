"""The health of a method's chains, and what becomes of them when they run on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmzoo.callbacks.figures import curves, rows
from ebmzoo.callbacks.looking import batches_of_samples, chain_steps
from ebmzoo.callbacks.parts.generation import about, compare
from ebmzoo.images import to_uint8
from ebmzoo.methods.capabilities import HasEnergy, Samples
from ebmzoo.metrics import find_extractor, mode_coverage
from ebmzoo.metrics.chains import ChainTrace, convergence, watching

if TYPE_CHECKING:
    from ebmzoo.callbacks.evaluation import Evaluation

__all__ = ["health", "long_run"]

_CHAINS = 64
_MULTIPLES = (1, 10, 100)
_N_LONG = 1000
_SHOWN = 8


def health(e: Evaluation) -> str | None:
    """Energy, displacement, drift against noise, acceptance, R-hat and effective sample size of a few chains."""
    steps = chain_steps(e.model)
    if not isinstance(e.model, Samples) or not steps:
        return f"{type(e.model).__name__} has no chain"
    with watching(e.model) as traces:
        e.model.sample(_CHAINS, steps=steps, noise=e.noise())
    ran = {name: trace for name, trace in traces.items() if trace.energy}
    if not ran:
        return f"no sampler of {type(e.model).__name__} was called"
    for name, trace in ran.items():
        stage = f"{name.rpartition('.')[2]}_" if len(ran) > 1 else ""
        values = _numbers(trace)
        protocol = e.of_samples(_CHAINS, rounding=None, steps=len(trace.energy), settings={"sampler of": name})
        for key, value in values.items():
            e.results.add(f"chain_{stage}{key}", value, protocol)
        title = f"{_CHAINS} chains of {type(e.model).__name__} by its {name}"
        places = list(range(len(trace.energy)))
        lines = {"U": torch.stack(trace.energy)}
        picture = curves(lines, places, "step", "potential U before the step", title, bands=True)
        e.pictures[f"chain_{stage}energy"] = picture
    return None


def _numbers(trace: ChainTrace) -> dict[str, float]:
    energy = torch.stack(trace.energy)
    found = {
        "energy_start": energy[0].mean().item(),
        "energy_end": energy[-1].mean().item(),
        "displacement": trace.displacement[-1].mean().item(),
    }
    if trace.signal_to_noise:
        found["drift_to_noise"] = torch.stack(trace.signal_to_noise).median().item()
    if trace.acceptance:
        found["acceptance_if_adjusted"] = torch.stack(trace.acceptance).mean().item()
    if trace.accepted:
        found["acceptance"] = torch.stack(trace.accepted).mean().item()
    if len(energy) >= 8:  # of the second half: the way in from the start is no sample
        half = len(energy) // 2
        values = torch.cat([energy[..., None], torch.stack(trace.projections)], dim=2)[half:]
        found["rhat"], size = convergence(values)
        if not math.isnan(size):
            found["ess"] = size
    return found


def long_run(e: Evaluation) -> str | None:
    """Chains of 1, 10 and 100 times the training length: distance, saturation and energy of where they are."""
    if not e.plan.long_run:
        return None
    model: Any = e.model
    own = int(getattr(getattr(model, "sampler", None), "steps", 0)) or chain_steps(model)
    if not isinstance(e.model, Samples) or not own:
        return f"{type(model).__name__} has no chain"
    has_energy = isinstance(e.model, HasEnergy)
    shown: list[Tensor] = []
    energies: list[Tensor] = []
    n = min(_N_LONG, e.plan.n_test)
    for multiple in _MULTIPLES:
        steps = own * multiple
        drawn = batches_of_samples(model, n, e.plan.batch_size, e.plan.seed, e.device, steps=steps)
        x = torch.cat([batch.cpu() for batch in drawn])
        found = _of_long(e, x)
        if has_energy:
            energies.append(torch.cat([model.energy(p.to(e.like)).cpu() for p in x.split(e.plan.batch_size)]))
            found["energy"] = energies[-1].double().mean().item()
        protocol = e.of_samples(n, split="train", steps=steps, **_extractor(e))
        for name, value in found.items():
            e.results.add(f"{name}_chain_x{multiple}", value, protocol)
        shown.append(x[:_SHOWN])
    if e.kind == "images":
        named = {f"{own * m:,} steps": x for m, x in zip(_MULTIPLES, shown, strict=True)}
        e.pictures["long_run"] = rows(named, f"the same chains run on ({own} steps in training)")
    if energies:
        test = torch.cat([model.energy(x).cpu() for x in e.batches("test", n)])
        lines = {"samples": torch.stack(energies), "test data": test.expand(len(_MULTIPLES), -1)}
        title = f"where chains go ({n:,} chains; {own} steps in training)"
        places = [own * multiple for multiple in _MULTIPLES]
        picture = curves(lines, places, "steps of the chain", "E(x)", title, bands=True, logarithmic=True)
        e.pictures["long_run_energy"] = picture
    return None


def _extractor(e: Evaluation) -> dict[str, Any]:
    if e.kind != "images" or e.plan.extractor is None:
        return {}
    return about(find_extractor(e.plan.extractor, e.plan.inception_path))


def _of_long(e: Evaluation, x: Tensor) -> dict[str, float]:
    if e.kind == "images":
        found = {"saturation": (x.abs() >= 1).double().mean().item()}
        if e.plan.extractor is not None:
            found["fid"] = compare(e, to_uint8(x), ["fid"])["fid"]
        return found
    density = getattr(e.data, "density", None)
    if density is None or not hasattr(density, "means"):
        return {}
    return {"mode_high_quality_share": mode_coverage(x, density.means, density.std).high_quality_share}
