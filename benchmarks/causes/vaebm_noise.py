"""Why VAEBM's samples kept the decoder's noise and its long chains run away, and what the same VAE does without.

    python benchmarks/causes/vaebm_noise.py [--quick] [--seed N]

First the law, on a decoder that says 0 and an energy c·x²/2, by the formula and by the package's own chains. Then
digits: one VAE of σ = 0.3, whose weights serve every σ, and energies of their own, each by settings of its own; the
largest curvature of U at the ends of training's chains beside 4/s, from where on an unadjusted step of size s diverges;
and FD along one set of chains, to ten times the test chain's length.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from ebmzoo import MALA, VAE, VAEBM, Digits, Langevin
from ebmzoo.callbacks import EMA, averaged_weights
from ebmzoo.factories import spec
from ebmzoo.mcmc import Noise, Sampler, as_noise
from ebmzoo.metrics import frechet_distance, load_digit_classifier
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.networks.layers import in_range
from ebmzoo.optim import ThreeSigmaAdam
from ebmzoo.parts import Energy, GaussianVAE, InNoise
from ebmzoo.parts.objectives import EnergyL2
from ebmzoo.parts.spaces import needed_curvature, noise_left

PIXELS = 64


@dataclass(frozen=True)
class Setting:
    """Of stage two: what differs between energies."""

    sigma: float = 0.1
    data_noise: float = 0.0
    clamps: bool = False
    chain: Sampler = Langevin(15, 1e-2)  # noqa: RUF009 - frozen, holds no state
    replayed: float = 0.6
    kept: int = 10000
    ramp: int = 300
    iterations: int = 1000
    rate: float = 3e-4
    settles: bool = False  # the rate falls to zero by a cosine, and Adam has no momentum

    def cells(self) -> tuple[Any, ...]:
        """As a row of a table begins."""
        sampler = f"{type(self.chain).__name__} {self.chain.step_size:g}"
        clamped = "yes" if self.clamps else "no"
        return (
            self.sigma,
            self.data_noise,
            clamped,
            sampler,
            f"{self.replayed:g} of {self.kept} in {self.ramp}",
            self.iterations,
            f"{self.rate:g}{', settles' if self.settles else ''}",
        )


HEAD = ["σ", "noise on data", "clamped", "sampler", "replayed", "iterations", "rate"]
FOUND = [
    Setting(sigma=0.2),
    Setting(),
    Setting(ramp=2000, iterations=1200),
    Setting(clamps=True, ramp=2000, iterations=3000),
    Setting(clamps=True, data_noise=0.1, ramp=500, iterations=1500),
    Setting(clamps=True, data_noise=0.1, ramp=500, iterations=1500, chain=Langevin(15, 3e-2), replayed=0.95),
    Setting(clamps=True, data_noise=0.1, chain=MALA(15, 1e-2), replayed=0.9),
    Setting(data_noise=0.1, replayed=0.9, kept=640),
    *(
        Setting(data_noise=noise, replayed=0.98, kept=640, iterations=3000, rate=rate, settles=settles)
        for noise, rate, settles in (
            (0.1, 3e-5, False),
            (0.1, 1e-4, False),
            (0.1, 3e-4, True),
            (0.1, 1e-3, True),
            (0.0, 3e-4, True),
        )
    ),
]


class Zero(nn.Module):
    """A decoder that says 0, and an encoder that nobody asks."""

    def __init__(self, image_shape: tuple[int, ...], latent_dim: int):
        super().__init__()
        self.image_shape = image_shape

    def forward(self, z: Tensor) -> Tensor:
        """Zeros ``(B, *image_shape)``."""
        return z.new_zeros(len(z), *self.image_shape)


def left_by_chain(sigma: float, curvature: float, chain: Langevin, n: int) -> float:
    """`noise_left` as n chains have it."""
    vae = GaussianVAE((PIXELS,), Zero, Zero, latent_dim=1, sigma=sigma)
    potential = InNoise(lambda x: 0.5 * curvature * x.square().sum(1), vae)
    noise = as_noise(0)
    state = chain(potential, noise.normal((n, PIXELS + 1)), noise).x
    return sigma * float(state[:, :PIXELS].std())


def law(n: int) -> None:
    """The decoder's noise left in x, for chains as they are shipped and energies more and more curved."""
    rows = []
    for name, sigma, steps, step_size in (
        ("digits, before", 0.2, 15, 1e-2),
        ("digits, before, test", 0.2, 30, 1e-2),
        ("digits", 0.1, 15, 1e-2),
        ("the paper, CIFAR-10", 0.135, 10, 8e-5),
    ):
        needed = needed_curvature(sigma, steps * step_size)
        for curvature in (0.0, 100.0, needed, 4 * needed):
            said = noise_left(sigma, curvature, steps, step_size)
            found = left_by_chain(sigma, curvature, Langevin(steps, step_size), n)
            rows.append((name, sigma, f"{steps * step_size:.2g}", f"{curvature:,.0f}", f"{said:.4f}", f"{found:.4f}"))
    table(["chain", "σ", "s·K", "c", "left, by the law", "by chains"], rows)


def trained(method: Any, steps: int, data: Digits, networks: list[str], seed: int) -> Any:
    """The method after so many iterations, with the averages of some networks in."""
    average = EMA(decay=0.995, networks=networks, warmup=True)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    lightning.seed_everything(seed, verbose=False)
    trainer = lightning.Trainer(max_steps=steps, accelerator="cpu", callbacks=[average], **quiet)
    trainer.fit(method, data)
    with averaged_weights(trainer, method):
        weights = {name: value.clone() for name, value in method.state_dict().items()}
    method.load_state_dict(weights)
    return method.eval()


def digits(seed: int, first: int, n: int, lengths: Sequence[int], settings: Sequence[Setting]) -> None:
    """FD by σ of stage two, noise on the data, sampler and length of the chain; what noise the chains leave."""
    data = Digits()
    data.setup("fit")
    images = data.reference("train")
    reference = images.batch(torch.arange(len(images)))
    classifier = load_digit_classifier()
    features = classifier.features(reference)
    constant = reference.std(0) < 1e-6

    def distance(x: Tensor) -> str:
        return f"{frechet_distance(classifier.features(in_range(x)), features):.2f}"

    make = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=16)
    adam = spec(torch.optim.Adam, lr=1e-3)
    cosine = spec(CosineAnnealingLR, T_max=first)
    vae = VAE(data.image_shape, partial(make, sigma=0.3), optimizer=adam, schedule=cosine)
    weights = trained(vae, first, data, ["vae"], seed).vae.state_dict()
    rows, curvatures = [], []
    for setting in settings:
        own = {"data_noise": setting.data_noise, "clamps": setting.clamps, "penalties": [EnergyL2(1e-3)]}
        method = VAEBM(
            data.image_shape,
            partial(make, sigma=setting.sigma),
            partial(Energy, network=MLPEnergy, **own),
            sampler=setting.chain,
            buffer=setting.kept,
            replay_probability=setting.replayed,
            replay_ramp=setting.ramp,
            energy_optimizer=spec(ThreeSigmaAdam, lr=setting.rate, betas=[0.0 if setting.settles else 0.9, 0.999]),
            energy_schedule=spec(CosineAnnealingLR, T_max=setting.iterations) if setting.settles else None,
        )
        method.vae.load_state_dict({**weights, "log_sigma": method.vae.log_sigma})
        trained(method, setting.iterations, data, ["ebm"], seed)
        curvatures.append((*setting.cells(), *steepest(method, setting.chain)))
        for steps, white, x, mean in along(method, setting.chain, lengths, n, as_noise(2)):
            spread = float(in_range(x)[:, constant].std())
            energy = f"{float((method.energy(x).mean() - method.energy(reference).mean()).detach()):.2f}"
            row = (steps, energy, f"{white:.2f}", f"{spread:.3f}", distance(x), distance(mean))
            rows.append((*setting.cells(), *row))
    table([*HEAD, "curvature of U: median", "most", "4/s"], curvatures)
    table([*HEAD, "steps", "E − E(data)", "mean ε_x²", "std where data have 0", "FD", "FD of means"], rows)
    white = as_noise(1).normal(reference.shape, reference)
    table(["σ", "FD of data with that noise"], [(s, distance(reference + s * white)) for s in (0.3, 0.2, 0.1)])


def steepest(method: VAEBM, chain: Sampler, n: int = 40) -> tuple[str, str, str]:
    """Of the largest curvature of U(ε) at the ends of n chains, the median and the most; and what a step allows."""
    noise = as_noise(3)
    space = InNoise(method.ebm, method.vae)
    ends = chain(space, method.begin(n, noise), noise).x.detach()
    hessians = [torch.func.hessian(lambda state: space(state[None])[0])(end) for end in ends]
    most = torch.linalg.eigvalsh(torch.stack(hessians))[:, -1]
    return f"{most.median():.0f}", f"{most.max():.0f}", f"{4 / chain.step_size:.0f}"


def along(
    method: VAEBM, chain: Sampler, lengths: Sequence[int], n: int, noise: Noise
) -> Iterable[tuple[int, float, Tensor, Tensor]]:
    """Of one set of chains at each length: steps, mean of ε_x², x and the decoder's mean."""
    state = method.begin(n, noise)
    space, done = InNoise(method.ebm, method.vae), 0
    for steps in lengths:
        state = chain(space, state, noise, steps=steps - done).x
        done = steps
        white = float(state[:, :PIXELS].square().mean())
        yield steps, white, space.data(state, "sample"), space.data(state, "mean")


def table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print Markdown."""
    for row in (names, ["---"] * len(names), *rows):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few iterations and samples: that it runs, not what it finds"
    )
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    law(200 if options.quick else 2000)
    if options.quick:
        quick = [Setting(sigma=0.2, iterations=3), Setting(chain=MALA(15, 1e-2), iterations=3, settles=True)]
        digits(options.seed, 3, 100, [0, 2], quick)
    else:
        digits(options.seed, 8000, 1000, [0, 15, 30, 60, 150, 300], FOUND)


if __name__ == "__main__":
    main()
