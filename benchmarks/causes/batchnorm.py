"""BatchNorm statistics of what is sampled from: the training's, prior draws', and those of one joint pass in training.

    python benchmarks/causes/batchnorm.py [--quick] [--seeds 20 21] [--iterations 750]

Trains the VAE and EC-VAE on digits of 16 px, and EC-VAE with posterior and prior codes in one batch of the decoder; of
each it prints the Fréchet distance of samples, ELBO and squared error a pixel on test digits, with the statistics that
training left and with those of 1,280 prior draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from made import trained
from torch import Tensor

from ebmzoo.callbacks import averaged_weights
from ebmzoo.figures.look import Look
from ebmzoo.mcmc import as_noise
from ebmzoo.methods import ECVAE
from ebmzoo.methods.base import Updates
from ebmzoo.parts import Bound, Latents
from ebmzoo.parts.gaussian import Gaussian
from ebmzoo.parts.objectives import squared_error
from ebmzoo.parts.statistics import normalising_by


class JointECVAE(ECVAE):
    """EC-VAE whose decoder sees posterior and prior codes in one batch, so that BatchNorm has one set of statistics."""

    def algorithm(self, x: Tensor) -> Updates:
        posterior = self.vae.posterior(x)
        z = posterior.draw(self.noise.normal(posterior.mean.shape, x))
        pass_ = self.vae.evaluate(torch.cat([z, self.draw_latents(len(x), self.noise, x)]))
        mean, generated = pass_.mean.chunk(2)
        of_data = Latents((z,), pass_.prior, Gaussian(mean, pass_.x.log_sigma), (posterior,))
        bound = Bound(of_data.x.log_prob(x), posterior.kl()[None], of_data)
        start = generated.detach()
        chain = self.sampler(self.potential(start, self.sampler), start, self.noise)
        yield "energy", *self.ebm.loss(x, chain.x, self.noise)
        yield "vae", self.vae.loss(x, bound) + self.calibration(generated, chain.x, self.vae.log_sigma)
        self.calibration.ascend(squared_error(start, chain.x).mean(), self.sampler, x[0].numel())


RUNS = {
    "VAE": ("vae_digits16", None),
    "EC-VAE": ("ecvae_digits16", None),
    "EC-VAE, one joint pass": ("ecvae_digits16", JointECVAE),
}


def measure(model: ECVAE, data: object, n: int) -> tuple[float, float, float]:
    """Fréchet distance of n samples, mean ELBO in nats and squared error a pixel of the test digits."""
    model.eval()
    look = Look(model, data, n, extractor="digits")
    x = look.examples("test")
    with torch.no_grad():
        bound, error = model.elbo(x, as_noise(0)).bound.mean(), (model.reconstruct(x) - x).square().mean()
    return look.compare(look.drawn(n))["fid"], bound.item(), error.item()


def main(arguments: Sequence[str] | None = None) -> list[list[object]]:
    """Print the table, and return its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two iterations of the VAE and of the joint pass")
    parser.add_argument("--seeds", nargs="+", type=int, default=[20, 21])
    parser.add_argument("--iterations", type=int, default=750, help="half of the configs'")
    options = parser.parse_args(arguments)
    iterations, n = (2, 50) if options.quick else (options.iterations, 5000)
    rows: list[list[object]] = []
    print("| run | seed | weights | FD | refitted | ELBO | refitted | error | refitted |\n" + "|---" * 9 + "|")
    for name, (config, kind) in RUNS.items():
        if options.quick and name == "EC-VAE":
            continue
        for seed in options.seeds[:1] if options.quick else options.seeds:
            trainer, model, data = trained(config, seed, iterations, kind)
            for weights in ("raw", "averaged"):
                with averaged_weights(trainer, model) if weights == "averaged" else nullcontext():
                    model.refit_statistics()
                    refitted, model.of_draws = model.of_draws, {}
                    before = measure(model, data, n)
                    with normalising_by(model, refitted):
                        pairs = zip(before, measure(model, data, n), strict=True)
                    rows.append([name, seed, weights, *(value for pair in pairs for value in pair)])
                cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in rows[-1])
                print(f"| {' | '.join(cells)} |", flush=True)
    return rows


if __name__ == "__main__":
    main()
