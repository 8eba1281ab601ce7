"""The energy-based model in data space with a replay buffer: the baseline without a generator of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from ebmzoo.mcmc import Langevin, Noise, ReplayBuffer, Sampler, Watch, as_noise, frozen
from ebmzoo.objectives import Penalty

from .base import EnergyFactory, ImageShape, Method, OptimizerFactory, ScheduleFactory, build, spec
from .mixins import TaughtByChains, chain_health
from .stage_one import TakesVAE, VAEFactory


class EBM(TakesVAE, TaughtByChains, Method):
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
        energy: makes the energy from image_shape; the paper's has spectral norm.
        vae: makes the VAE (`GaussianVAE`, `HierarchicalVAE`) whose samples, decoder means, begin the fresh chains, from
            image_shape; None begins them uniformly within the chain's ``bounds`` ([−1, 1] if it has none).
        vae_ckpt: the checkpoint of `VAE` or `VAEBM` that this VAE comes from.
        sampler: the training chain; IGEBM: 60 steps as the default.
        refine: the test-time chain; None takes the training chain. VAEBM's Table 4: 150 steps of it.
        buffer: chains kept for replay, 0 for none; IGEBM: 10,000.
        fresh_probability: share of chains that begin afresh; IGEBM: 0.05.
        data_noise: standard deviation of the noise on the data that the energy sees.
        penalties: what is added to the energy's loss; IGEBM: ``EnergyL2(1.0)``.
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
        data_noise: float = 0.0,
        penalties: Sequence[Penalty] = (),
        energy_optimizer: OptimizerFactory = spec(Adam, lr=1e-4, betas=[0.0, 0.999]),
        energy_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if (vae is None) != (vae_ckpt is None):
            raise ValueError("chains from a trained VAE need both its networks (vae) and its checkpoint (vae_ckpt)")
        self.energy_network = build(energy, self.image_shape)
        self.vae: Any = None if vae is None else build(vae, self.image_shape).requires_grad_(False)
        self.vae_ckpt = vae_ckpt
        self.sampler, self.refine = sampler, refine
        self.replay = ReplayBuffer(buffer) if buffer else None
        self.fresh_probability, self.data_noise, self.penalties = fresh_probability, data_noise, list(penalties)
        self._energy = energy_optimizer, energy_schedule

    def players(self) -> dict[str, Any]:
        return {"energy": ([self.energy_network], *self._energy)}

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of the algorithm above."""
        x = self.data(batch)
        self.initialise_energy(x)
        # 1: where the chains begin.
        start = self._fresh(len(x), x, self.noise)
        if self.replay is not None:
            (start,) = self.replay.mix((start,), 1 - self.fresh_probability, self.noise)
        # 2: the chains.
        chain = self.sampler(self.energy_network, start, self.noise)
        if self.replay is not None:
            self.replay.push(chain.x)
        # 3: the energy.
        self.update_energy(self.noisy(x), chain.x, clock=True)
        if self.logs_now():
            self.report(chain_health(start, chain.x, chain))

    def _fresh(self, n: int, like: Tensor, noise: Noise) -> Tensor:
        """Uniform noise, or means of the VAE, ``(n, *image_shape)``."""
        if self.vae is None:
            low, high = self.sampler.bounds or (-1.0, 1.0)
            return low + (high - low) * noise.uniform((n, *self.image_shape), like)
        with torch.no_grad(), frozen(self.vae):
            return self.vae.generate(*(noise.normal((n, *shape), like) for shape in self.vae.noise_shapes)).mean

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The energy of held-out data."""
        self.log("val/energy_data", self.energy(self.data(batch)).mean(), sync_dist=True)

    def test_sampler(self) -> tuple[Sampler | None, int]:
        sampler = self.refine or self.sampler
        return sampler, sampler.steps

    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Ends of ``n`` fresh chains, ``(n, *image_shape)``.

        Args:
            n: number of samples.
            steps: chain steps; 0 gives what the chains begin with; None is what ``refine`` (or ``sampler``) says.
            noise: where the start and the chain's noise come from.
            watch: sees the chain.
        """
        source = as_noise(noise, self.device)
        with torch.inference_mode(False), torch.no_grad():
            start = self._fresh(n, self.like, source)
            sampler = self.refine or self.sampler
            return sampler(self.energy_network, start, source, steps=steps, watch=watch).x
