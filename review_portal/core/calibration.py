"""Does a confidence of 0.8 mean right in 8 of 10 cases? Reliability bins and what they permit.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (bins, expected error).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from review_portal.core.agreement_intervals import Estimate, undefined, wilson

BIN_COUNT = 10
"""Bars of a diagram."""


@dataclass(frozen=True, slots=True)
class SettledSuggestion:
    """A suggestion whose label is known.

    Attributes:
        confidence: Top class probability, in [0, 1].
        is_right: True when the label is the suggested class.
    """

    confidence: float
    is_right: bool

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"a confidence lies in [0, 1], not {self.confidence}")


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One bar of a reliability diagram.

    Attributes:
        low: Lower edge, part of the bin except for the first bin's own 0.
        high: Upper edge, part of the bin.
        mean_confidence: Mean confidence inside; None in an empty bin.
        accuracy: Share of right suggestions with Wilson's interval.
    """

    low: float
    high: float
    mean_confidence: float | None
    accuracy: Estimate

    @property
    def gap(self) -> float:
        """Mean confidence minus accuracy; above zero means overconfident; 0 when empty."""
        if self.mean_confidence is None or self.accuracy.value is None:
            return 0.0
        return self.mean_confidence - self.accuracy.value


def bin_of(confidence: float, bin_count: int) -> int:
    """Returns the place of a confidence among bins of equal width; an edge counts below it.

    >>> bin_of(0.7, 10), bin_of(0.71, 10), bin_of(0.0, 10)
    (6, 7, 0)
    """
    # Rounding first: 0.7 * 10 is 7.000000000000001 and belongs to the bin that ends there.
    return max(0, math.ceil(round(confidence * bin_count, 9)) - 1)


def bin_of_sums(
    place: int, counts: tuple[int, int], confidence_sum: float, bin_count: int = BIN_COUNT
) -> CalibrationBin:
    """Returns a bar from sums.

    Args:
        place: Which bin, from 0.
        counts: Suggestions inside, and how many of them were right.
        confidence_sum: Sum of their confidences.
        bin_count: Bins of the diagram.

    >>> bar = bin_of_sums(8, (2, 1), 1.75)
    >>> bar.low, bar.mean_confidence, bar.accuracy.value
    (0.8, 0.875, 0.5)
    """
    total, right = counts
    mean = confidence_sum / total if total else None
    low, high = place / bin_count, (place + 1) / bin_count
    return CalibrationBin(low, high, mean, wilson(right, total))


def reliability_bins(
    suggestions: Sequence[SettledSuggestion], bin_count: int = BIN_COUNT
) -> tuple[CalibrationBin, ...]:
    """Returns bins of equal width over [0, 1]; a confidence on an edge counts below it.

    Raises:
        ValueError: `bin_count` is not 1 to 100.

    >>> bins = reliability_bins([SettledSuggestion(0.9, True), SettledSuggestion(0.95, False)])
    >>> [bar.accuracy.unit_count for bar in bins][-2:]
    [1, 1]
    """
    if not 1 <= bin_count <= 100:
        raise ValueError(f"a diagram has 1 to 100 bins, not {bin_count}")
    members: list[list[SettledSuggestion]] = [[] for _ in range(bin_count)]
    for suggestion in suggestions:
        members[bin_of(suggestion.confidence, bin_count)].append(suggestion)
    return tuple(
        bin_of_sums(
            place,
            (len(inside), sum(s.is_right for s in inside)),
            math.fsum(s.confidence for s in inside),
            bin_count,
        )
        for place, inside in enumerate(members)
    )


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> Estimate:
    """Returns the mean absolute gap, weighted by the suggestions of each bin, in [0, 1].

    >>> bins = reliability_bins([SettledSuggestion(0.9, True), SettledSuggestion(0.9, False)])
    >>> round(expected_calibration_error(bins).value, 3)
    0.4
    """
    total = sum(bar.accuracy.unit_count for bar in bins)
    if total == 0:
        return undefined("no suggestion has a label yet", 0)
    error = math.fsum(abs(bar.gap) * bar.accuracy.unit_count for bar in bins) / total
    return Estimate(error, None, None, total)


@dataclass(frozen=True, slots=True)
class JudgedGuess:
    """Class probabilities of a sample whose label is known.

    Attributes:
        probabilities: One a class, in [0, 1], as the device sent them.
        class_index: The label.
    """

    probabilities: tuple[float, ...]
    class_index: int


def further_temperature(guesses: Sequence[JudgedGuess]) -> float:
    """Returns by how much the temperature behind the probabilities should be multiplied.

    The logarithms of probabilities are logits up to a constant, so the log loss at every further
    temperature follows from them. 1 says that the confidence is right as it is, above 1 that it
    is too high. Of a grid from 1/4 to 4 in steps of about 12 %.

    Source: Guo et al. 2017.

    Raises:
        ValueError: There are no guesses.

    >>> sure = (0.99, 0.01)
    >>> further_temperature([JudgedGuess(sure, 0)] * 8 + [JudgedGuess(sure, 1)] * 2) > 2
    True
    """
    if not guesses:
        raise ValueError("a temperature needs guesses with labels")
    steps = [4 ** (step / 12) for step in range(-12, 13)]
    return min(steps, key=lambda factor: sum(_log_loss(guess, factor) for guess in guesses))


def _log_loss(guess: JudgedGuess, factor: float) -> float:
    logits = [math.log(max(p, 1e-12)) / factor for p in guess.probabilities]
    top = max(logits)
    total = math.fsum(math.exp(logit - top) for logit in logits)
    return math.log(total) + top - logits[guess.class_index]


def supported_threshold(
    suggestions: Sequence[SettledSuggestion],
    *,
    accuracy_min: float,
    risk: float = 0.05,
    step_count: int = 50,
) -> float | None:
    """Returns the least confidence from which suggestions may stand without an expert.

    A threshold is supported when the suggestions at or above it are right in at least
    `accuracy_min` of cases, with certainty 1 - `risk` over all thresholds tried together: each of
    them is tested at `risk` / `step_count` (Bonferroni) with an exact binomial tail.

    Args:
        suggestions: Settled ones of one model version, drawn without regard to their confidence.
        accuracy_min: In (0, 1).
        risk: Chance that the answer is too low, in (0, 1).
        step_count: Thresholds tried: i / step_count for i in 0 to step_count - 1.

    Returns:
        The threshold, or None when no threshold is supported: nothing may be labeled by itself.

    >>> sure = [SettledSuggestion(0.99, True)] * 300 + [SettledSuggestion(0.5, False)] * 30
    >>> supported_threshold(sure, accuracy_min=0.95)
    0.52
    """
    if not 0.0 < accuracy_min < 1.0 or not 0.0 < risk < 1.0:
        raise ValueError("accuracy_min and risk lie between 0 and 1")
    for step in range(step_count):
        threshold = step / step_count
        above = [s.is_right for s in suggestions if s.confidence >= threshold]
        tail = _binomial_tail(sum(above), len(above), accuracy_min)
        if above and tail <= risk / step_count:
            return threshold
    return None


def _binomial_tail(success_count: int, trial_count: int, probability: float) -> float:
    """P(X >= successes) for X binomial, summed upwards until the terms vanish."""
    odds = probability / (1 - probability)
    term = math.exp(
        math.lgamma(trial_count + 1)
        - math.lgamma(success_count + 1)
        - math.lgamma(trial_count - success_count + 1)
        + success_count * math.log(probability)
        + (trial_count - success_count) * math.log1p(-probability)
    )
    if term == 0.0:  # so far out that the whole mass lies on one side
        return float(success_count < trial_count * probability)
    total = 0.0
    for count in range(success_count, trial_count + 1):
        total += term
        ratio = odds * (trial_count - count) / (count + 1)
        if ratio < 1 and term < 1e-18 * total:
            break
        term *= ratio
    return min(1.0, total)
