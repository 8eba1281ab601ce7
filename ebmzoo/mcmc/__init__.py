"""The shared Markov chain Monte Carlo kernels: torch only, no networks, no methods."""

from .frozen import frozen
from .langevin import AnnealedLangevin, Langevin
from .metropolis import HMC, MALA
from .nan import unguarded
from .noise import GeneratorNoise, GlobalNoise, JointNoise, Noise, PerImageNoise, SharedNoise, as_noise
from .potential import Potential, Row, Tethered
from .replay import ReplayBuffer
from .sampler import Chain, Metropolis, Sampler, State, Watch
from .trajectory import Trajectory

__all__ = [
    "HMC",
    "MALA",
    "AnnealedLangevin",
    "Chain",
    "GeneratorNoise",
    "GlobalNoise",
    "JointNoise",
    "Langevin",
    "Metropolis",
    "Noise",
    "PerImageNoise",
    "Potential",
    "ReplayBuffer",
    "Row",
    "Sampler",
    "SharedNoise",
    "State",
    "Tethered",
    "Trajectory",
    "Watch",
    "as_noise",
    "frozen",
    "unguarded",
]
