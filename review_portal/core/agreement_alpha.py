"""Krippendorff's alpha: one minus observed over expected disagreement.

Works for any number of experts and any gaps. The distance between two classes depends on the
level: all alike (nominal), ranks (ordinal) or the class index as a number (interval).

Source: Krippendorff, Content Analysis (2nd edition 2004, chapter 11); Hayes and Krippendorff 2007.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from review_portal.core.agreement_intervals import Estimate, bootstrap, symmetric, undefined
from review_portal.core.agreement_ratings import (
    Counted,
    Rating,
    Unit,
    class_totals,
    counted,
    item_count,
    pairable,
    panel_of,
    units_of,
)

Level = Literal["nominal", "ordinal", "interval"]
Distances = Mapping[tuple[int, int], float]


def krippendorff_alpha(
    ratings: Sequence[Rating], *, level: Level = "nominal", seed: int = 0
) -> Estimate:
    """Returns Krippendorff's alpha with a 95 % interval over items.

    Args:
        ratings: One for each expert and item; a missing value is simply absent.
        level: What the class index means.
        seed: Of the bootstrap that the ordinal level needs; the others do not use it.

    Returns:
        The estimate; undefined when no item has two ratings, or all paired ratings name one class.

    Raises:
        RatingsInvalid: An expert rates an item twice.

    >>> krippendorff_alpha([Rating("i", "a", 0), Rating("i", "b", 0), Rating("j", "a", 1),
    ...                     Rating("j", "b", 1)]).value
    1.0
    """
    return alpha_of_counted(units_of(panel_of(ratings)), level=level, seed=seed)


def alpha_of_units(units: Sequence[Unit], *, level: Level = "nominal", seed: int = 0) -> Estimate:
    """Returns alpha of class counts, one mapping an item.

    >>> # Krippendorff 2011, "Computing Krippendorff's alpha-reliability", data C: 0.743
    >>> rows = [{1: 3}, {2: 3, 3: 1}, {3: 4}, {3: 4}, {2: 4}, {1: 1, 2: 1, 3: 1, 4: 1}, {4: 4},
    ...         {1: 3, 2: 1}, {2: 4}, {5: 3}, {1: 2}, {3: 1}]
    >>> [f"{alpha_of_units(rows, level=level).value:.3f}"
    ...  for level in ("nominal", "ordinal", "interval")]
    ['0.743', '0.815', '0.849']
    """
    return alpha_of_counted(counted(units), level=level, seed=seed)


def alpha_of_counted(units: Counted, *, level: Level = "nominal", seed: int = 0) -> Estimate:
    """Returns alpha of units with their numbers of items.

    The interval of the nominal and interval levels is analytic: an infinitesimal jackknife over
    items with Student's quantile (Efron 1982; equal to Gwet's 2021 linearisation up to 1/n). The
    ordinal distances depend on the class totals themselves, so that level is resampled.

    >>> alpha_of_counted([({0: 2}, 500), ({1: 2}, 500)]).value
    1.0
    """
    paired = pairable(units)
    if not paired:
        return undefined("no item was rated by two experts yet", 0)
    alpha = _alpha(paired, level)
    if alpha is None:
        return undefined(
            "every paired rating names the same class, so agreement by chance is certain",
            item_count(paired),
        )
    if level == "ordinal":
        return _with_bootstrap(alpha, paired, level=level, seed=seed)
    error = _jackknife_error(paired, _distances(class_totals(paired), level))
    return symmetric(alpha, error, unit_count=item_count(paired), method="jackknife")


def _with_bootstrap(alpha: float, paired: Counted, *, level: Level, seed: int) -> Estimate:
    items = [unit for unit, weight in paired for _ in range(weight)]
    ends = bootstrap(lambda drawn: _alpha([(u, 1) for u in drawn], level), items, seed=seed)
    if ends is None:
        return Estimate(alpha, None, None, len(items))
    return Estimate(alpha, ends[0], ends[1], len(items), "bootstrap")


def _alpha(paired: Counted, level: Level) -> float | None:
    totals = class_totals(paired)
    if len(totals) < 2:
        return None
    distances = _distances(totals, level)
    rating_count = sum(totals.values())
    observed = math.fsum(w * _unit_disagreement(unit, distances) for unit, w in paired)
    expected = _expected(totals, distances)
    return 1.0 - (rating_count - 1) * observed / expected


def _distances(totals: Mapping[int, int], level: Level) -> Distances:
    """Squared differences between classes (Krippendorff 2011, section C.5)."""
    classes = list(totals)
    if level == "nominal":
        return {(a, b): float(a != b) for a in classes for b in classes}
    if level == "interval":
        return {(a, b): float((a - b) ** 2) for a in classes for b in classes}
    middles: dict[int, float] = {}
    below = 0.0
    for index in classes:
        middles[index] = below + totals[index] / 2
        below += totals[index]
    return {(a, b): (middles[a] - middles[b]) ** 2 for a in classes for b in classes}


def _unit_disagreement(unit: Unit, distances: Distances) -> float:
    """Distances over ordered pairs of one item's ratings, divided by its ratings but one."""
    pairs = math.fsum(
        count * other_count * distances[index, other]
        for index, count in unit.items()
        for other, other_count in unit.items()
        if index != other
    )
    return pairs / (sum(unit.values()) - 1)


def _expected(totals: Mapping[int, int], distances: Distances) -> float:
    return math.fsum(
        count * other_count * distances[index, other]
        for index, count in totals.items()
        for other, other_count in totals.items()
    )


def _jackknife_error(paired: Counted, distances: Distances) -> float:
    """Standard error from the derivative of alpha by each item's weight.

    With weights w: alpha = 1 - (N - 1) D / E, N = sum of w r, D = sum of w d, E quadratic in the
    class totals, so the derivative is exact and one pass over the units is enough.
    """
    total = item_count(paired)
    if total < 2:
        return math.inf
    totals = class_totals(paired)
    rating_count = sum(totals.values())
    expected = _expected(totals, distances)
    by_unit = [_unit_disagreement(unit, distances) for unit, _ in paired]
    observed = math.fsum(w * own for own, (_, w) in zip(by_unit, paired, strict=True))
    reach = {
        index: 2 * math.fsum(count * distances[index, other] for other, count in totals.items())
        for index in totals
    }
    pulls = []
    for (unit, weight), own in zip(paired, by_unit, strict=True):
        grown = math.fsum(count * reach[index] for index, count in unit.items())
        slope = sum(unit.values()) * observed + (rating_count - 1) * (
            own - observed * grown / expected
        )
        pulls.append((-slope / expected, weight))
    mean = math.fsum(weight * pull for pull, weight in pulls) / total
    spread = math.fsum(weight * (pull - mean) ** 2 for pull, weight in pulls)
    return math.sqrt(spread * total / (total - 1))
