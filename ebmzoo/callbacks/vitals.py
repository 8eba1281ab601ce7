"""What tells a training that goes wrong from one that does not, out of the values that every method reports."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Limits", "Vitals"]


@dataclass(frozen=True)
class Limits:
    """Where an alarm begins; the defaults left healthy runs of all small configs alone by a factor of three and more.

    Args:
        growth: an energy's scale, or a gradient's norm, that is so many times its largest in the last looks.
        energy: a mean energy, in its own unit; what an energy is far from before it has diverged.
        gradient: the norm of a player's gradient.
        saturation: share of a chain's values at the edge of the data's range, for images.
        stillness: root mean square movement of a chain in a value of the data within [-1, 1]; a grey level is 8e-3.
        patience: looks in a row that a saturated or frozen chain, or an energy without a gap, is watched before.
    """

    growth: float = 100.0
    energy: float = 1e4
    gradient: float = 1e6
    saturation: float = 0.98
    stillness: float = 1e-5
    patience: int = 3


@dataclass
class Vitals:
    """Holds the values of one look against those of the last ones.

    Args:
        images: whether examples are images, whose range is [-1, 1].
        limits: see `Limits`.

    Example:
        >>> vitals = Vitals(images=True)
        >>> vitals.complaint({"train/energy_gap": 0.1, "mcmc/movement": 0.05})
        >>> vitals.complaint({"train/energy_gap": float("nan")})
        'train/energy_gap is nan'
    """

    images: bool
    limits: Limits = field(default_factory=Limits)
    _past: dict[str, deque[float]] = field(default_factory=dict)
    _streaks: dict[str, int] = field(default_factory=dict)

    def complaint(self, values: Mapping[str, float]) -> str | None:
        """What is wrong with the values of a look, in words; None if nothing is."""
        for name, value in values.items():
            if not math.isfinite(value):
                return f"{name} is {value}"
        return self._grown(values) or self._flat(values) or self._chain(values)

    def _grown(self, values: Mapping[str, float]) -> str | None:
        limits = self.limits
        scales = {name: abs(value) for name, value in values.items() if "grad_norm" in name}
        energies = [abs(values[name]) for name in ("train/energy_data", "train/energy_model") if name in values]
        if energies:
            scales["the energy's scale"] = max(energies)
        if "train/energy_gap" in values:
            scales["the energy gap"] = abs(values["train/energy_gap"])
        for name, scale in scales.items():
            most = limits.gradient if "grad_norm" in name else limits.energy
            if scale > most:
                return f"{name} is {scale:.3g}, more than {most:.3g}"
            past = self._past.setdefault(name, deque(maxlen=20))
            usual = max(past, default=0.0)
            # The first looks are of untrained networks, and a small number may double often.
            if len(past) >= 5 and scale > limits.growth * usual and scale > most / 1000:
                return f"{name} is {scale:.3g}, and was {usual:.3g} at most before"
            past.append(scale)
        return None

    def _flat(self, values: Mapping[str, float]) -> str | None:
        gap, energy = values.get("train/energy_gap"), values.get("train/energy_data")
        flat = gap is not None and energy is not None and abs(gap) <= 1e-6 * abs(energy)
        if self._lasts("flat", flat):
            return f"the energy is flat: train/energy_gap is {gap:.3g} where train/energy_data is {energy:.3g}"
        return None

    def _chain(self, values: Mapping[str, float]) -> str | None:
        limits = self.limits
        edge = values.get("mcmc/saturation")
        if self._lasts("saturated", self.images and edge is not None and edge > limits.saturation):
            return f"the chain is saturated: {edge:.1%} of its values are at the edge of the data's range"
        moved = values.get("mcmc/movement")
        if self._lasts("frozen", moved is not None and moved < limits.stillness):
            return f"the chain is frozen: mcmc/movement is {moved:.3g}"
        return None

    def _lasts(self, what: str, now: bool) -> bool:
        self._streaks[what] = self._streaks.get(what, 0) + 1 if now else 0
        return self._streaks[what] >= self.limits.patience
