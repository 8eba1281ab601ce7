"""The energy-based model in data space with a replay buffer: the baseline without a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.factories import EnergyFactory, ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import Langevin, Noise, ReplayBuffer, Sampler, frozen
from ebmzoo.parts import Energy, LatentVAE
from ebmzoo.parts.energy import energy_of
from ebmzoo.parts.health import health
from ebmzoo.parts.latent_vae import VAEFactory

from .answers import AnswersByChains
from .base import Method, Updates


class EBM(AnswersByChains, Method):
    """Energy-based model p(x) ∝ exp(−E(x)/T), trained with persistent chains in x.

    Paper: Du and Mordatch, "Implicit Generation and Modeling with Energy-Based Models", NeurIPS 2019 (IGEBM); the
    baselines "EBM" and "EBM init w/ VAE samples" of EC-VAE's Table 10 and "EBM on x" of VAEBM's Table 4.
    Idea: maximum likelihood needs samples of the model; long chains give them, cut into short pieces by a buffer that
    keeps where the last ones ended.

    Equations:
        energy: ∇[E(x) − E(x⁻)], x⁻ from the chains, and the penalties (IGEBM: α·(E(x)² + E(x⁻)²)).
        chain: x ← x + √(s·T)·ξ, then x ← clip(x − (s/2)·clamp(∇E(x))), the noise before the gradient.

    Algorithm, one iteration:
        1. Begin each chain in the buffer, or, with a small probability, afresh: from uniform noise, or from a sample of
           a trained VAE.
        2. Run the chains; keep their ends.
        3. Update the energy.

    Where we differ from the released code: images lie in [−1, 1] instead of [0, 1] (the same chain: s = 80, T = 1.25e-6
    and a clamp of 0.005 are its step of 10, noise of 0.005 and clamp of 0.01); no gradient goes through the chain; test
    chains begin afresh, not in the buffer.

    Args:
        image_shape: shape of one example.
        energy: makes the energy from image_shape: an `Energy`, or a bare network; the paper's has spectral norm and
            ``EnergyL2(1.0)``.
        vae: makes the VAE (`GaussianVAE`, `HierarchicalVAE`) whose samples, decoder means, begin the fresh chains, from
            image_shape; None begins them uniformly within the chain's ``bounds`` ([−1, 1] if it has none).
        vae_ckpt: the checkpoint of `VAE` or `VAEBM` that this VAE comes from.
        sampler: the training chain; IGEBM: 60 steps as the default.
        refine: the test-time chain; None takes the training chain. VAEBM's Table 4: 150 steps of it.
        buffer: chains kept for replay, 0 for none; IGEBM: 10,000.
        fresh_probability: share of chains that begin afresh; IGEBM: 0.05.
        energy_optimizer: makes the optimiser; VAEBM's Table 4: Adam at 1e-4.
        energy_schedule: makes its learning-rate schedule, stepped every iteration.
        grad_clip: largest norm of the gradient.

    Raises:
        ValueError: if only one of ``vae`` and ``vae_ckpt`` is given.

    Example:
        >>> from ebmzoo.networks import MLPEnergy
        >>> EBM((1, 8, 8), MLPEnergy).sample(2, noise=0, steps=5).shape
        torch.Size([2, 1, 8, 8])
    """

    shows = ("train/energy_gap",)

    def __init__(
        self,
        image_shape: ImageShape,
        energy: EnergyFactory,
        vae: VAEFactory | None = None,
        vae_ckpt: str | None = None,
        sampler: Langevin = Langevin(60, 80.0, 1.25e-6, grad_clamp=0.005, bounds=(-1.0, 1.0), noise_first=True),  # noqa: B008 - frozen, holds no state
        refine: Langevin | None = None,
        buffer: int = 10_000,
        fresh_probability: float = 0.05,
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.999]),
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if (vae is None) != (vae_ckpt is None):
            raise ValueError("chains from a trained VAE need both its networks (vae) and its checkpoint (vae_ckpt)")
        self.ebm = energy_of(energy, self.image_shape)
        self.vae: LatentVAE | None = None if vae is None else build(vae, self.image_shape).requires_grad_(False)
        self.vae_ckpt = vae_ckpt
        self.sampler, self.refine = sampler, refine or sampler
        self.replay, self.fresh_probability = ReplayBuffer(buffer) if buffer else None, fresh_probability
        self.trains(energy=(self.ebm, energy_optimizer, energy_schedule))

    def algorithm(self, x: Tensor) -> Updates:
        """The algorithm above."""
        start = self.begin(len(x), self.noise)  # 1
        if self.replay is not None:
            (start,) = self.replay.mix((start,), 1 - self.fresh_probability, self.noise)
        chain = self.sampler(self.ebm, start, self.noise)  # 2
        if self.replay is not None:
            self.replay.push(chain.x)
        yield "energy", *self.ebm.loss(x, chain.x, self.noise)  # 3
        if self.logs_now():
            self.report(health(start, chain.x, chain))

    def begin(self, n: int, noise: Noise) -> Tensor:
        """Uniform noise, or means of the VAE."""
        if self.vae is None:
            low, high = self.sampler.bounds or (-1.0, 1.0)
            return low + (high - low) * noise.uniform((n, *self.image_shape), self.like)
        with torch.no_grad(), frozen(self.vae):
            return self.vae.generate(*self.vae.white(n, noise, self.like)).mean

    def potential(self, state: Tensor, sampler: Sampler) -> Energy:
        """E."""
        return self.ebm

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Of the energy alone: the VAE is given."""
        return self.ebm.validate(x, noise)
