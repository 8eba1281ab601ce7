"""Why a perfect Denoising-EBM sampled badly: the width of exp(−U_c/T), and how long chains take to it.

    python benchmarks/causes/texture_chain.py [--quick]

No network is trained: the denoisers are the best ones of known data, in closed form; the chains are the package's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import AnnealedLangevin
from ebmzoo.metrics.modes import mode_coverage
from ebmzoo.parts import Texture, chain_std

S, SPACING = 0.0839, 2.0  # of denoising_ebm_gaussians25
CHAINS = {
    "before: T 0.7, σ 0.6 → 0.09, 40 steps of 0.4": AnnealedLangevin(40, 0.4, 0.7, sigma=0.6, sigma_end=0.09),
    "T 1, the paper's": AnnealedLangevin(40, 0.4, 1.0, sigma=0.6, sigma_end=0.09),
    "T 0.3": AnnealedLangevin(40, 0.4, 0.3, sigma=0.6, sigma_end=0.09),
    "T 0.1": AnnealedLangevin(40, 0.4, 0.1, sigma=0.6, sigma_end=0.09),
    "T 0.7, 400 steps": AnnealedLangevin(400, 0.4, 0.7, sigma=0.6, sigma_end=0.09),
    "T 1/4, σ = s, 400 steps": AnnealedLangevin(400, 0.4, 0.25, sigma=S),
    "now: T 0.235, σ 0.6 → s, 80 steps of 0.5": AnnealedLangevin(80, 0.5, 0.235, sigma=0.6, sigma_end=S),
}
IMAGES = {
    "before, training: 90 steps of 0.02, T 1": AnnealedLangevin(90, 0.02, 1.0, sigma=0.4, sigma_end=0.05),
    "before, test: 100 steps of 0.02, T 1": AnnealedLangevin(100, 0.02, 1.0, sigma=0.4, sigma_end=0.05),
    "steps of 0.4, T 1": AnnealedLangevin(100, 0.4, 1.0, sigma=0.4, sigma_end=0.05),
    "now: 100 steps of 0.4, T 1/4": AnnealedLangevin(100, 0.4, 0.25, sigma=0.4, sigma_end=0.05),
}


class BestDenoiser(nn.Module):
    """E[x | x̃] where the data are an even mixture of N(mean, s²I).

    Args:
        means: ``(M, D)``.
        std: s; 0 for points.
    """

    means: Tensor

    def __init__(self, means: Tensor, std: float):
        super().__init__()
        self.register_buffer("means", means)
        self.std, self.image_shape = std, tuple(means.shape[1:])

    def forward(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Map x̃ ``(B, D)`` and σ ``(B,)`` to the mean of x, ``(B, D)``, and no code."""
        variance = self.std**2 + sigma[:, None] ** 2
        share = torch.softmax(-torch.cdist(x, self.means).square() / (2 * variance), 1)
        k = self.std**2 / variance
        return k * x + (1 - k) * share @ self.means, x


def grid() -> BestDenoiser:
    """The 25 Gaussians'."""
    return BestDenoiser(SPACING * torch.tensor(list(product(range(-2, 3), repeat=2))).float(), S)


def gaussians(n: int, longest: int) -> dict[str, tuple[float, float, float]]:
    """Share within 4 s, width inside of it and width by the law, both in s, of each chain from data + 0.3 noise."""
    denoiser, found = grid(), {}
    torch.manual_seed(0)
    start = denoiser.means[torch.randint(25, (n,))] + (S**2 + 0.3**2) ** 0.5 * torch.randn(n, 2)
    for name, sampler in CHAINS.items():
        if sampler.steps > longest:
            continue
        modes = mode_coverage(sampler(Texture(denoiser), start, noise=1).x, denoiser.means, S)
        found[name] = modes.high_quality_share, modes.within_std / S, chain_std(sampler, S) / S
    return found


def images(n: int) -> dict[str, tuple[float, float, float]]:
    """Of data that are one point of 3,072 pixels: noise left, what the law says, share left of the start's error."""
    found = {}
    for name, sampler in IMAGES.items():
        texture, zero = Texture(BestDenoiser(torch.zeros(1, 3072), 0.0)), torch.zeros(n, 3072)
        from_data, from_far = (sampler(texture, zero + start, noise=1).x for start in (0.0, 1.0))
        found[name] = from_data.std().item(), chain_std(sampler), (from_far - from_data).mean().item()
    return found


def main(arguments: Sequence[str] | None = None) -> tuple[dict[str, tuple[float, float, float]], ...]:
    """Print both tables, and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 chains in place of 20,000, no long ones")
    n, longest = (1000, 100) if parser.parse_args(arguments).quick else (20000, 400)
    tables = gaussians(n, longest), images(n // 1000)
    print(f"25 Gaussians, s = {S}, {n:,} chains\n\n| chain | within 4 s | width there, s | width by the law, s |")
    print("|---|---|---|---|")
    for name, (share, width, law) in tables[0].items():
        print(f"| {name} | {share:.3f} | {width:.2f} | {law:.2f} |")
    print("\nA point of 3,072 pixels, σ 0.4 → 0.05\n\n| chain | noise left | by the law | of the start's error |")
    print("|---|---|---|---|")
    for name, (left, law, error) in tables[1].items():
        print(f"| {name} | {left:.4f} | {law:.4f} | {error:.3f} |")
    return tables


if __name__ == "__main__":
    main()
