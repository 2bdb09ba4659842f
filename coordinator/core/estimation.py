"""Live accuracy without a held-out set: the difference estimator on explore labels.

The population is the pool at the time of the explore draw, the predictor is the model version that
scored it. Each candidate has a predicted confidence f and, once labelled, a correctness y of 0 or
1. The mean of f over the pool is known from totals; explore labels correct it:

    accuracy = (sum of f over the pool + sum over explore labels of (y - f) / inclusion) / size

Its expectation is the true accuracy whatever f is; a good f only makes it narrow.

Sources: Särndal, Swensson and Wretman, "Model assisted survey sampling", 1992 (difference
estimator); Zrnic and Candès, "Active statistical inference", 2024; Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting", 2024 (confidence sequence).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.result import ExploreFrame

Reals = NDArray[np.float64]
_GRID = 801
_LARGEST_STAKE = 0.75
"""Share of the capital that one bet may lose; below 1 it stays positive, whatever comes."""


@dataclass(frozen=True, slots=True, eq=False)
class ExploreLabels:
    """Explore picks of one draw, in the order of their labels, best a random one.

    Attributes:
        site_index: int64[m].
        predicted_classes: int64[m].
        confidences: float64[m], largest probability as it was sent, in [0, 1].
        inclusion_probabilities: float64[m], as logged before any label existed.
        correct: int64[m], 1 right, 0 wrong, -1 no label (abstained, refused or expired).
    """

    site_index: NDArray[np.int64]
    predicted_classes: NDArray[np.int64]
    confidences: Reals
    inclusion_probabilities: Reals
    correct: NDArray[np.int64]

    def part(self, rows: NDArray[np.bool_]) -> ExploreLabels:
        """Only the picks that the mask keeps."""
        return ExploreLabels(
            site_index=self.site_index[rows],
            predicted_classes=self.predicted_classes[rows],
            confidences=self.confidences[rows],
            inclusion_probabilities=self.inclusion_probabilities[rows],
            correct=self.correct[rows],
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """An accuracy with its uncertainty.

    Attributes:
        value: unbiased estimate; it may leave [0, 1] when labels are few.
        standard_error: of the value, in points of accuracy.
        low: lower end of the anytime-valid interval, in [0, 1].
        high: its upper end.
        label_count: labels that came back.
        response_ratio: labels that came back over labels that were asked for; below 1 the estimate
            assumes that inside a site the missing ones are like the others.
    """

    value: float
    standard_error: float
    low: float
    high: float
    label_count: int
    response_ratio: float


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """Accuracy of one model version on the pool that it scored.

    Attributes:
        overall: of all candidates.
        by_site: by site index; sites without candidates are absent.
        by_class: by predicted class index; classes that nothing was predicted as are absent.
    """

    overall: Estimate
    by_site: dict[int, Estimate]
    by_class: dict[int, Estimate]


def report_accuracy(
    frame: ExploreFrame, labels: ExploreLabels, *, error_rate: float = 0.05
) -> AccuracyReport:
    """Estimates accuracy overall, by site and by predicted class.

    Args:
        frame: the population, logged with the draw.
        labels: what became of the drawn candidates.
        error_rate: each interval misses the truth, at any time, at most this often.
    """
    labels = _reweighted(labels, len(frame.targets))
    sizes, sums = frame.counts.astype(np.float64), frame.probability_sums
    sites = {
        site: _estimate(
            sizes[site].sum(), sums[site].sum(), labels.part(labels.site_index == site), error_rate
        )
        for site in np.flatnonzero(sizes.sum(axis=1)).tolist()
    }
    classes = {
        group: _estimate(
            sizes[:, group].sum(),
            sums[:, group].sum(),
            labels.part(labels.predicted_classes == group),
            error_rate,
        )
        for group in np.flatnonzero(sizes.sum(axis=0)).tolist()
    }
    overall = _estimate(float(sizes.sum()), float(sums.sum()), labels, error_rate)
    return AccuracyReport(overall=overall, by_site=sites, by_class=classes)


def confidence_sequence(
    values: Reals, *, lowest: float, highest: float, error_rate: float = 0.05
) -> tuple[Reals, Reals]:
    """Lower and upper ends after each value, valid at all times together.

    A gambler bets against each candidate mean; means at which the stake has grown by
    1 / error_rate are given up for good.

    Args:
        values: float64[n] in [lowest, highest], each with the same mean given the earlier ones.
        lowest: smallest possible value.
        highest: largest possible value.
        error_rate: chance that the mean ever leaves the interval.

    >>> low, high = confidence_sequence(np.full(200, 0.7), lowest=0.0, highest=1.0)
    >>> bool(low[-1] < 0.7 < high[-1]), bool(high[-1] - low[-1] < 0.1)
    (True, True)
    """
    span = highest - lowest
    if not len(values) or span <= 0:
        return np.full(len(values), lowest), np.full(len(values), highest)
    scaled = (values - lowest) / span
    bets = _bets(scaled, error_rate)
    grid = np.linspace(0.0, 1.0, _GRID)
    most_up = _LARGEST_STAKE / np.maximum(grid, 1e-9)
    most_down = _LARGEST_STAKE / np.maximum(1.0 - grid, 1e-9)
    up, down = np.zeros(_GRID), np.zeros(_GRID)
    alive = np.ones(_GRID, dtype=np.bool_)
    low, high = np.empty(len(values)), np.empty(len(values))
    for step, (value, bet) in enumerate(zip(scaled.tolist(), bets.tolist(), strict=True)):
        up += np.log1p(np.minimum(bet, most_up) * (value - grid))
        down += np.log1p(-np.minimum(bet, most_down) * (value - grid))
        alive &= np.maximum(up, down) < np.log(2.0 / error_rate)
        places = np.flatnonzero(alive)
        # One grid step of slack on either side, because the truth may lie between two points.
        first = places[0] - 1 if len(places) else 0
        last = places[-1] + 1 if len(places) else _GRID - 1
        low[step], high[step] = grid[max(first, 0)], grid[min(last, _GRID - 1)]
    return lowest + span * low, lowest + span * high


def _bets(scaled: Reals, error_rate: float) -> Reals:
    """Stakes that look at earlier values only: large when these vary little."""
    count = np.arange(1, len(scaled) + 1)
    mean = (0.5 + np.cumsum(scaled)) / (count + 1)
    spread = (0.25 + np.cumsum((scaled - mean) ** 2)) / (count + 1)
    earlier = np.concatenate([[0.25], spread[:-1]])
    stakes = np.sqrt(2.0 * np.log(2.0 / error_rate) / (earlier * count * np.log1p(count)))
    return np.asarray(stakes, dtype=np.float64)


def _estimate(size: float, total: float, labels: ExploreLabels, error_rate: float) -> Estimate:
    """The difference estimator over a part of the population, in ratio form."""
    answered = labels.part(labels.correct >= 0)
    asked = len(labels.correct)
    response = len(answered.correct) / asked if asked else 1.0
    if not len(answered.correct):
        return Estimate(total / size, 0.5, 0.0, 1.0, 0, response)
    inverse = 1.0 / answered.inclusion_probabilities
    errors = answered.correct - answered.confidences
    value = (total + float((errors * inverse).sum())) / size
    variance = float(((1.0 - 1.0 / inverse) * (errors * inverse) ** 2).sum()) / size**2
    # Two imagined labels, one right and one wrong, keep a run of luck from looking certain.
    variance += 2.0 * 0.25 / (len(errors) + 2.0) ** 2
    low, high = _interval(inverse, answered, size=size, mean=total / size, error_rate=error_rate)
    return Estimate(value, float(np.sqrt(variance)), low, high, len(errors), response)


def _interval(
    inverse: Reals, answered: ExploreLabels, *, size: float, mean: float, error_rate: float
) -> tuple[float, float]:
    """Anytime-valid interval from the labels' single contributions, which share their mean."""
    count = len(inverse)
    lift = inverse * count / size
    errors = answered.correct - answered.confidences
    # A contribution is y - f times its lift; y is 0 or 1, and confidences are known beforehand.
    highest = float((lift * (1.0 - answered.confidences)).max())
    lowest = float((lift * -answered.confidences).min())
    low, high = confidence_sequence(
        lift * errors, lowest=lowest - 1e-9, highest=highest + 1e-9, error_rate=error_rate
    )
    return float(np.clip(mean + low[-1], 0.0, 1.0)), float(np.clip(mean + high[-1], 0.0, 1.0))


def _reweighted(labels: ExploreLabels, sites: int) -> ExploreLabels:
    """Divides the inclusion probabilities of a site by its share of missing labels."""
    asked = np.bincount(labels.site_index, minlength=sites)
    answered = np.bincount(labels.site_index[labels.correct >= 0], minlength=sites)
    ratio = np.divide(answered, asked, out=np.ones(sites), where=(asked > 0) & (answered > 0))
    return ExploreLabels(
        site_index=labels.site_index,
        predicted_classes=labels.predicted_classes,
        confidences=labels.confidences,
        inclusion_probabilities=labels.inclusion_probabilities * ratio[labels.site_index],
        correct=labels.correct,
    )
