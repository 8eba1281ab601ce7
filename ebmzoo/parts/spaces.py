"""The spaces in which VAEBM's chains may run, each a potential of one row ``(B, D)`` that it splits itself."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ebmzoo.mcmc import Noise, Potential, Row, as_noise, frozen
from ebmzoo.mcmc.potential import as_potential, squared_norm

from .latent_vae import LatentVAE

Name = Literal["noise", "data", "x"]
Kind = Literal["sample", "mean"]


def noise_left(sigma: float, curvature: float, steps: int, step_size: float) -> float:
    """Standard deviation that the decoder's noise still has in x after a chain of Langevin steps on ε_x, data units.

    Where E = c·x²/2 along a pixel, ε_x ~ N(0, 1) relaxes at the rate (1 + σ²c)/2 of diffusion time s·K, to the variance
    1/(1 + σ²c). Exact for unadjusted steps, the discretisation included.

    Args:
        sigma: σ of the decoder.
        curvature: c.
        steps: K.
        step_size: s.

    Example:
        >>> f"{noise_left(0.2, 0.0, 15, 0.01):.3f} {noise_left(0.2, 300.0, 15, 0.01):.3f}"  # σ²c = 0 and 12
        '0.200 0.090'
    """
    force = 1 + sigma**2 * curvature
    kept = (1 - force * step_size / 2) ** 2
    rest = step_size / (1 - kept)
    return sigma * math.sqrt(rest + (1 - rest) * kept**steps)


def needed_curvature(sigma: float, time: float) -> float:
    """c from which on ε_x relaxes within a diffusion time s·K, (1 + σ²c)·s·K/2 = 1; an energy flatter leaves σ in x.

    Example:
        >>> round(needed_curvature(0.2, 0.15)), round(needed_curvature(0.135, 8e-4))  # of digits; of CIFAR-10
        (308, 137119)
    """
    return max(0.0, 2 / time - 1) / sigma**2


class Space(Potential):
    """Base: a state is an x-part and a z-part.

    Args:
        energy: E, of ``(B, *image_shape)`` to ``(B,)`` or ``(B, 1)``.
        vae: the VAE.
    """

    def __init__(self, energy: nn.Module, vae: LatentVAE):
        super().__init__()
        self.energy, self.vae = as_potential(energy), vae
        self.row = Row((tuple(vae.image_shape), *map(tuple, vae.noise_shapes)))

    def latents(self, noise: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """White noise of the latents to the z-part of a state."""
        return self.vae.generate(*noise).z

    def place(self, noise: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        """The state with this z-part whose x-part comes of the white noise given."""
        return self.row.pack(self.vae.evaluate(*z).x.draw(noise), *z)

    def data(self, state: Tensor, kind: Kind) -> Tensor:
        """The x of a state (Eq. 8), or its decoder mean, ``(B, *image_shape)``."""
        raise TypeError(f"{type(self).__name__} does not say what its states show")


class InNoise(Space):
    """U(ε) = E(T(ε)) + ½‖ε‖², ε = (ε_x, ε_z) (Eqs. 8, 9)."""

    def latents(self, noise: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return noise

    def place(self, noise: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        return self.row.pack(noise, *z)

    def tilt(self, state: Tensor) -> Tensor:
        """E(T(ε)), without the white noise's ½‖ε‖²."""
        x, *z = self.row.parts(state)
        return self.energy(self.vae.generate(*z).x.draw(x))

    def forward(self, state: Tensor) -> Tensor:
        return self.tilt(state) + 0.5 * squared_norm(state)

    @torch.no_grad()
    def data(self, state: Tensor, kind: Kind) -> Tensor:
        x, *z = self.row.parts(state)
        with frozen(self.vae):
            latents = self.vae.generate(*z)
        mean = latents.mean.to(x.dtype)
        return mean if kind == "mean" else latents.x._replace(mean=mean).draw(x)

    @torch.no_grad()
    def cooled(self, state: Tensor, temperature: float, noise: Noise) -> Tensor:
        """A low-temperature start (appendix E).

        The VAE, its BatchNorm readjusted, makes the means of the state's z-part scaled by the temperature; its encoder,
        not readjusted, turns them back into white noise.
        """
        _, *z = self.row.parts(state)
        own = as_noise(0, state.device)  # the statistics are the model's: the same for every call
        cool = self.vae.readjusted(temperature, lambda shape: own.normal(shape, state))
        x = cool.generate(*(temperature * part for part in z)).mean
        with frozen(self.vae):
            found = self.vae.infer(x, lambda shape: noise.normal(shape, x))
        return self.row.pack(found.x.white(x), *found.noise)


class InData(Space):
    """U(x, z) = E(x) − log p(x, z), the same density without the change of variables (appendix B.1, Eq. 13)."""

    def forward(self, state: Tensor) -> Tensor:
        x, *z = self.row.parts(state)
        return self.energy(x) - self.vae.log_joint(x, self.vae.evaluate(*z))

    @torch.no_grad()
    def data(self, state: Tensor, kind: Kind) -> Tensor:
        x, *z = self.row.parts(state)
        if kind == "sample":
            return x
        with frozen(self.vae):
            return self.vae.evaluate(*z).mean.to(x.dtype)


class InX(Space):
    """U(x) = E(x) from the VAE's samples: another model, exp(−E) (Table 4, "EBM on x")."""

    def place(self, noise: Tensor, z: tuple[Tensor, ...]) -> Tensor:
        return self.vae.evaluate(*z).x.draw(noise).flatten(1)

    def forward(self, state: Tensor) -> Tensor:
        return self.energy(self.data(state, "sample"))

    def data(self, state: Tensor, kind: Kind) -> Tensor:
        return state.unflatten(1, self.row.shapes[0])


SPACES: dict[Name, type[Space]] = {"noise": InNoise, "data": InData, "x": InX}
