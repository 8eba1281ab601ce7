"""Zero-shot restoration: chains over what a degraded image leaves open, under a generator and an energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Langevin, Noise, Potential, Sampler, Watch, as_noise, frozen
from ebmzoo.mcmc.potential import squared_norm
from ebmzoo.methods.capabilities import Decodes, Encodes, HasEnergy
from ebmzoo.parts import Energy, LatentVAE

from .degradations import Degradation

_PROBES, _ROUNDS = 8, 8  # codes at which the generator's gain is measured, and power iterations
_STABLE = 4.0  # a chain on a quadratic of curvature c is stable for s < 4/c
_SEEKING = 100  # steps of a method's own z chain, in which it comes to rest at temperature 0
_AFTER = 4  # steps of its x chain: restorations begin at the energy of data, which more steps overshoot


@runtime_checkable
class ExplainsByChain(Protocol):
    """Infers latent codes by a chain of its own, with likelihood N(x; decode(z), σ²I) and ``precision`` 1/σ²."""

    latent_sampler: Sampler
    precision: float


class Restoration(NamedTuple):
    """Restored images, and the predictions on the way, which are not clamped, all ``(B, C, H, W)``.

    Attributes:
        image: the restored images, in [-1, 1]: x̂ clamped. ``degradation.complete(y, prediction)`` is x̂ itself, with
            A x̂ = y; where it leaves the range, A of the clamped image is near y only.
        start: what the generator makes of where the z chain begins, with no regard for y.
        latent: the same of where the z chain ended.
        prediction: x_r, of which ``image`` has what y leaves open: the end of the x chain, or ``latent`` without one.
        z: ``(B, latent_dim)``, where the z chain ended.
    """

    image: Tensor
    start: Tensor
    latent: Tensor
    prediction: Tensor
    z: Tensor


@dataclass(frozen=True)
class Measured:
    """What is known of degraded images.

    Args:
        degradation: A.
        target: A⁺y.
        sigma: σ.
    """

    degradation: Degradation
    target: Tensor
    sigma: float

    def misfit(self, x: Tensor) -> Tensor:
        """‖A⁺y − A⁺A x‖²/2σ², ``(B,)``."""
        return 0.5 * squared_norm(self.target - self.degradation.seen(x)) / self.sigma**2


class MeasuredCode(Potential):
    """U(z), see `Restorer`; without E where the energy's temperature is None."""

    def __init__(self, generator: Any, energy: Any, measured: Measured, energy_temperature: float | None):
        super().__init__()
        self.generator, self.measured, self.energy_temperature = generator, measured, energy_temperature
        self.energy = None if energy_temperature is None else energy

    def forward(self, z: Tensor) -> Tensor:
        x = self.generator.decode(z)
        energy = self.measured.misfit(x) - self.generator.log_prior(z)
        return energy if self.energy is None else energy + self.energy(x) / self.energy_temperature


class MeasuredImage(Potential):
    """E(x) + T·‖A⁺y − A⁺A x‖²/2σ²."""

    def __init__(self, energy: Any, measured: Measured, temperature: float):
        super().__init__()
        self.energy, self.measured, self.temperature = energy, measured, temperature

    def forward(self, x: Tensor) -> Tensor:
        return self.energy(x) + self.temperature * self.measured.misfit(x)


@dataclass(frozen=True)
class Restorer:
    """Restores degraded images with a model that was trained on undamaged ones (range-null decomposition).

    EC-VAE, section 4.3 and appendices B, D. For y = A x and any prediction x_r, x̂ = A⁺y + (I − A⁺A) x_r has A x̂ = y.
    The prediction is decode(z), where z ends a chain on (Eqs. 3-5)

        U(z) = ‖A⁺y − A⁺A decode(z)‖²/2σ² + E(decode(z))/T − log p(z),

    the second term being the energy as a neural-transport prior. With an ``x_sampler``, of temperature T_x, a chain in
    x follows from decode(z), on E(x) + T_x·‖A⁺y − A⁺A x‖²/2σ². Dual-MCMC's inpainting (its appendix A.3) is the same
    without the second term and with both chains, from what the inference network makes of A⁺y; for a mask the
    likelihood then counts visible pixels only.

    Args:
        steps: of the z chain; the papers: 50 (EC-VAE), 10 at temperature 1 (Dual-MCMC).
        step_size: s of the z chain; None chooses half of the largest that is stable under the first term alone, which
            is of the order of 1/curvature: see `largest_squared_gain`.
        temperature: of the z chain; 0 seeks the most probable z.
        sigma: σ, in the data's units.
        energy_temperature: T above, with which the energy was learned; None leaves the energy out of the prior.
        start: where the z chain begins: "inferred" is the mean of q(z|A⁺y), "prior" a draw from p(z).
        x_sampler: the chain in x; None leaves it out.
        x_steps: its number of steps; None is the sampler's own.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> from functools import partial
        >>> from ebmzoo.methods import ECVAE
        >>> from ebmzoo.networks import MLPDecoder, MLPEncoder, MLPEnergy
        >>> from ebmzoo.parts import GaussianVAE
        >>> from ebmzoo.tasks import SuperResolve
        >>> vae = partial(GaussianVAE, encoder=MLPEncoder, decoder=MLPDecoder, latent_dim=4)
        >>> model = ECVAE((1, 8, 8), vae, MLPEnergy)
        >>> operator, small = SuperResolve(2), torch.zeros(3, 1, 4, 4)
        >>> found = Restorer(steps=5)(model, operator, small, noise=0)
        >>> exact = operator.complete(small, found.prediction)
        >>> found.image.shape, bool((operator.degrade(exact) - small).abs().max() < 1e-5)
        (torch.Size([3, 1, 8, 8]), True)
    """

    steps: int = 50
    step_size: float | None = None
    temperature: float = 1.0
    sigma: float = 0.03
    energy_temperature: float | None = None
    start: Literal["inferred", "prior"] = "inferred"
    x_sampler: Sampler | None = None
    x_steps: int | None = None

    def __post_init__(self) -> None:
        if self.sigma <= 0 or self.steps < 0 or self.temperature < 0:
            raise ValueError(
                "a restoration needs sigma > 0 and steps, temperature >= 0, not "
                f"{self.sigma}, {self.steps} and {self.temperature}"
            )
        for name in ("step_size", "energy_temperature"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")

    @classmethod
    def of(cls, model: Any) -> Restorer:
        """The procedure of a model's own paper, its chains as long as they help.

        A method that infers its codes by a chain (Dual-MCMC) uses that chain, without the energy, and then its x chain;
        any other one EC-VAE's, with the energy if it has one, and an x chain if `sample` runs one in x.

        In training the z chain samples p(z|x), few steps from a good start; a restoration wants its mode: 100 steps
        without noise. The x chain takes 4 steps at most: it has learnt to descend to the energy of data from the
        generator's samples, which lie above it, and restorations are there already.
        """
        _, steps = model.test_sampler()
        settings: dict[str, Any] = {"start": "inferred" if isinstance(model, Encodes) else "prior"}
        if steps and (sampler := chain_in_x(model)) is not None:
            settings |= {"x_sampler": sampler, "x_steps": steps}
        if isinstance(model, ExplainsByChain):
            settings |= {"steps": _SEEKING, "step_size": model.latent_sampler.step_size, "temperature": 0.0}
            if "x_steps" in settings:
                settings["x_steps"] = min(steps, _AFTER)
            return cls(**settings, sigma=model.precision**-0.5)
        if isinstance(model, HasEnergy):
            # The training chain's; one at temperature 0 has taught the energy no density.
            settings["energy_temperature"] = getattr(getattr(model, "sampler", None), "temperature", 1.0) or None
        return cls(**settings)

    def __call__(
        self,
        model: Any,
        degradation: Degradation,
        y: Tensor,
        *,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Restoration:
        """Restore a batch.

        Args:
            model: a method that `Decodes`, and, for what needs them, `Encodes` and `HasEnergy`; its parts ``vae`` and
                ``ebm``, where it has them, are what the chains evaluate.
            degradation: A.
            y: what is left of the images, floats in [-1, 1], shaped as ``degradation.measured_shape`` says.
            noise: where codes and the chains' noise come from.
            watch: sees the z chain, then the x chain.

        Raises:
            TypeError: the model lacks what this procedure needs.
            ValueError: the images have another shape.
        """
        self._check(model, degradation, y)
        source = as_noise(noise, y.device)
        networks = [model] if isinstance(model, nn.Module) else []
        with torch.inference_mode(False), torch.no_grad(), frozen(*networks):
            y = y.clone()  # a tensor made in inference mode could not enter the chain's graph
            target = degradation.lift(y)
            z = model.encode(target).mean if self.start == "inferred" else model.draw_latents(len(y), source, target)
            start = model.decode(z)
            z_chain = Langevin(self.steps, self._step_size(model, target), self.temperature)
            generator, energy = parts_of(model)
            measured = Measured(degradation, target, self.sigma)
            z = z_chain(MeasuredCode(generator, energy, measured, self.energy_temperature), z, source, watch=watch).x
            latent = prediction = model.decode(z)
            if self.x_sampler is not None:
                potential = MeasuredImage(energy, measured, self.x_sampler.temperature)
                prediction = self.x_sampler(potential, latent, source, steps=self.x_steps, watch=watch).x
        return Restoration(degradation.complete(y, prediction).clamp(-1, 1), start, latent, prediction, z)

    def _check(self, model: Any, degradation: Degradation, y: Tensor) -> None:
        needs: list[tuple[bool, type, str]] = [
            (True, Decodes, "a generator from latent codes with a prior"),
            (self.start == "inferred", Encodes, 'an inference network (or start="prior")'),
            (self.energy_temperature is not None, HasEnergy, "an energy (or no energy_temperature)"),
            (self.x_sampler is not None, HasEnergy, "an energy (or no x_sampler)"),
        ]
        for needed, protocol, words in needs:
            if needed and not isinstance(model, protocol):
                raise TypeError(f"this restoration needs {words}, which {type(model).__name__} does not have")
        shape = degradation.measured_shape(tuple(model.image_shape))
        if tuple(y.shape[1:]) != shape:
            raise ValueError(f"{degradation.name} takes images {shape} here, not {tuple(y.shape[1:])}")

    def settled(self, model: Any) -> Restorer:
        """The same with the step size that it chooses for a model, so that this is measured once and can be told."""
        like = torch.empty(0, dtype=model.dtype, device=model.device)
        with torch.inference_mode(False), torch.no_grad(), frozen(model):
            return replace(self, step_size=self._step_size(model, like))

    def _step_size(self, model: Any, like: Tensor) -> float:
        if self.step_size is not None:
            return self.step_size
        # Codes of fixed noise: the step must depend on neither the batch nor the seed. A⁺A only takes away from J.
        probe = model.draw_latents(_PROBES, as_noise(0, like.device), like)
        gain = largest_squared_gain(model.decode, probe)
        return 0.5 * _STABLE * self.sigma**2 / max(gain, 1e-12)


def parts_of(model: Any) -> tuple[Any, Any]:
    """The generator and the energy of a model: its parts where it has them, as a chain on parts can be recorded."""
    vae, ebm = getattr(model, "vae", None), getattr(model, "ebm", None)
    generator = vae if isinstance(vae, LatentVAE) else model
    return generator, ebm if isinstance(ebm, Energy) else getattr(model, "energy", None)


def chain_in_x(model: Any) -> Sampler | None:
    """The chain that moves images under a model's energy: its test chain, else that of its training; None if none."""
    # VAEBM's chains move the noise or the latents that images are made of, unless its space says otherwise.
    if not hasattr(model, "energy") or getattr(model, "space", "x") != "x":
        return None
    return model.test_sampler()[0] or getattr(model, "sampler", None)


def largest_squared_gain(decode: Callable[[Tensor], Tensor], z: Tensor, rounds: int = _ROUNDS) -> float:
    """Largest eigenvalue of JᵀJ, J the Jacobian of a generator, averaged over codes.

    Over σ² it is the curvature of a likelihood N(x; decode(z), σ²I) in z. By power iteration with products by J and
    Jᵀ, each of which costs about one backward pass.

    Args:
        decode: the generator.
        z: ``(B, latent_dim)``.
        rounds: power iterations.

    Example:
        >>> largest_squared_gain(lambda z: z * torch.tensor([1.0, 3.0]), torch.zeros(5, 2), rounds=20)
        9.0
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        x = decode(z)
        dual = torch.zeros_like(x, requires_grad=True)
        (pulled,) = torch.autograd.grad(x, z, dual, create_graph=True)  # Jᵀ·dual: its gradient in dual is J
        v = torch.full_like(z, 1 / math.sqrt(z.shape[1]))
        gain = z.new_zeros(len(z))
        for _ in range(rounds):
            (pushed,) = torch.autograd.grad(pulled, dual, v, retain_graph=True)
            (v,) = torch.autograd.grad(x, z, pushed, retain_graph=True)
            gain = v.norm(dim=1)
            v = v / gain.clamp_min(1e-30)[:, None]
    return gain.mean().item()
