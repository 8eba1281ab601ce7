"""What stands in the tables: metrics with their headings, and numbers in as many digits as their seeds agree on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: heading, and which way is better; None where a nearer value to the truth is, or neither
METRICS: dict[str, tuple[str, str | None]] = {
    "fid": ("FID", "low"),
    "fid_1k": ("FID of 1,000", "low"),  # of as many for each, where methods draw unlike numbers
    "kid": ("KID", "low"),
    "isc": ("inception score", "high"),
    "precision": ("precision", "high"),
    "recall": ("recall", "high"),
    "sure_share": ("share of sure samples", "high"),
    "class_share_min": ("rarest class's share", "high"),
    "stacked_modes": ("modes", "high"),
    "stacked_kl": ("KL to the modes", "low"),
    "modes_covered": ("modes covered", "high"),
    "mode_high_quality_share": ("within 4 s of a mode", "high"),
    "mode_least_share": ("rarest mode's share", "high"),
    "mode_kl": ("KL to the modes", "low"),
    "log_density_mean": ("truth's log-density of samples, nats", None),
    "log_likelihood": ("test log-likelihood, nats", "high"),
    "elbo_nats": ("ELBO, nats", "high"),
    "mse_per_pixel": ("reconstruction MSE", "low"),
    "mse_per_coordinate": ("reconstruction MSE", "low"),
    "network_evaluations": ("evaluations per sample", "low"),
    "seconds_50_samples": ("time for 50 samples", "low"),
    "fit_network_evaluations": ("evaluations per training image", "low"),
    "fit_cpu_s": ("training, CPU time", "low"),
}
#: what a reader looks for first; the rest stands behind it
FIRST = {"fid", "precision", "recall", "stacked_modes", "stacked_kl", "modes_covered", "mode_high_quality_share"}
FIRST |= {"log_likelihood", "seconds_50_samples", "fit_cpu_s"}
#: what rows are ordered by, the first that most of them share
QUALITY = ["fid", "fid_1k", "stacked_kl", "mode_high_quality_share"]
QUALITY += ["log_likelihood", "mse_per_pixel", "mse_per_coordinate"]  # of what draws no samples
#: measured in seconds
SECONDS = {"seconds_50_samples", "fit_cpu_s"}
_UNITS = (7200, 1 / 3600, " h"), (120, 1 / 60, " min"), (1, 1, " s"), (0, 1000, " ms")  # from so many seconds on


@dataclass(frozen=True)
class Cell:
    """The seeds of one row in one column.

    Args:
        values: of the seeds; None where one is not finite.
        paper: what the paper reports under the same protocol.
        seconds: whether they are seconds, which are shown in the unit that suits their mean.
    """

    values: Sequence[float | None]
    paper: float | None = None
    seconds: bool = False

    @property
    def finite(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        """None where a seed is not finite."""
        return sum(self.finite) / len(self.finite) if len(self.finite) == len(self.values) else None

    @property
    def deviation(self) -> float:
        """The sample standard deviation; 0 of one seed."""
        return statistics.stdev(self.finite) if len(self.finite) > 1 else 0.0

    def __str__(self) -> str:
        """Mean ± standard deviation.

        Example:
            >>> str(Cell([1.0, 2.0, 3.0])), str(Cell([0.51234])), str(Cell([0.5, None]))
            ('2.0 ± 1.0', '0.512', 'not finite for 1 of 2 seeds')
            >>> str(Cell([0.000339], seconds=True)), str(Cell([100.0, 200.0], seconds=True))
            ('0.339 ms', '2.5 ± 1.2 min')
        """
        if (mean := self.mean) is None:
            return f"not finite for {len(self.values) - len(self.finite)} of {len(self.values)} seeds"
        factor, unit = next((by, name) for least, by, name in _UNITS if mean >= least) if self.seconds else (1, "")
        if len(self.values) == 1:
            return readable(mean * factor) + unit
        return _with_spread(mean * factor, self.deviation * factor) + unit

    def each(self, digits: int = 3) -> str:
        """Mean ± standard deviation, and every seed in so many digits.

        Example:
            >>> Cell([1.0, 2.0, 3.0]).each()
            '2.0 ± 1.0 (1, 2, 3)'
        """
        if self.mean is None:
            return str(self)
        spread = _with_spread(self.mean, self.deviation)
        return f"{spread} ({', '.join(readable(one, digits) for one in self.finite)})"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    Example:
        >>> print(markdown(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    first, *others = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def readable(value: float, digits: int = 3) -> str:
    """A number without an exponent, as far as it can be read.

    Example:
        >>> readable(12345.6), readable(0.51234), readable(25.0), readable(4.3e-5), readable(4.3e-9)
        ('12,346', '0.512', '25', '0.000043', '4.3e-09')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    if "e" in text and abs(value) >= 1e-6:
        text = f"{value:.{digits - 1 - _magnitude(value)}f}".rstrip("0")
    return text


def _with_spread(mean: float, deviation: float) -> str:
    """Both to the second digit of the deviation, or to the fourth of the mean where its seeds agree that far.

    Example:
        >>> _with_spread(5.0, 3.6056), _with_spread(1.0, 4.3e-5), _with_spread(0.5, 0.0), _with_spread(12345.6, 71.2)
        ('5.0 ± 3.6', '1.000 ± 0.000', '0.5 ± 0', '12,346 ± 71')
    """
    if deviation == 0:
        return f"{readable(mean)} ± 0"
    decimals = 1 - _magnitude(deviation)
    if mean != 0:
        decimals = min(decimals, 3 - _magnitude(mean))
    decimals = max(decimals, 0)
    return f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))
