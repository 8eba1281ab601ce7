"""Figures of docs/speed.md that are no plain chain: a whole training iteration, and VAEBM's joint chain.

    python benchmarks/speed.py [rounds]

Each is run as this package does and as it is plainly written (unfolded convolutions, weight norm at every forward,
``autograd.grad`` or, for VAEBM, ``.backward()`` on live parameters), in turn; ratios are medians of the rounds' own.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.networks import ConvDecoder, MLPEncoder, VAEBMEnergy
from ebmzoo.parts import GaussianVAE, InNoise
from ebmzoo.report.speed_others import as_written, loop


def iteration(net: nn.Module, data: Tensor, start: Tensor, sampler: Langevin, plain: bool) -> Callable[[], float]:
    """One step of an energy: chains, then Adam on E(data) − E(negatives)."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-5)

    def run() -> float:
        negatives = loop(net, start, sampler, backward=False) if plain else sampler(net, start, noise=0).x
        net.train()
        optimizer.zero_grad()
        if plain:
            loss = net(data).mean() - net(negatives).mean()
        else:
            energies = net(torch.cat([data, negatives])).chunk(2)
            loss = energies[0].mean() - energies[1].mean()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return run


def joint(vae: GaussianVAE, energy: nn.Module, state: tuple[Tensor, Tensor], sampler: Langevin) -> Callable[[], float]:
    """VAEBM's chain in (ε_x, ε_z) by the kernel."""
    space = InNoise(energy, vae)
    start = space.row.pack(*state)
    return lambda: float(space.row.parts(sampler(space, start, noise=0).x)[1].sum())


def joint_plain(vae: GaussianVAE, energy: nn.Module, state: tuple[Tensor, Tensor], sampler: Langevin) -> Callable:
    """The same as the public VAEBM code writes it."""

    def run() -> float:
        vae.eval()
        energy.eval()
        noise = as_noise(0)
        leaves = [leaf.clone() for leaf in state]
        for _ in range(sampler.steps):
            leaves = [leaf.detach().requires_grad_(True) for leaf in leaves]
            latents = vae.generate(leaves[1])
            value = energy(latents.mean + latents.log_sigma.exp() * leaves[0])
            value = value + 0.5 * sum(leaf.flatten(1).square().sum(1) for leaf in leaves)
            value.sum().backward()
            with torch.no_grad():
                for leaf in leaves:
                    leaf.add_(leaf.grad, alpha=-sampler.step_size / 2)
                    leaf.add_(noise.normal(leaf.shape, leaf), alpha=sampler.step_size**0.5)
            vae.zero_grad()
            energy.zero_grad()
        return float(leaves[1].sum())

    return run


def main() -> None:
    """Print the ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(1)
    torch.manual_seed(0)
    energy = VAEBMEnergy((3, 32, 32), width=32)
    data, start = torch.rand(16, 3, 32, 32) * 2 - 1, torch.randn(16, 3, 32, 32)
    chain = Langevin(steps=10, step_size=1e-2, temperature=1e-2, backend="trace")
    vae = GaussianVAE((3, 32, 32), MLPEncoder, lambda *shape: ConvDecoder(*shape, width=32), latent_dim=64)
    vae.eval()
    state, five = (start, torch.randn(16, 64)), Langevin(steps=5, step_size=1e-4, backend="trace")
    pairs = {
        "iteration, c=32, batch 16, 10 steps": (
            iteration(as_written(energy), data, start, chain, plain=True),
            iteration(energy, data, start, chain, plain=False),
        ),
        "joint chain, c=32, batch 16, 5 steps": (
            joint_plain(vae, as_written(energy), state, five),
            joint(vae, energy, state, five),
        ),
    }
    for name, runs in pairs.items():
        for _ in range(2):
            values = [run() for run in runs]
        times: list[list[float]] = [[], []]
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                began = time.process_time()
                runs[which]()
                times[which].append(time.process_time() - began)
        low, median, high = statistics.quantiles([a / b for a, b in zip(*times, strict=True)], n=4, method="inclusive")
        print(f"{name}: {median:.2f} [{low:.2f}, {high:.2f}] times faster; values {values[0]:.6g}, {values[1]:.6g}")


if __name__ == "__main__":
    main()
