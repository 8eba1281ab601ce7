"""What EC-VAE's calibrated posterior can give, where the encoder underfits and where it does not.

    python -m benchmarks.causes.posterior [--quick] [--iterations 2000] [--places digits letters] [--seeds 20]

VAEs with the networks of `ecvae_posterior_digits`, without its energy, on digits and on letters of 8x8 px: without a
chain on their codes, with the shipped one, with one that goes far, and with one that goes far and whose ends the
encoder takes by their likelihood, −log q(z̃|x), in place of the paper's distance ½‖z − z̃‖². Bounds (β = 1) in nats, of
500 training and 500 test images, with 100 draws the importance-weighted one; "own q" is the test bound after Adam has
fitted a mean and a σ to each image. Of the encoder: the mean of log σ, and the cosine between the gradients of the pull
and of the loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ebmzoo.data.digits import digits
from ebmzoo.data.glyphs import glyphs
from ebmzoo.mcmc import Langevin, as_noise
from ebmzoo.networks import MLPDecoder, MLPEncoder
from ebmzoo.parts import CalibratedPosterior, GaussianVAE
from ebmzoo.parts.gaussian import Gaussian
from ebmzoo.parts.latent_vae import Bound

SHIPPED, FAR = Langevin(5, 1e-2), Langevin(50, 1e-2)
# Name to the chain, λ₂, and whether the encoder takes its ends by likelihood.
PULLS: dict[str, tuple[Langevin | None, float, bool]] = {
    "none": (None, 0.0, False),
    "5 steps, λ₂ 10 (shipped)": (SHIPPED, 10.0, False),
    "50 steps, λ₂ 10": (FAR, 10.0, False),
    "50 steps, λ₂ 1, by likelihood": (FAR, 1.0, True),
}
# Name to the data, the encoder's width and depth, and β.
PLACES: dict[str, tuple[str, int, int, float]] = {
    "digits": ("digits", 256, 3, 1.0),
    "letters": ("letters", 256, 3, 1.0),
    "letters, small encoder": ("letters", 16, 1, 1.0),
    "letters, small encoder, β 0.1": ("letters", 16, 1, 0.1),
}


def images(data: str, quick: bool) -> tuple[Tensor, Tensor]:
    """Training and test images: 1,500 and 297 digits, or 20,000 and 2,000 letters drawn like them."""
    if data == "digits":
        return digits("train")[0], digits("test")[0]
    n_train, n_test = (500, 100) if quick else (20_000, 2_000)
    return glyphs("train", n_train, 8, like="digits")[0], glyphs("test", n_test, 8, like="digits")[0]


class Pulled(nn.Module):
    """A VAE and the pull of its codes towards the ends of a chain."""

    def __init__(self, width: int, depth: int, beta: float, pull: tuple[Langevin | None, float, bool], size: int):
        super().__init__()
        encoder, decoder = partial(MLPEncoder, width=width, depth=depth), partial(MLPDecoder, width=size, depth=3)
        self.vae = GaussianVAE((1, 8, 8), encoder, decoder, latent_dim=16, sigma=0.2, kl_weight=beta)
        chain, weight, self.by_likelihood = pull
        # Ends whose likelihood counts are to be draws of the posterior, not of what ties them to their starts.
        tie = 0.0 if self.by_likelihood else 1.0
        self.posterior = CalibratedPosterior(chain, condition_weight=tie, weight=weight) if chain else None

    def pull(self, x: Tensor, bound: Bound) -> Tensor:
        """What draws the encoder to the ends of chains, a scalar."""
        if self.posterior is None:
            return x.new_zeros(())
        (z,), (q,) = bound.latents.z, bound.latents.posterior
        revised = self.posterior.revise(self.vae, x, z, noise=None)
        if self.by_likelihood:
            return -self.posterior.weight * q.log_prob(revised).mean()
        return self.posterior(z, revised)

    def train_on(self, data: Tensor, iterations: int) -> None:
        """Batches of 64, rates falling to zero by a cosine."""
        adam = torch.optim.Adam(self.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
        for _ in range(iterations):
            x = data[torch.randint(len(data), (64,))]
            bound = self.vae.bound(x, as_noise(None))
            loss = self.vae.loss(x, bound) + self.pull(x, bound)
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
        self.eval()

    def cosine(self, x: Tensor) -> float:
        """Between the gradients of the pull and of the loss on the encoder."""
        if self.posterior is None:
            return float("nan")
        bound, weights = self.vae.bound(x, as_noise(3)), list(self.vae.encoder.parameters())
        both = (
            torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights, retain_graph=True)])
            for loss in (self.vae.loss(x, bound), self.pull(x, bound))
        )
        return torch.cosine_similarity(*both, dim=0).item()


def own_bound(vae: GaussianVAE, x: Tensor, steps: int) -> float:
    """The test bound when each image has a Gaussian of its own, fitted by Adam from the encoder's."""
    q = [part.detach().clone().requires_grad_() for part in vae.encode(x)]
    adam, noise = torch.optim.Adam(q, lr=1e-2), as_noise(1)

    def bound(noise_: Tensor) -> Tensor:
        found = Gaussian(*q)
        return (vae.evaluate(found.draw(noise_)).x.log_prob(x) - found.kl()).mean()

    for _ in range(steps):
        adam.zero_grad()
        (-bound(noise.normal(q[0].shape, x))).backward()
        adam.step()
    with torch.no_grad():
        return sum(bound(noise.normal(q[0].shape, x)).item() for _ in range(100)) / 100


def measured(model: Pulled, train: Tensor, test: Tensor, draws: int, steps: int) -> dict[str, float]:
    """The columns of the table."""
    vae, found = model.vae, {}
    for name, x in {"train": train, "test": test}.items():
        with torch.no_grad():
            found[f"{name} bound"] = (
                torch.stack([vae.bound(x, as_noise(i)).bound.mean() for i in range(20)]).mean().item()
            )
            found[f"{name}, {draws} draws"] = vae.log_likelihood_bound(x, draws, as_noise(6)).mean().item()
    found["test, own q"] = own_bound(vae, test, steps)
    with torch.no_grad():
        found["test error a pixel"] = (vae.reconstruct(test) - test).square().mean().item()
        found["log σ"] = vae.encode(test).log_sigma.mean().item()
    return found | {"cosine": model.cosine(train)}


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, str, int], dict[str, float]]:
    """Train and print the table, and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four iterations of narrow networks")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES), metavar="PLACE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20])
    options = parser.parse_args(arguments)
    iterations, size, draws, steps = (4, 16, 3, 2) if options.quick else (options.iterations, 256, 100, 250)
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for place in options.places:
        data, width, depth, beta = PLACES[place]
        train, test = images(data, options.quick)
        for name, pull in PULLS.items():
            for seed in options.seeds:
                torch.manual_seed(seed)
                model = Pulled(min(width, size), depth, beta, pull, size)
                model.train_on(train, iterations)
                row = measured(model, train[:500], test[:500], draws, steps)
                if not found:
                    print(f"| data | pull | seed | {' | '.join(row)} |\n{'|---' * (len(row) + 3)}|", flush=True)
                found[place, name, seed] = row
                values: Any = (f"{value:.4g}" for value in row.values())
                print(f"| {place} | {name} | {seed} | {' | '.join(values)} |", flush=True)
    return found


if __name__ == "__main__":
    main()
