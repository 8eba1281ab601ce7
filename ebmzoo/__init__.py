"""Energy-based generative models that train, resume and can be compared.

The names below are loaded when they are first used, so that ``import ebmzoo`` alone costs nothing.

Example:
    >>> import ebmzoo
    >>> ebmzoo.Langevin(steps=15).steps
    15
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

__version__ = "0.2.0"

if TYPE_CHECKING:
    from .callbacks import EMA as EMA
    from .callbacks import Diverged as Diverged
    from .callbacks import Evaluate as Evaluate
    from .callbacks import Guard as Guard
    from .callbacks import NetworkEvaluations as NetworkEvaluations
    from .callbacks import Pictures as Pictures
    from .callbacks import Progress as Progress
    from .checkpoints import export as export
    from .checkpoints import load as load
    from .data import CIFAR10 as CIFAR10
    from .data import CIFAR100 as CIFAR100
    from .data import MNIST as MNIST
    from .data import STL10 as STL10
    from .data import SVHN as SVHN
    from .data import CelebA as CelebA
    from .data import CelebAHQ as CelebAHQ
    from .data import DataModule as DataModule
    from .data import Digits as Digits
    from .data import Gaussians25 as Gaussians25
    from .data import Glyphs as Glyphs
    from .data import ImageFolder as ImageFolder
    from .data import ImageNet32 as ImageNet32
    from .data import LSUNChurch as LSUNChurch
    from .data import StackedDigits as StackedDigits
    from .data import StackedMNIST as StackedMNIST
    from .data import Toy2D as Toy2D
    from .mcmc import HMC as HMC
    from .mcmc import MALA as MALA
    from .mcmc import Langevin as Langevin
    from .methods import EBM as EBM
    from .methods import ECVAE as ECVAE
    from .methods import GAN as GAN
    from .methods import VAE as VAE
    from .methods import VAEBM as VAEBM
    from .methods import WGAN as WGAN
    from .methods import BiDVL as BiDVL
    from .methods import DenoisingEBM as DenoisingEBM
    from .methods import DualMCMC as DualMCMC
    from .methods import ECFlow as ECFlow
    from .methods import Flow as Flow
    from .methods import Method as Method
    from .report.study import study as study
    from .report.study_result import Study as Study
else:
    attach(__name__)
