"""What a study of an energy found: numbers with their explanations, and what its page is drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ebmzoo.figures.annealing import Bracket
from ebmzoo.mcmc import Potential, Sampler


@dataclass(frozen=True)
class Study:
    """What `study` found: ``print`` shows the numbers, `save` writes a page.

    Attributes:
        potential: U, of the density exp(−U/T) with the sampler's T.
        sampler: that took the steps, with the step size that the warm-up found.
        draws: states along the chains, ``(kept, B, …)``: about a hundred, and the chains' ends.
        energies: U before each step, ``(steps, B)``.
        rhat: split, rank-normalised R-hat, the largest of the energy's and the coordinates' (or of eight random
            directions', where there are more coordinates): above 1.01 the chains have not mixed.
        ess: bulk effective sample size, the smallest of the same, of steps × B.
        acceptance: mean share of accepted steps; None of unadjusted kernels.
        swap_rates: of replica exchange, for each pair of neighbouring temperatures; empty for others.
        log_z: log ∫ exp(−U/T) dx between bounds of AIS, nats; None where it was not asked for.
        lattice_log_z: the same as a sum over a lattice in the plane; None elsewhere.
        auroc: of −U, telling the exact samples (or without them the chains' ends) from ``outside``; None without it.
        seconds: that the chains took, warm-up included.
        peak_bytes: of memory: of a GPU, while the chains ran; on a CPU of the whole process, until their end.
        exact: samples of the density that were given; None without.
        outside: examples of something else that were given; None without.
        left_out: what could not be measured, and why.
    """

    potential: Potential = field(repr=False)
    sampler: Sampler
    draws: Tensor
    energies: Tensor
    rhat: float
    ess: float
    acceptance: float | None
    swap_rates: tuple[float, ...]
    log_z: Bracket | None
    lattice_log_z: float | None
    auroc: float | None
    seconds: float
    peak_bytes: int
    exact: Tensor | None
    outside: Tensor | None
    left_out: tuple[str, ...]

    @property
    def samples(self) -> Tensor:
        """Where the chains ended, ``(B, …)``."""
        return self.draws[-1]

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, value and explanation of each number."""
        (steps, chains), last, sampler = self.energies.shape, self.energies[-1], self.sampler
        inside = "the exact samples" if self.exact is not None else "the chains' ends"
        kind = f"{steps:,} steps of {type(sampler).__name__} each, at T = {sampler.temperature:g}"
        rows = [
            ("chains", f"{chains:,}", kind),
            ("step size s", f"{sampler.step_size:.3g}", "of the normal form: x ← x − (s/2) ∇U + √(s·T) ξ"),
            ("energy U", f"{last.mean():.4g} ± {last.std():.2g}", "at the end, mean and standard deviation"),
            (
                "R-hat",
                f"{self.rhat:.3f}",
                "mixed" if self.rhat <= 1.01 else "above 1.01: not mixed, or too short to tell",
            ),
            ("ESS", f"{self.ess:,.0f}", f"of {steps * chains:,} states; {self.ess / self.seconds:,.0f} a second"),
        ]
        if self.acceptance is not None:
            rows.append(("acceptance", f"{self.acceptance:.3f}", "share of steps that were accepted"))
        if self.swap_rates:
            rates = " ".join(f"{rate:.2f}" for rate in self.swap_rates)
            rows.append(("swap rates", rates, "of neighbouring temperatures, from the coldest on"))
        if self.log_z is not None:
            base = "exact samples'" if self.exact is not None else "chains'"
            said = f"nats, by AIS from a Gaussian of the {base} moments, with 99.5% confidence"
            rows.append(("log Z, at least", f"{self.log_z.lower:.3f}", said))
            if math.isnan(self.log_z.upper):
                rows.append(("log Z, at most", "–", "AIS in reverse needs exact or long-run samples"))
            else:
                rows.append(("log Z, at most", f"{self.log_z.upper:.3f}", "nats, by AIS in reverse from the samples"))
        if self.lattice_log_z is not None:
            rows.append(("log Z, lattice", f"{self.lattice_log_z:.3f}", "nats, a sum over the plane: to 1% of Z"))
        if self.auroc is not None:
            rows.append(("AUROC", f"{self.auroc:.3f}", f"of −U: {inside} against the other set"))
        rows.append(("time", f"{self.seconds:.2f} s", f"{1e3 * self.seconds / steps:.3g} ms a step, with the warm-up"))
        where = "of the GPU while the chains ran" if self.draws.is_cuda else "of the process, at its peak"
        return [*rows, ("memory", f"{self.peak_bytes / 2**20:,.0f} MiB", where)]

    def __repr__(self) -> str:
        (steps, chains), found = self.energies.shape, ""
        if self.log_z is not None:
            lower, upper = self.log_z.lower, self.log_z.upper
            found = f", log Z ≥ {lower:.3f}" if math.isnan(upper) else f", log Z in [{lower:.3f}, {upper:.3f}]"
        kind = type(self.sampler).__name__
        return (
            f"Study({chains:,} chains × {steps:,} steps of {kind}, R-hat {self.rhat:.3f}, ESS {self.ess:,.0f}{found})"
        )

    def __str__(self) -> str:
        rows = self.rows()
        name, value = (max(len(row[k]) for row in rows) for k in (0, 1))
        lines = [f"{row[0]:<{name}}  {row[1]:>{value}}  {row[2]}" for row in rows]
        return "\n".join([*lines, *(f"left out: {reason}" for reason in self.left_out)])

    def save(self, path: str | Path, title: str = "An energy", command: str = "") -> Path:
        """Write one HTML page with everything inside it: the numbers, the plane or the images, and the energies.

        Args:
            path: of the page, ending in .html.
            title: what the energy is of.
            command: what makes the page again.

        Raises:
            ValueError: for another ending.
        """
        from .study_page import study_page

        path = Path(path)
        if path.suffix != ".html":
            raise ValueError(f"a study is saved as a page, ending in .html, not {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(study_page(self, title, command))
        return path
