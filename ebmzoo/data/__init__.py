"""Data modules: digits, characters and points without a download, the papers' sets, any folder of images."""

from typing import TYPE_CHECKING

from ebmzoo.lazy import attach

if TYPE_CHECKING:
    from .base import DataModule as DataModule
    from .base import Examples as Examples
    from .base import InMemory as InMemory
    from .base import PerItem as PerItem
    from .densities import Checkerboard as Checkerboard
    from .densities import Density as Density
    from .densities import GaussianMixture as GaussianMixture
    from .densities import Pinwheel as Pinwheel
    from .densities import Rings as Rings
    from .digits import Digits as Digits
    from .digits import digits as digits
    from .folders import CelebA as CelebA
    from .folders import CelebAHQ as CelebAHQ
    from .folders import ImageFolder as ImageFolder
    from .folders import LSUNChurch as LSUNChurch
    from .glyphs import Glyphs as Glyphs
    from .glyphs import glyphs as glyphs
    from .images import CIFAR10 as CIFAR10
    from .images import CIFAR100 as CIFAR100
    from .images import STL10 as STL10
    from .images import SVHN as SVHN
    from .images import ImageNet32 as ImageNet32
    from .mnist import MNIST as MNIST
    from .mnist import mnist as mnist
    from .order import EpochBatches as EpochBatches
    from .order import Loader as Loader
    from .order import OrderedBatches as OrderedBatches
    from .order import Rows as Rows
    from .stacked import Stacked as Stacked
    from .stacked import StackedDigits as StackedDigits
    from .stacked import StackedMNIST as StackedMNIST
    from .targets import GMM40 as GMM40
    from .targets import Funnel as Funnel
    from .targets import Gaussian as Gaussian
    from .targets import ManyWell as ManyWell
    from .targets import Ring as Ring
    from .targets import Target as Target
    from .toy import Gaussians25 as Gaussians25
    from .toy import Toy2D as Toy2D
else:
    attach(__name__)
