"""Denoising-EBM: a denoising autoencoder whose reconstruction error is the energy, in x and in its code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ebmzoo.factories import DecoderFactory, ImageShape, OptimizerFactory, ScheduleFactory, build, spec
from ebmzoo.mcmc import AnnealedLangevin, Noise, Sampler, frozen
from ebmzoo.mcmc.potential import per_example
from ebmzoo.parts import Semantic, Texture, chain_std
from ebmzoo.parts.gaussian import Gaussian
from ebmzoo.parts.health import health
from ebmzoo.parts.objectives import contrastive_gap, denoising_loss, squared_error
from ebmzoo.parts.textures import Averaged, Kernel

from .base import Method, Updates

DenoiserFactory = Callable[[ImageShape, int], nn.Module]
Start = Literal["semantic", "noise"]


class DenoisingEBM(Method):
    """Denoising-EBM: images are made by a chain in the code of a denoiser, then by one in pixels.

    Paper: Zeng, "How to Construct Energy for Images? Denoising Autoencoder Can Be Energy Based Model", 2023.
    Idea: what a denoiser leaves of x, less x, is small where data are: its square is an energy. A decoder h of the
    denoiser's code gives that energy a second argument, the code, in which a short chain finds what the image is about
    before another one, in pixels, finds its texture.

    Equations, in the paper's numbers; x̃ = x + σ·ε, r and z = f(x̃, σ) are the denoiser's, h the semantic decoder:
        denoiser (Eq. 1): w(σ)·‖r(x̃, σ) − x‖², σ a level of the ladder; w = (σ² + σ_d²)/(σ·σ_d)² (EDM).
        decoder (Eq. 13): ‖h(z) − x‖².
        texture energy (Eq. 7): U_c(x, σ) = ‖x − r(x̃, σ)‖²/2σ².
        semantic energy (Eq. 8): U_s(z, σ) = U_c(h(z), σ).
        contrast (Eqs. 12, 14): σ²·[U_s(z) − U_s(z^K)] for h, σ²·[U_c(x) − U_c(x^T)] for the denoiser.
        chains (Eqs. 15, 16): z^K from N(0, I) on U_s, x^T from h(z^K) on U_c, new ε at every step.

    Algorithm 1, one iteration:
        3. Take a batch x and a noise level for each example.
        5. Update denoiser and decoder by their own losses.
        Every L-th iteration also:
        7. K steps in z,
        10. x = h(z),
        11. T steps in x.
        14. Update h by the semantic contrast, the denoiser fixed.
        16. Update the denoiser by the texture contrast.

    Where we differ from the paper: the denoiser is preconditioned and its loss weighted as in EDM; the decoder's loss
    is Eq. 13 (Algorithm 1's line 4 prints the denoiser's); both energies carry 1/σ², with which a step of fixed length
    is unstable at small σ, so the chains step in units of σ² and the contrasts are weighted by it; the code has unit
    scale, that of the noise its chain begins with; samples may end with one denoising step.

    Args:
        image_shape: shape of one example.
        denoiser: makes the denoiser (a `Denoiser`) from (image_shape, latent_dim).
        decoder: makes the semantic decoder from (image_shape, latent_dim).
        latent_dim: size of the code.
        sigma_max: the ladder's upper end, data units; the paper: 1.
        sigma_min: its lower end; the paper: 0.01.
        levels: S, the number of its levels in geometric sequence; the paper: 128.
        code_weight: weight in the denoiser's loss of the decoder's, whose gradient then reaches the encoder; the
            paper's h learns alone: 0.
        contrast_every: L; the paper: 3.
        contrast_start: iterations before the first contrast.
        contrast_weight: factor on both contrasts; 0 leaves them and their chains out. The paper: 1.
        contrast_sigma: the noise level of the contrast; None is each example's own, as in the paper.
        chains: number of chains; None is the batch's size.
        semantic_sampler: the semantic chain in training, step size in units of σ²; the paper: 20 steps of 0.2 (its η
            doubled), its σ not told.
        texture_sampler: the texture chain in training, likewise; the paper: 90 steps of 0.02. U_c counts the score
            twice: in a direction in which the data have the standard deviation s, exp(−U_c/T) has the variance
            T·σ²(1 + s²/σ²)², that of the data at T = 1/4, σ = s, and at least four times that at T = 1. With step size
            h it takes 2(1 + s²/σ²)²/h steps; off the data's manifold 2/h steps, which leave √T·σ of noise. `sigma_end`
            is to be s, and σ to fall by a factor e in no fewer than 2/h steps (`parts.chain_std` counts it exactly).
        semantic_refine: the semantic chain at test time; None takes the training's. The paper: 35 steps.
        texture_refine: the texture chain at test time; None takes the training's. The paper: 100 steps.
        kernel: what moves x: "gradient" of U_c (Eq. 21), or the "residual" (x − r)/σ² alone.
        start: where `sample` begins: "semantic" as above, or "noise": x ~ N(0, σ_max²·I), without the first stage.
        denoise_sigma: σ of the step x ← r(x, σ) that ends `sample`, if it took texture steps; "left" is the noise that
            the texture chain leaves off the data's manifold (`parts.chain_std`); None for no such step, as the paper.
        energy_sigma: σ of `energy`; the paper: 0.05.
        energy_draws: number of fixed ε over which `energy` averages.
        denoiser_optimizer: makes the denoiser's optimiser; the paper: Adam at 5e-5.
        decoder_optimizer: makes the semantic decoder's; the paper: Adam at 5e-5.
        denoiser_schedule: makes the denoiser's learning-rate schedule.
        decoder_schedule: makes the semantic decoder's.
        grad_clip: largest norm of a player's gradient.

    Raises:
        ValueError: if the ladder has no levels, contrast_every is below 1, or denoise_sigma is another word.

    Example:
        >>> from ebmzoo.networks import MLPDecoder, MLPDenoiser
        >>> DenoisingEBM((2,), MLPDenoiser, MLPDecoder, latent_dim=4).sample(3, steps=2, noise=0).shape
        torch.Size([3, 2])
    """

    shows = ("train/loss_denoiser", "train/energy_gap")

    def __init__(
        self,
        image_shape: ImageShape,
        denoiser: DenoiserFactory,
        decoder: DecoderFactory,
        latent_dim: int = 128,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        levels: int = 128,
        code_weight: float = 0.0,
        contrast_every: int = 3,
        contrast_start: int = 0,
        contrast_weight: float = 1.0,
        contrast_sigma: float | None = None,
        chains: int | None = None,
        semantic_sampler: AnnealedLangevin = AnnealedLangevin(20, 0.2, sigma=0.4),  # noqa: B008 - frozen
        texture_sampler: AnnealedLangevin = AnnealedLangevin(90, 0.02, sigma=0.4),  # noqa: B008 - frozen
        semantic_refine: AnnealedLangevin | None = None,
        texture_refine: AnnealedLangevin | None = None,
        kernel: Kernel = "gradient",
        start: Start = "semantic",
        denoise_sigma: float | Literal["left"] | None = None,
        energy_sigma: float = 0.05,
        energy_draws: int = 8,
        denoiser_optimizer: OptimizerFactory = spec(Adam, lr=5e-5),
        decoder_optimizer: OptimizerFactory = spec(Adam, lr=5e-5),
        denoiser_schedule: ScheduleFactory | None = None,
        decoder_schedule: ScheduleFactory | None = None,
        grad_clip: float | None = None,
    ):
        super().__init__(image_shape, grad_clip)
        if not 0 < sigma_min < sigma_max or levels < 2:
            raise ValueError(
                f"the ladder needs 0 < sigma_min < sigma_max and 2 levels, not {sigma_min}, {sigma_max} and {levels}"
            )
        if latent_dim < 1:
            raise ValueError(f"a code has at least one number, not latent_dim {latent_dim}")
        if contrast_every < 1:
            raise ValueError(f"contrast_every must be at least 1, not {contrast_every}: contrast_weight 0 has none")
        if isinstance(denoise_sigma, str) and denoise_sigma != "left":
            raise ValueError(f"denoise_sigma is a noise level, 'left' or None, not {denoise_sigma!r}")
        self.denoiser = build(denoiser, self.image_shape, latent_dim)
        self.decoder = build(decoder, self.image_shape, latent_dim)
        self.latent_dim, self.code_weight = latent_dim, code_weight
        self.sigma_max, self.sigma_min, self.levels = sigma_max, sigma_min, levels
        self.contrast_every, self.contrast_start = contrast_every, contrast_start
        self.contrast_weight, self.contrast_sigma, self.chains = contrast_weight, contrast_sigma, chains
        self.semantic_sampler, self.sampler = semantic_sampler, texture_sampler
        self.semantic_refine, self.refine = semantic_refine or semantic_sampler, texture_refine or texture_sampler
        self.kernel, self.start, self.denoise_sigma = kernel, start, denoise_sigma
        self.energy_sigma, self.energy_draws = energy_sigma, energy_draws
        self.trains(
            denoiser=(self.denoiser, denoiser_optimizer, denoiser_schedule),
            decoder=(self.decoder, decoder_optimizer, decoder_schedule),
        )

    def algorithm(self, x: Tensor) -> Updates:
        """Algorithm 1."""
        sigma = self.level(x, self.noise)  # 3
        denoising, z = self.denoising(x, sigma, self.noise)
        loss = denoising.mean()
        if self.code_weight:
            with frozen(self.decoder):
                loss = loss + self.code_weight * squared_error(self.decoder(z).to(x.dtype), x).mean()
        z = z.detach()
        decoding = squared_error(self.decoder(z).to(x.dtype), x).mean()
        yield "denoiser", loss, {"train/loss_denoiser": denoising}  # 5
        yield "decoder", decoding, {"train/loss_decoder": decoding}
        done = self.iteration + 1
        if not self.contrast_weight or done % self.contrast_every or done <= self.contrast_start:
            return
        n = min(self.chains or len(x), len(x))
        code, first = self.first_stage(n, self.semantic_sampler, self.noise, x)  # 7, 10
        chain = self.sampler(Texture(self.denoiser, self.kernel), first, self.noise)  # 11
        sigma = sigma[:n] if self.contrast_sigma is None else torch.full_like(sigma[:n], self.contrast_sigma)
        at: dict[str, Any] = {"sigma": sigma.repeat(2), "eps": self.two_draws(x[:n])}
        with frozen(self.denoiser):
            loss, seen = self.contrast(Semantic(self.denoiser, self.decoder, **at), z[:n], code, "semantic_energy")
        yield "decoder", loss, seen  # 14
        at["eps"] = self.two_draws(x[:n])
        loss, seen = self.contrast(Texture(self.denoiser, **at), x[:n], chain.x, "energy")
        yield "denoiser", loss, seen  # 16
        if self.logs_now():
            self.report(health(first, chain.x, chain))

    def level(self, x: Tensor, noise: Noise) -> Tensor:
        """σ of each example, ``(B,)``: a rung of the ladder, from 0 (σ_max) to S − 1 (σ_min)."""
        rung = noise.integers(self.levels, (len(x),), like=x).to(x.dtype)
        return self.sigma_max * (math.log(self.sigma_min / self.sigma_max) / (self.levels - 1) * rung).exp()

    def denoising(self, x: Tensor, sigma: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """The denoiser's loss ``(B,)`` (Eq. 1) and the code of x̃."""
        noisy = x + per_example(sigma, x) * noise.normal(x.shape, like=x)
        r, z = (value.to(x.dtype) for value in self.denoiser(noisy, sigma))
        return denoising_loss(r, x, sigma, self.denoiser.sigma_data), z

    def contrast(self, potential: Texture, data: Tensor, model: Tensor, name: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The gap of σ²-weighted energies of data and of a chain's ends, a scalar; and what is logged of it."""
        of_data, of_model = (potential(torch.cat([data, model])) * potential.sigma.square()).chunk(2)
        gap, name = contrastive_gap(of_data, of_model), f"train/{name}"
        return self.contrast_weight * gap, {f"{name}_data": of_data, f"{name}_model": of_model, f"{name}_gap": gap}

    def two_draws(self, like: Tensor) -> Tensor:
        """ε for data and for model samples, each drawn batch first, as the noise of several processes needs it."""
        shape = (len(like), *self.image_shape)
        return torch.cat([self.noise.normal(shape, like), self.noise.normal(shape, like)])

    def first_stage(self, n: int, sampler: AnnealedLangevin, noise: Noise, like: Tensor) -> tuple[Tensor, Tensor]:
        """z^K and h(z^K)."""
        z = noise.normal((n, self.latent_dim), like)
        z = sampler(Semantic(self.denoiser, self.decoder), z, noise).x
        with torch.no_grad(), frozen(self.decoder):
            return z, self.decoder(z).to(z.dtype)

    # -- the contract -----------------------------------------------------------------------------------------------

    def begin(self, n: int, noise: Noise) -> Tensor:
        """What the first stage finds, h(z^K), or noise of σ_max."""
        if self.start == "noise":
            return self.sigma_max * noise.normal((n, *self.image_shape), self.like)
        return self.first_stage(n, self.semantic_refine, noise, self.like)[1]

    def potential(self, state: Tensor, sampler: Sampler) -> Texture:
        """U_c."""
        return Texture(self.denoiser, self.kernel)

    def emit(self, state: Tensor, steps: int) -> Tensor:
        """Denoised once, if texture steps were taken and ``denoise_sigma`` says so."""
        if self.denoise_sigma is None or not steps:
            return state
        return self.denoise(state, self.noise_left(steps) if self.denoise_sigma == "left" else self.denoise_sigma)

    def noise_left(self, steps: int) -> float:
        """σ of what the test-time texture chain leaves off the data's manifold; σ_min is the least that r has seen."""
        return max(self.sigma_min, chain_std(self.refine, kernel=self.kernel, steps=steps))

    def validate(self, x: Tensor, noise: Noise) -> dict[str, Tensor]:
        """The denoiser's loss, the code's reconstruction error and the energy."""
        return {
            "loss_denoiser": self.denoising(x, self.level(x, noise), noise)[0],
            "mse": squared_error(self.reconstruct(x), x) / x[0].numel(),
            "energy_data": self.energy(x),
        }

    def energy(self, x: Tensor) -> Tensor:
        """U_c(x, energy_sigma) ``(B,)``, averaged over fixed ε, the same for every example."""
        return Averaged(self.denoiser, self.energy_sigma, self.energy_draws)(x)

    def score(self, x: Tensor) -> Tensor:
        """−energy, ``(B,)``: high means in-distribution."""
        return -self.energy(x)

    def log_density(self, x: Tensor) -> Tensor:
        """−energy/T up to log Z, ``(B,)`` nats, T of the test-time texture chain."""
        return -self.energy(x) / self.refine.temperature

    def encode(self, x: Tensor) -> Gaussian:
        """The code of x at σ_min, with log σ of −∞: the encoder draws nothing. Both ``(B, latent_dim)``."""
        z = self.denoiser.encode(x, x.new_full((len(x),), self.sigma_min))
        return Gaussian(z, torch.full_like(z, -math.inf))

    def decode(self, z: Tensor) -> Tensor:
        """The semantic image h(z), ``(B, *image_shape)``, not clamped: `ebmzoo.images.to_uint8` does."""
        return self.decoder(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """What the code keeps of x: h(f(x)), ``(B, *image_shape)``, not clamped either."""
        return self.decode(self.encode(x).mean)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """r(x, σ), the mean of the data under noise of that level, ``(B, *image_shape)``."""
        return self.denoiser(x, x.new_full((len(x),), sigma))[0].to(x.dtype)
