"""The shared Markov chain Monte Carlo kernels: torch only, no networks, no methods."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .averaging import DualAveraging as DualAveraging
    from .langevin import AnnealedLangevin as AnnealedLangevin
    from .langevin import Langevin as Langevin
    from .metropolis import HMC as HMC
    from .metropolis import MALA as MALA
    from .noise import GeneratorNoise as GeneratorNoise
    from .noise import GlobalNoise as GlobalNoise
    from .noise import JointNoise as JointNoise
    from .noise import Noise as Noise
    from .noise import PerImageNoise as PerImageNoise
    from .noise import SharedNoise as SharedNoise
    from .noise import as_noise as as_noise
    from .observing import Observer as Observer
    from .observing import observed as observed
    from .observing import unguarded as unguarded
    from .potential import Given as Given
    from .potential import Potential as Potential
    from .potential import Row as Row
    from .potential import Scaled as Scaled
    from .potential import Sum as Sum
    from .potential import Tethered as Tethered
    from .potential import as_potential as as_potential
    from .potential import frozen as frozen
    from .replay import ReplayBuffer as ReplayBuffer
    from .sampler import Chain as Chain
    from .sampler import Metropolis as Metropolis
    from .sampler import Sampler as Sampler
    from .sampler import State as State
    from .sampler import Watch as Watch
    from .tempering import ReplicaExchange as ReplicaExchange
    from .trajectory import Trajectory as Trajectory
    from .underdamped import UnderdampedLangevin as UnderdampedLangevin
else:
    attach(__name__)
