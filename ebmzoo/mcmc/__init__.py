"""The shared Markov chain Monte Carlo kernels: torch only, no networks, no methods."""

from .annealed import AnnealedLangevin
from .chain import Chain, Sampler
from .frozen import frozen
from .hmc import HMC
from .langevin import MALA, Langevin
from .noise import GeneratorNoise, GlobalNoise, JointNoise, Noise, PerImageNoise, SharedNoise, as_noise
from .replay import ReplayBuffer
from .tally import Tally
from .trajectory import Trajectory
from .watch import unguarded

__all__ = [
    "HMC",
    "MALA",
    "AnnealedLangevin",
    "Chain",
    "GeneratorNoise",
    "GlobalNoise",
    "JointNoise",
    "Langevin",
    "Noise",
    "PerImageNoise",
    "ReplayBuffer",
    "Sampler",
    "SharedNoise",
    "Tally",
    "Trajectory",
    "as_noise",
    "frozen",
    "unguarded",
]
