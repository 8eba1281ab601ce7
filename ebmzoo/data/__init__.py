"""Data modules: digits and points that need no download, the papers' image sets, and any folder of images."""

from ebmzoo.data.base import DataModule, Examples, InMemory, PerItem
from ebmzoo.data.digits import Digits, digits
from ebmzoo.data.folders import CelebA, CelebAHQ, ImageFolder, LSUNChurch
from ebmzoo.data.images import CIFAR10, STL10, ImageNet32
from ebmzoo.data.order import EpochBatches, Loader, OrderedBatches, Rows
from ebmzoo.data.toy import GaussianMixture, Gaussians25

__all__ = [
    "CIFAR10",
    "STL10",
    "CelebA",
    "CelebAHQ",
    "DataModule",
    "Digits",
    "EpochBatches",
    "Examples",
    "GaussianMixture",
    "Gaussians25",
    "ImageFolder",
    "ImageNet32",
    "InMemory",
    "LSUNChurch",
    "Loader",
    "OrderedBatches",
    "PerItem",
    "Rows",
    "digits",
]
