"""docs/pictures/composition.png: two energies in the plane, their sum, its tempering, and a conditional density.

    python benchmarks/composition.py

Seconds on one core. The shades are exact, the points are chains of `ReplicaExchange`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ebmzoo.mcmc import Given, Potential, ReplicaExchange

OUT = Path(__file__).parents[1] / "docs" / "pictures" / "composition.png"
EDGE, SIDE, POINTS = 4.0, 240, 600
SLICE = 1.0  # the observed second coordinate


class Ring(Potential):
    """((‖x − c‖ − r)/s)²/2."""

    def __init__(self, centre: tuple[float, float], radius: float = 2.0, width: float = 0.25):
        super().__init__()
        self.centre, self.radius, self.width = torch.tensor(centre), radius, width

    def forward(self, x):
        r = torch.linalg.vector_norm(x - self.centre, dim=1)
        return 0.5 * ((r - self.radius) / self.width).square()


def main() -> None:
    """Sample, and draw."""
    torch.manual_seed(0)
    left, right = Ring((-1.0, 0.0)), Ring((1.0, 0.0))
    sampler = ReplicaExchange(steps=100, step_size=0.05, warmup=60, ladder=(3.0, 9.0, 27.0), leapfrogs=2)
    axis = torch.linspace(-EDGE, EDGE, SIDE)
    places = torch.cartesian_prod(axis, axis)
    figure = Figure((15, 3.3), dpi=90, layout="constrained")
    panels = figure.subplots(1, 5)
    both = left + right
    for axes, (title, energy) in zip(
        panels, {"E1": left, "E2": right, "E1 + E2": both, "(E1 + E2) / 8": both / 8}.items(), strict=False
    ):
        chain = sampler(energy, 2 * torch.randn(POINTS, 2), noise=1)
        print(f"{title}: {chain}, swap rates {[round(rate, 2) for rate in chain.swap_rate.mean(0).tolist()]}")
        density = (-energy(places)).exp().view(SIDE, SIDE).T
        axes.imshow(density, origin="lower", extent=(-EDGE, EDGE, -EDGE, EDGE), cmap="Blues", aspect="equal")
        axes.scatter(*chain.x.T, s=3, color="C1", linewidths=0)
        axes.set(title=title, xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xlabel="x₁", ylabel="x₂")
    given = Given(left, torch.tensor([[math.nan, SLICE]]))
    chain = sampler(given, torch.randn(10 * POINTS, 1), noise=2)
    print(f"Given: {chain}")
    weight = (-given(axis[:, None])).exp()
    panels[4].hist(chain.x[:, 0], 80, range=(-EDGE, EDGE), density=True, color="C1", alpha=0.6, label="chains")
    panels[4].plot(axis, weight / (weight.sum() * (axis[1] - axis[0])), color="C0", label="exact")
    panels[4].set(title=f"Given(E1, x₂ = {SLICE:g})", xlabel="x₁", ylabel="density")
    panels[4].legend(loc="upper center", fontsize="small")
    figure.savefig(OUT, metadata={"Software": None})
    print(OUT.relative_to(OUT.parents[2]))


if __name__ == "__main__":
    main()
