"""Why longer training chains do not help Dual-MCMC on digits: the energy's slope scales itself.

    python -m benchmarks.causes.dual_mcmc_slope [--quick] [--iterations 1500] [--seed 20]
    python -m benchmarks.causes.dual_mcmc_slope --checkpoint runs/dual_mcmc_digits/version_0/checkpoints/last.ckpt

`dual_mcmc_digits` with K = 5, 15 and 30 steps in training, with its own energy, with one whose layers are divided by
their spectral norms as in the released code (slope at most 1), and with the same at a step that makes this bound bite.
Of a trained model: its energy and FD along the test chain.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ebmzoo
from ebmzoo.data.digits import digits
from ebmzoo.factories import build, parameters_of
from ebmzoo.images import from_uint8, to_uint8
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.methods import DualMCMC
from ebmzoo.metrics.digit_classifier import load_digit_classifier
from ebmzoo.metrics.fidelity import frechet_distance
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.parts import Energy, Pairs
from ebmzoo.parts.objectives import EnergyL2

POWER_ITERATIONS = 50
LENGTHS = (0, 5, 10, 15, 20, 30, 45, 60)
BOUND = {"spectral_norm": True, "activation": "leaky_relu"}
# Name to the energy's arguments, s and T: noise 0.01 a step in each.
KINDS: dict[str, tuple[dict[str, Any], float, float]] = {
    "no bound, s 2": ({}, 2.0, 5e-5),
    "slope ≤ 1, s 2": (BOUND, 2.0, 5e-5),
    "slope ≤ 1, s 0.05": (BOUND, 0.05, 2e-3),
}


def made(steps: int, energy: dict[str, Any], step_size: float, temperature: float, width: int) -> DualMCMC:
    """The model of configs/dual_mcmc_digits.yaml with these chains and this energy."""
    return DualMCMC(
        (1, 8, 8),
        partial(MLPEncoder, width=width),
        partial(MLPDecoder, width=width),
        partial(
            Energy, network=partial(MLPEnergy, width=width, **energy), data_noise=0.02, penalties=(EnergyL2(1e-3),)
        ),
        latent_dim=16,
        sampler=Langevin(steps, step_size, temperature, grad_clamp=0.1, bounds=(-1.2, 1.2)),
        latent_sampler=Langevin(10, 0.012),
        sigma=0.2,
        inference_weight=0.1,
        pairs=partial(Pairs, updates=2, memory=128),
        energy_optimizer=partial(Adam, lr=1.5e-3, betas=(0.0, 0.9)),
        generator_optimizer=partial(Adam, lr=1e-3),
        inference_optimizer=partial(Adam, lr=1e-3),
    )


def trained(model: DualMCMC, data: Tensor, iterations: int, seed: int) -> DualMCMC:
    """Algorithm 1 without Lightning, rates falling to zero by a cosine; averages of the weights."""
    torch.manual_seed(seed)
    optimizers = {name: build(make, parameters_of(parts)) for name, (parts, make, _) in model.players().items()}
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(one, iterations) for one in optimizers.values()]
    averages = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    for iteration in range(iterations):
        model.train()
        for player, loss in model.losses(data[torch.randint(len(data), (64,))], iteration):
            optimizers[player].zero_grad()
            loss.backward()
            optimizers[player].step()
        for schedule in schedules:
            schedule.step()
        averages.update_parameters(model)
    found = averages.module
    assert isinstance(found, DualMCMC)
    with torch.no_grad():
        for _ in range(POWER_ITERATIONS):  # the spectral norms are those of the averaged weights, not averages
            found.ebm.train()(data[:1])
    return found.eval()


def features(x: Tensor) -> Tensor:
    """The digit classifier's, of what would be written."""
    return load_digit_classifier().features(from_uint8(to_uint8(x))).double()


@torch.no_grad()
def measured(model: DualMCMC, data: Tensor, n: int) -> dict[str, float]:
    """Slope and way of the chain, its energies less that of data, FD of the generator, after K and after 2K steps."""
    sampler, real = model.sampler, features(data)
    start, of_data = model.sample(n, steps=0, noise=1), model.ebm(data).mean()
    slopes = replace(sampler, grad_clamp=None)(model.ebm, start, 0, steps=0).grad_norm
    found = {"slope": slopes.mean().item(), "K·s/2·slope": slopes.mean().item() * sampler.steps * sampler.step_size / 2}
    found["E(start) − E(data)"] = (model.ebm(start).mean() - of_data).item()
    for name, steps in {"generator": 0, "K": sampler.steps, "2 K": 2 * sampler.steps}.items():
        x = sampler(model.ebm, start, as_noise(2), steps=steps).x if steps else start
        if name == "K":
            found["E(end) − E(data)"] = (model.ebm(x).mean() - of_data).item()
        found[f"FD, {name}"] = frechet_distance(features(x), real)
    return found


@torch.no_grad()
def along(model: DualMCMC, data: Tensor, n: int) -> dict[int, tuple[float, float]]:
    """By the number of steps of a chain from the generator's samples: energy less that of data, and FD."""
    sampler, real, noise = model.test_sampler()[0], features(data), as_noise(2)
    assert sampler is not None
    of_data, x, done, found = model.ebm(data).mean(), model.sample(n, steps=0, noise=1), 0, {}
    for steps in LENGTHS:
        x = sampler(model.ebm, x, noise, steps=steps - done).x if steps else x
        found[steps] = (model.ebm(x).mean() - of_data).item(), frechet_distance(features(x), real)
        done = steps
    return found


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, int], dict[str, float]]:
    """Train and print the table, and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four iterations of tiny networks")
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 15, 30], help="K")
    parser.add_argument("--checkpoint", help="of dual_mcmc_digits: nothing is trained")
    options = parser.parse_args(arguments)
    if options.checkpoint:
        print("| steps | E − E(data) | FD |\n|---|---|---|")
        for steps, (energy_gap, distance) in along(ebmzoo.load(options.checkpoint), digits("train")[0], 5000).items():
            print(f"| {steps} | {energy_gap:.4f} | {distance:.2f} |")
        return {}
    iterations, width, n = (4, 16, 200) if options.quick else (options.iterations, 256, 5000)
    data, found = digits("train")[0], {}
    for name, (energy, step_size, temperature) in KINDS.items():
        for steps in options.steps:
            torch.manual_seed(options.seed)
            model = made(steps, energy, step_size, temperature, width)
            row = measured(trained(model, data, iterations, options.seed), data, n)
            if not found:
                print(f"| energy | K | {' | '.join(row)} |\n{'|---' * (len(row) + 2)}|", flush=True)
            found[name, steps] = row
            print(f"| {name} | {steps} | {' | '.join(f'{value:.4g}' for value in row.values())} |", flush=True)
    return found


if __name__ == "__main__":
    main()
