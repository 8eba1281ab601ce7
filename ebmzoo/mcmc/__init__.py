"""The shared Markov chain Monte Carlo kernels: torch only, no networks, no methods."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .annealed import AnnealedLangevin as AnnealedLangevin
    from .chain import Chain as Chain
    from .chain import Sampler as Sampler
    from .frozen import frozen as frozen
    from .hmc import HMC as HMC
    from .langevin import MALA as MALA
    from .langevin import Langevin as Langevin
    from .noise import GeneratorNoise as GeneratorNoise
    from .noise import GlobalNoise as GlobalNoise
    from .noise import JointNoise as JointNoise
    from .noise import Noise as Noise
    from .noise import PerImageNoise as PerImageNoise
    from .noise import SharedNoise as SharedNoise
    from .noise import as_noise as as_noise
    from .replay import ReplayBuffer as ReplayBuffer
    from .tally import Tally as Tally
    from .trajectory import Trajectory as Trajectory
    from .watch import unguarded as unguarded
else:
    attach(__name__)
