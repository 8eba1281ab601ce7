"""The variational autoencoder: the baseline of every paper on this shelf."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import Noise, SharedNoise
from ebmzoo.parts.latent_vae import VAEFactory

from .answers import AnswersByVAE
from .base import Method, Updates


class VAE(AnswersByVAE, Method):
    """Variational autoencoder with a Gaussian decoder.

    Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014; EC-VAE section 2.2.
    Idea: maximise a lower bound of the likelihood with an inference network.

    Equation: ELBO = E_q(z|x)[log N(x; decoder(z), σ²I)] − β·KL(q(z|x) ‖ N(0, I)), β = 1 in the paper.

    Algorithm, one iteration:
        1. Infer q(z|x) for a batch of data and draw z.
        2. Ascend the bound in encoder and decoder (and σ, where it is learned).

    Args:
        image_shape: shape of one example.
        vae: makes the networks with σ and β from image_shape: a `GaussianVAE` or a `HierarchicalVAE`.
        optimizer: makes the optimiser.
        schedule: makes its learning-rate schedule, stepped every iteration.
        grad_clip: largest norm of the gradient.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder
        >>> from ebmzoo.parts import GaussianVAE
        >>> vae = VAE((1, 8, 8), partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4))
        >>> vae.sample(2, noise=0).shape
        torch.Size([2, 1, 8, 8])
    """

    shows = ("train/loss_vae",)

    def __init__(
        self,
        image_shape: ImageShape,
        vae: VAEFactory,
        optimizer: OptimizerFactory = spec(Adam, lr=1e-3),
        schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        self.vae = build(vae, self.image_shape)
        self.trains(vae=(self.vae, optimizer, schedule))

    def algorithm(self, x: Tensor) -> Updates:
        """The algorithm above."""
        bound = self.vae.bound(x, self.noise)
        loss = self.vae.loss(x, bound)
        sigma = bound.latents.x.log_sigma.exp()
        yield "vae", loss, {"train/loss_vae": loss, "train/kl": bound.kl.sum(0), "train/sigma": sigma}

    def begin(self, n: int, noise: Noise) -> Tensor:
        """Decoder means of ``n`` prior draws."""
        return self.decode(self.draw_latents(n, noise, self.like))

    def score(self, x: Tensor) -> Tensor:
        """The ELBO, ``(B,)`` nats, with one fixed draw for all: high means in-distribution."""
        return self.elbo(x, SharedNoise.of_seed(0, x.device)).bound
