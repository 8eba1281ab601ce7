"""The spaces in which VAEBM's chains may run: the VAE's white noise, (x, z), or x alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ebmzoo.mcmc import Noise, as_noise, frozen
from ebmzoo.objectives import latent_log_joint

__all__ = ["Kind", "Name", "Space", "State"]

Name = Literal["noise", "data", "x"]
Kind = Literal["sample", "mean"]
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Space:
    """What a chain moves, and what it means.

    * ``noise``: (ε_x, ε_z) on E(T(ε)) + ½‖ε‖² (Eq. 9); the quadratic is the kernel's, which knows it analytically.
    * ``data``: (x, z) on E(x) − log p(x, z) (Eq. 13), the same density without the change of variables.
    * ``x``: x alone on E(x), from the VAE's samples: another model, exp(−E).

    Args:
        name: one of the three.
        vae: the VAE.
        energy: E, ``(B, *image_shape)`` to ``(B,)``.
    """

    name: Name
    vae: Any
    energy: Callable[[Tensor], Tensor]

    @property
    def white(self) -> bool:
        """Whether the base density of the state is white noise."""
        return self.name == "noise"

    def latents(self, noise: State) -> State:
        """White noise of the latents to the z-part of a state."""
        return noise if self.white else self.vae.generate(*noise).z

    def place(self, noise: Tensor, z: State) -> State:
        """The state with this z-part whose x-part comes of the white noise given."""
        if self.white:
            return (noise, *z)
        latents = self.vae.evaluate(*z)
        x = latents.mean + latents.log_sigma.exp() * noise
        return (x, *z) if self.name == "data" else (x,)

    def potential(self, x: Tensor, *z: Tensor) -> Tensor:
        """U of a state, less what ``white`` leaves to the kernel, ``(B,)``."""
        if self.name == "noise":
            latents = self.vae.generate(*z)
            return self.energy(latents.mean + latents.log_sigma.exp() * x)
        if self.name == "data":
            return self.energy(x) - latent_log_joint(x, self.vae.evaluate(*z))
        return self.energy(x)

    @torch.no_grad()
    def data(self, state: State, kind: Kind) -> Tensor:
        """The x of a state (Eq. 8), or its decoder mean."""
        x, *z = state
        if self.name == "x" or (self.name == "data" and kind == "sample"):
            return x
        with frozen(self.vae):
            latents = self.vae.generate(*z) if self.white else self.vae.evaluate(*z)
        mean = latents.mean.to(x.dtype)
        return mean if kind == "mean" else mean + latents.log_sigma.exp() * x

    @torch.no_grad()
    def cooled(self, state: State, temperature: float, noise: Noise) -> State:
        """A low-temperature start in white noise (appendix E).

        The VAE, its BatchNorm readjusted, makes the means of the state's z-part scaled by the temperature; its encoder,
        not readjusted, turns them back into white noise.
        """
        own = as_noise(0, state[0].device)  # the statistics are the model's: the same for every call
        cool = self.vae.readjusted(temperature, lambda shape: own.normal(shape, state[0]))
        x = cool.generate(*(temperature * z for z in state[1:])).mean
        with frozen(self.vae):
            found = self.vae.infer(x, lambda shape: noise.normal(shape, x))
        return ((x - found.mean) * (-found.log_sigma).exp(), *found.noise)
