"""Estimates with 95 % intervals, in the standard library alone.

An estimate that cannot be computed is a value too: it says why, so that no page shows a number
that means nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

CONFIDENCE = 0.95
"""Coverage that every interval of this package aims at."""
Unit = TypeVar("Unit")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    Attributes:
        value: Point estimate; None when it is undefined.
        low: Lower end of the 95 % interval; None when undefined or with fewer than two units.
        high: Upper end, as `low`.
        unit_count: Items (or answers) that the estimate rests on.
        method: How the interval was made, or "none".
        undefined: Why there is no value; empty when there is one.
    """

    value: float | None
    low: float | None
    high: float | None
    unit_count: int
    method: str = "none"
    undefined: str = ""

    @property
    def is_defined(self) -> bool:
        """True when there is a value."""
        return self.value is not None


def undefined(reason: str, unit_count: int) -> Estimate:
    """Returns an estimate without a value.

    >>> undefined("no item has two ratings", 0).is_defined
    False
    """
    return Estimate(None, None, None, unit_count, undefined=reason)


def wilson(success_count: int, trial_count: int) -> Estimate:
    """Returns a share with Wilson's score interval.

    Args:
        success_count: Successes, 0 to `trial_count`.
        trial_count: Trials; with 0 the share is undefined.

    Raises:
        ValueError: The counts are not 0 <= successes <= trials.

    Source: Wilson 1927, JASA 22; recommended for small samples by Brown, Cai and DasGupta 2001.

    >>> share = wilson(81, 263)  # the worked example of Newcombe 1998, table I
    >>> f"{share.low:.4f} {share.high:.4f}"
    '0.2553 0.3662'
    """
    if not 0 <= success_count <= trial_count:
        raise ValueError(f"{success_count} successes in {trial_count} trials cannot be")
    if trial_count == 0:
        return undefined("there is no answer to count yet", 0)
    ratio, z2 = success_count / trial_count, normal_quantile(CONFIDENCE) ** 2
    scale = 1.0 + z2 / trial_count
    middle = (ratio + z2 / (2 * trial_count)) / scale
    spread = ratio * (1 - ratio) / trial_count + z2 / (4 * trial_count**2)
    half = math.sqrt(z2 * spread) / scale
    low = 0.0 if success_count == 0 else middle - half
    high = 1.0 if success_count == trial_count else middle + half
    return Estimate(ratio, low, high, trial_count, "wilson")


def symmetric(value: float, standard_error: float, *, unit_count: int, method: str) -> Estimate:
    """Returns value ± t · standard error with unit_count - 1 degrees of freedom, inside [-1, 1].

    >>> shown = symmetric(0.76117, 0.15302, unit_count=12, method="gwet")
    >>> f"{shown.low:.3f} {shown.high:.0f}"
    '0.424 1'
    """
    if unit_count < 2:
        return Estimate(value, None, None, unit_count)
    half = student_quantile(CONFIDENCE, unit_count - 1) * standard_error
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), unit_count, method)


def normal_quantile(coverage: float) -> float:
    """Returns z with P(|Z| <= z) = coverage.

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    return NormalDist().inv_cdf((1 + coverage) / 2)


def student_quantile(coverage: float, freedom: int) -> float:
    """Returns t with P(|T| <= t) = coverage for Student's T, to better than 1e-9.

    Args:
        coverage: In (0, 1).
        freedom: Degrees of freedom, at least 1.

    >>> round(student_quantile(0.95, 11), 6)
    2.200985
    """
    if freedom > 400:
        return _expanded_student_quantile(coverage, freedom)
    low, high = 0.0, 1.0
    while _two_sided_student(high, freedom) < coverage:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        if _two_sided_student(middle, freedom) < coverage:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _expanded_student_quantile(coverage: float, freedom: int) -> float:
    """Abramowitz and Stegun 26.7.5: three terms in 1/freedom after the normal quantile."""
    z = normal_quantile(coverage)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _two_sided_student(t: float, freedom: int) -> float:
    """P(|T| <= t) by the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine2 = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for step in range(odd, freedom - 1, 2):
        total += term
        term *= cosine2 * (step + 1) / (step + 2)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def bootstrap(
    statistic: Callable[[Sequence[Unit]], float | None],
    units: Sequence[Unit],
    *,
    seed: int,
    resample_count: int = 1000,
) -> tuple[float, float] | None:
    """Returns the 95 % percentile interval of a statistic over resampled units.

    Args:
        statistic: Value of a sample, or None where it is undefined; such resamples are left out.
        units: What is drawn with replacement: whole items, never single ratings.
        seed: Makes the interval reproducible.
        resample_count: Resamples, at least 40.

    Returns:
        The interval, or None when fewer than two units or fewer than 40 defined resamples exist.

    Source: Efron 1979; for agreement coefficients Zapf et al. 2016, BMC Med. Res. Methodol. 16:93.

    >>> bootstrap(lambda drawn: sum(drawn) / len(drawn), [0, 1] * 50, seed=3)
    (0.4, 0.61)
    """
    if len(units) < 2:
        return None
    chance = random.Random(seed)  # noqa: S311 - resampling, not a secret
    drawn = (statistic(chance.choices(units, k=len(units))) for _ in range(resample_count))
    values = sorted(value for value in drawn if value is not None)
    if len(values) < 40:
        return None
    tail = (1 - CONFIDENCE) / 2
    last = len(values) - 1
    return values[round(tail * last)], values[round((1 - tail) * last)]
