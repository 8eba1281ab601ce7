"""Why VAEBM's samples kept the decoder's noise, and what the same VAE does with less of it.

    python benchmarks/causes/vaebm_noise.py [--quick] [--seed N]

First the law, on a decoder that says 0 and an energy c·x²/2, by the formula and by the package's own chains. Then
digits: one VAE of σ = 0.3, whose weights serve every σ, and for each σ an energy of its own.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from ebmzoo import VAE, VAEBM, Digits, Langevin
from ebmzoo.callbacks import EMA, averaged_weights
from ebmzoo.factories import spec
from ebmzoo.mcmc import Noise, as_noise
from ebmzoo.metrics import frechet_distance, load_digit_classifier
from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
from ebmzoo.networks.layers import in_range
from ebmzoo.optim import ThreeSigmaAdam
from ebmzoo.parts import Energy, GaussianVAE, InNoise
from ebmzoo.parts.objectives import EnergyL2
from ebmzoo.parts.spaces import needed_curvature, noise_left

PIXELS = 64


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


def digits(seed: int, first: int, second: int, n: int, lengths: Sequence[int], sigmas: Sequence[float]) -> None:
    """FD by σ of stage two and length of the chain; what noise the chains leave, and what the noise alone costs."""
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
    cosine = spec(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=first)
    vae = VAE(data.image_shape, partial(make, sigma=0.3), optimizer=adam, schedule=cosine)
    weights = trained(vae, first, data, ["vae"], seed).vae.state_dict()
    rows = []
    for sigma in sigmas:
        chain = Langevin(15, 1e-2)
        energy = partial(Energy, network=MLPEnergy, penalties=[EnergyL2(1e-3)])
        learns = spec(ThreeSigmaAdam, lr=3e-4, betas=[0.9, 0.999])
        method = VAEBM(
            data.image_shape, partial(make, sigma=sigma), energy, sampler=chain, buffer=10000, replay_ramp=2000,
            energy_optimizer=learns,
        )  # fmt: skip
        method.vae.load_state_dict({**weights, "log_sigma": method.vae.log_sigma})
        trained(method, second, data, ["ebm"], seed)
        noisy = reference + sigma * as_noise(1).normal(reference.shape, reference)
        for steps, white, x, mean in along(method, chain, lengths, n, as_noise(2)):
            spread = float(in_range(x)[:, constant].std())
            rows.append((sigma, distance(noisy), steps, f"{white:.2f}", f"{spread:.3f}", distance(x), distance(mean)))
    table(["σ", "FD of data + σ·noise", "steps", "mean ε_x²", "std where data have 0", "FD", "FD of means"], rows)


def along(
    method: VAEBM, chain: Langevin, lengths: Sequence[int], n: int, noise: Noise
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
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few iterations and samples: that it runs, not what it finds"
    )
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    law(200 if options.quick else 2000)
    if options.quick:
        digits(options.seed, 3, 3, 100, [0, 2], [0.2, 0.1])
    else:
        digits(options.seed, 8000, 1500, 2000, [0, 15, 30, 60, 300], [0.3, 0.2, 0.1])


if __name__ == "__main__":
    main()
