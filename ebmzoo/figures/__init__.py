"""What is measured of a model: a figure has its settings, its numbers and its pictures in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from ebmzoo.figures.annealing import Annealing
from ebmzoo.figures.base import Figure, Look, Number, Picture
from ebmzoo.figures.chains import ChainHealth
from ebmzoo.figures.cost import Cost
from ebmzoo.figures.landscape import Energies, Landscape
from ebmzoo.figures.likelihood import Bounds, Likelihood
from ebmzoo.figures.long_run import LongRun
from ebmzoo.figures.neighbours import Neighbours
from ebmzoo.figures.ood import OutOfDistribution
from ebmzoo.figures.reconstruction import Reconstruction
from ebmzoo.figures.samples import Classified, Fidelity, OtherEnd, Points, Saved

__all__ = [
    "PARTS",
    "SWITCHES",
    "Annealing",
    "Bounds",
    "ChainHealth",
    "Classified",
    "Cost",
    "Energies",
    "Fidelity",
    "Figure",
    "Figures",
    "Landscape",
    "Likelihood",
    "LongRun",
    "Look",
    "Neighbours",
    "Number",
    "OtherEnd",
    "OutOfDistribution",
    "Picture",
    "Points",
    "Reconstruction",
    "Saved",
]


@dataclass(frozen=True)
class Figures:
    """The figures of an evaluation, in the order in which they are made; None leaves one out.

    Of those that are there, a model and its data have what they can have.

    Args:
        save_samples: the samples that are measured, as files.
        fidelity: FID, KID, IS, precision and recall of images.
        classified: what the digit classifier says of them; the modes of stacked digits.
        points: log-density and covered modes of points with a known density.
        other_end: the same distance before the chain, or after it.
        cost: network evaluations and seconds for samples.
        neighbours: distances to the nearest training images, beside those of test images.
        bounds: ELBO and importance-weighted bounds.
        likelihood: in the plane the exact one, log Z by a lattice.
        annealing: log Z by annealed importance sampling.
        reconstruction: squared error, PSNR and SSIM of the test split, along the z chain where there is one.
        ood: the score of the test split against that of other sets, and against that of the training split.
        chains: the chains' energy, displacement, drift against noise, acceptance, R-hat and effective sample size.
        long_run: what becomes of chains of up to 30 times their training length, with and without Metropolis tests.
        energies: of data and samples.
        landscape: in the plane, in ``arrays.npz`` for the report.
        more: others; one's own too.

    Example:
        >>> [type(one).__name__ for one in Figures(more=[LongRun()])][-2:]
        ['Landscape', 'LongRun']
    """

    save_samples: Saved | None = None
    fidelity: Fidelity | None = Fidelity()
    classified: Classified | None = Classified()
    points: Points | None = Points()
    other_end: OtherEnd | None = OtherEnd()
    cost: Cost | None = Cost()
    neighbours: Neighbours | None = Neighbours()
    bounds: Bounds | None = Bounds()
    likelihood: Likelihood | None = Likelihood()
    annealing: Annealing | None = None
    reconstruction: Reconstruction | None = Reconstruction()
    ood: OutOfDistribution | None = OutOfDistribution()
    chains: ChainHealth | None = ChainHealth()
    long_run: LongRun | None = None
    energies: Energies | None = Energies()
    landscape: Landscape | None = Landscape()
    more: Sequence[Figure] = ()

    def __iter__(self) -> Iterator[Figure]:
        own = (getattr(self, one.name) for one in fields(self) if one.name != "more")
        return (one for one in (*own, *self.more) if one is not None)


#: of an evaluation, as ``only`` of `Evaluate` takes them
PARTS = tuple(dict.fromkeys(one.part for one in Figures()))

#: what `ebmzoo test` can switch on beside them
SWITCHES: dict[str, Figure] = {"long_run": LongRun(), "save_samples": Saved()}
