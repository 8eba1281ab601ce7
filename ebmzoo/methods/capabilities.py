"""What a method can do, as protocols: evaluators and tasks ask for what they need, whatever the method's class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from ebmzoo.mcmc import Noise, Sampler, Watch
from ebmzoo.parts.gaussian import Gaussian

if TYPE_CHECKING:
    from .base import Method

__all__ = [
    "LACKS",
    "BoundsLikelihood",
    "Decodes",
    "Encodes",
    "HasEnergy",
    "HasLogDensity",
    "InfersByChain",
    "Reconstructs",
    "Samples",
    "Scores",
    "Tilts",
]


@runtime_checkable
class Samples(Protocol):
    """Draws samples in the data's units, with the method's test-time sampler; images are in [-1, 1]."""

    def sample(
        self,
        n: int,
        *,
        steps: int | None = None,
        noise: None | int | torch.Generator | Noise = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """``(n, *image_shape)``."""


@runtime_checkable
class HasEnergy(Protocol):
    """Has an energy E(x), the raw network output: low means likely."""

    def energy(self, x: Tensor) -> Tensor:
        """``(B,)``."""


@runtime_checkable
class Scores(Protocol):
    """Scores examples for out-of-distribution detection: high means in-distribution."""

    def score(self, x: Tensor) -> Tensor:
        """``(B,)``."""


@runtime_checkable
class Decodes(Protocol):
    """Generates from a latent code z with a prior that can be drawn from and evaluated."""

    latent_dim: int

    def decode(self, z: Tensor) -> Tensor:
        """``(B, *image_shape)``, of ``(B, latent_dim)``: a mean, which may leave the images' [-1, 1] a little.

        `ebmzoo.images.to_uint8` clamps and rounds.
        """

    def draw_latents(self, n: int, noise: Noise, like: Tensor) -> Tensor:
        """``(n, latent_dim)``, with the dtype and device of ``like``."""

    def log_prior(self, z: Tensor) -> Tensor:
        """``(B,)`` nats."""


@runtime_checkable
class Encodes(Protocol):
    """Has an inference network."""

    def encode(self, x: Tensor) -> Gaussian:
        """q(z|x): mean and log σ, both ``(B, latent_dim)``."""


@runtime_checkable
class Reconstructs(Protocol):
    """Reconstructs examples."""

    def reconstruct(self, x: Tensor) -> Tensor:
        """``(B, *image_shape)``, a mean as of `Decodes`, not clamped either."""


@runtime_checkable
class BoundsLikelihood(Protocol):
    """Bounds the log-likelihood from below."""

    def log_likelihood_bound(self, x: Tensor, samples: int = 1, noise: None | int | Noise = None) -> Tensor:
        """``(B,)`` nats."""


@runtime_checkable
class HasLogDensity(Protocol):
    """Has a log-density, known up to log Z."""

    def log_density(self, x: Tensor) -> Tensor:
        """``(B,)`` nats."""


@runtime_checkable
class Tilts(Protocol):
    """Is a normalised base p tilted by an energy, h(x) = p(x) exp(−E(x))/Z; `BoundsLikelihood` bounds log p(x)."""

    @property
    def has_base(self) -> bool:
        """Whether it is that with its present settings."""

    @property
    def white_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the white noise that makes a draw of p."""

    def base_sample(self, n: int, *, noise: None | int | torch.Generator | Noise = None) -> Tensor:
        """Draws of p, ``(n, *image_shape)``."""

    def white_energy(self, *noise: Tensor) -> Tensor:
        """E of what white noise makes, ``(B,)``; its tensors ``(B, *shape)`` as in ``white_shapes``."""

    def energy(self, x: Tensor) -> Tensor:
        """``(B,)``."""


@runtime_checkable
class InfersByChain(Protocol):
    """Reconstructs by a chain over latents, from what its inference network says."""

    latent_sampler: Sampler

    def reconstruct(
        self, x: Tensor, *, steps: int | None = None, noise: None | int | torch.Generator | Noise = 0
    ) -> Tensor:
        """``(B, *image_shape)``; 0 steps are the inference network's own."""


#: what is said of a method that lacks a capability
LACKS: dict[type, str] = {
    Samples: "does not sample",
    HasEnergy: "has no energy",
    Scores: "has no score",
    Reconstructs: "reconstructs nothing",
    BoundsLikelihood: "bounds no likelihood",
    HasLogDensity: "has no log-density",
}


if TYPE_CHECKING:

    class AnyMethod(
        Method, Samples, HasEnergy, Scores, Decodes, Encodes, InfersByChain, BoundsLikelihood, HasLogDensity, Tilts
    ):
        """What a type checker takes a method for whose class it cannot know: one that can do everything."""
