"""Data modules: digits, characters and points without a download, the papers' sets, any folder of images."""

from ebmzoo.data.base import DataModule, Examples, InMemory, PerItem
from ebmzoo.data.densities import Checkerboard, Density, GaussianMixture, Pinwheel, Rings
from ebmzoo.data.digits import Digits, digits
from ebmzoo.data.folders import CelebA, CelebAHQ, ImageFolder, LSUNChurch
from ebmzoo.data.glyphs import Glyphs, glyphs
from ebmzoo.data.images import CIFAR10, CIFAR100, STL10, SVHN, ImageNet32
from ebmzoo.data.mnist import MNIST, mnist
from ebmzoo.data.order import EpochBatches, Loader, OrderedBatches, Rows
from ebmzoo.data.stacked import Stacked, StackedDigits, StackedMNIST
from ebmzoo.data.toy import Gaussians25, Toy2D

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "STL10",
    "SVHN",
    "CelebA",
    "CelebAHQ",
    "Checkerboard",
    "DataModule",
    "Density",
    "Digits",
    "EpochBatches",
    "Examples",
    "GaussianMixture",
    "Gaussians25",
    "Glyphs",
    "ImageFolder",
    "ImageNet32",
    "InMemory",
    "LSUNChurch",
    "Loader",
    "OrderedBatches",
    "PerItem",
    "Pinwheel",
    "Rings",
    "Rows",
    "Stacked",
    "StackedDigits",
    "StackedMNIST",
    "Toy2D",
    "digits",
    "glyphs",
    "mnist",
]
