"""The certificate where scores tie: the best tangent by Newton steps on a smoothed dual.

Where millions of rows are alike, any tangent near the optimum leaves most kinds equally good, and
Frank-Wolfe steps jump between them. So the tangent's slopes s and the budget's price p are found as
the minimum of the bound itself,

    sum over groups of max_V [ value(V) - s V ]  +  p B  +  sum over kinds of n_k (gain_k(s) - p)+,

where (x)+ is smoothed by a temperature that falls in stages. Kinds meet only in sums by pairs of
groups, so a step costs a few passes over the kinds and one dense system. Any slopes give a bound,
whatever their quality; the bound that is returned is never smoothed.

Source: Nesterov, "Smooth minimization of non-smooth functions", 2005 (smoothing the dual).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coordinator.core.allocation.market import Market
from coordinator.core.allocation.objective import Family, Integers, Reals, group_sums
from coordinator.core.allocation.terms import Objective

MOST_GROUPS = 2000
"""Up to so many groups a dense system is quick."""
_STAGES = (0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Temperatures in units of the price of a label."""
_MOST_STEPS = 12
_CLOSE = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Rows by kind and how many labels may be bought, each at the same cost.

    Attributes:
        utilities: float64[k], positive.
        counts: float64[k], rows of each kind.
        linear: weight of the plain sum of utilities.
        families: the concave terms; their ``groups`` say the group of each kind.
        labels: most labels, above 0 and below the number of rows.
    """

    utilities: Reals
    counts: Reals
    linear: float
    families: tuple[Family, ...]
    labels: int


def market_kinds(market: Market, objective: Objective) -> Kinds | None:
    """All rows by kind, or None where the bound has to look at single rows.

    That is so where kinds are many or differ in cost, where groups are very many, and where a floor
    or a limit of a site could matter.
    """
    linear, terms = objective
    groups = sum(len(term.family.weights) for term in terms)
    steep = all(t.family.power > 0 and (t.family.weights > 0).all() for t in terms)
    wanted = bool(terms) and market.most_picks > 0 and not market.floors.any()
    if not wanted or groups > MOST_GROUPS or not steep:
        return None
    crowd = market.kinds(terms)
    if crowd is None:
        return None
    costs, labels = market.setting.costs_of(crowd.heads), market.most_picks
    counts = crowd.counts - crowd.tally(market.drawn)
    sites = market.pool.site_index[crowd.heads]
    offered = group_sums(sites, counts.astype(np.float64), count=market.pool.site_count)
    most = np.minimum(market.limits.site_labels, market.limits.site_costs // int(costs[0]))
    utilities = market.utilities_of(crowd.heads).astype(np.float64)
    known = (counts > 0) & (utilities > 0)
    bound_by_site = (np.minimum(offered, labels) > most).any()
    if (costs != costs[0]).any() or bound_by_site or not 0 < labels < counts[known].sum():
        return None
    heads = crowd.heads[known]
    return Kinds(
        utilities=utilities[known],
        counts=counts[known].astype(np.float64),
        linear=linear,
        families=tuple(
            replace(term.family, groups=term.groups(heads).astype(np.int64)) for term in terms
        ),
        labels=labels,
    )


def bound_of_kinds(kinds: Kinds, start: list[Reals], *, enough: float) -> float:
    """The smallest bound found, on any choice of so many labels.

    Args:
        kinds: what may be bought.
        start: masses of the families' groups to start from, best those of a good choice.
        enough: a bound as small as this ends the search.
    """
    dual = _Dual(kinds)
    slopes = np.concatenate(
        [family.slope(mass) for family, mass in zip(kinds.families, start, strict=True)]
    )
    best, price = dual.bound(slopes)
    point = np.append(slopes, price)
    for stage in _STAGES:
        if best <= enough:
            break
        point = _settle(dual, point, stage * price)
        best = min(best, dual.bound(point[:-1])[0])
    return best


def _settle(dual: _Dual, point: Reals, heat: float) -> Reals:
    """Newton steps at one temperature until a step would gain next to nothing."""
    for _ in range(_MOST_STEPS):
        value = dual.value(point, heat)
        gradient, bend = dual.look(point, heat)
        step = -np.linalg.solve(bend, gradient)
        promised = float(-(gradient @ step))
        if promised <= _CLOSE * abs(value):
            break
        # Slopes stay positive.
        steepest = float((step[:-1] / point[:-1]).min(initial=0.0))
        size = min(1.0, -0.9 / steepest) if steepest < 0 else 1.0
        while dual.value(point + size * step, heat) > value - 1e-4 * size * promised:
            size *= 0.5
            if size < _CLOSE:
                return point
        point = point + size * step
    return point


class _Dual:
    """The bound as a function of the slopes, family by family, and of the price of a label."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        sizes = [len(family.weights) for family in kinds.families]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._weights = np.concatenate([family.weights for family in kinds.families])
        self._powers = np.repeat([family.power for family in kinds.families], sizes)
        self._scales = np.concatenate([family.scale for family in kinds.families])
        self._bases = np.concatenate([family.base for family in kinds.families])

    def bound(self, slopes: Reals) -> tuple[float, float]:
        """An upper bound, and the gain of the last label that it buys."""
        gain, counts = self._gains(slopes), self._kinds.counts
        order = np.argsort(-gain)
        total = np.cumsum(counts[order])
        last = int(np.searchsorted(total, self._kinds.labels))
        price = float(gain[order[last]])
        paid = float((counts * np.maximum(gain - price, 0.0)).sum())
        return self._offset(slopes) + price * self._kinds.labels + paid, price

    def value(self, point: Reals, heat: float) -> float:
        """The smoothed bound."""
        slopes, price = point[:-1], float(point[-1])
        excess = (self._gains(slopes) - price) / heat
        soft = heat * float((self._kinds.counts * np.logaddexp(0.0, excess)).sum())
        return self._offset(slopes) + price * self._kinds.labels + soft

    def look(self, point: Reals, heat: float) -> tuple[Reals, Reals]:
        """Slope and second derivative of the smoothed bound."""
        slopes, kinds = point[:-1], self._kinds
        share = 0.5 + 0.5 * np.tanh((self._gains(slopes) - point[-1]) / (2.0 * heat))
        taken = kinds.counts * share
        bend = taken * (1.0 - share) / heat
        gradient = np.append(self._sums(taken * kinds.utilities) - self._masses(slopes), 0.0)
        gradient[-1] = kinds.labels - float(taken.sum())
        # A slope that falls by one unit needs so much mass.
        stretch = self._scales / (self._weights * self._powers)
        own = stretch * (self._weights / slopes) ** (1.0 + 1.0 / self._powers)
        second = np.zeros((len(point), len(point)))
        second[:-1, :-1] = self._pairs(bend * kinds.utilities**2) + np.diag(own)
        second[-1, :-1] = second[:-1, -1] = -self._sums(bend * kinds.utilities)
        second[-1, -1] = float(bend.sum()) + 1e-12
        return gradient, second

    def _gains(self, slopes: Reals) -> Reals:
        total = np.full(len(self._kinds.counts), self._kinds.linear)
        for family, start in zip(self._kinds.families, self._starts, strict=False):
            total += family.factor * slopes[start:][family.groups]
        return np.asarray(total * self._kinds.utilities)

    def _masses(self, slopes: Reals) -> Reals:
        """Masses at which the groups have these slopes; below 0 where they are never so steep."""
        ratio = (self._weights / slopes) ** (1.0 / self._powers)
        return np.asarray(self._scales * (ratio - 1.0) - self._bases)

    def _offset(self, slopes: Reals) -> float:
        """What the tangents add: value less slope times mass, where they touch."""
        masses, total = self._masses(slopes), -float(slopes @ self._masses(slopes))
        for family, start in zip(self._kinds.families, self._starts, strict=False):
            total += float(family.value(masses[start : start + len(family.weights)]).sum())
        return total

    def _sums(self, amounts: Reals) -> Reals:
        """float64[groups]: sums by group of each family."""
        return np.concatenate(
            [
                family.factor * group_sums(family.groups, amounts, count=len(family.weights))
                for family in self._kinds.families
            ]
        )

    def _pairs(self, amounts: Reals) -> Reals:
        """float64[groups, groups]: sums of the kinds that two groups share."""
        families = self._kinds.families
        result = np.zeros((len(self._weights), len(self._weights)))
        for place, first in enumerate(families):
            rows = slice(self._starts[place], self._starts[place + 1])
            for other, second in enumerate(families[: place + 1]):
                columns = slice(self._starts[other], self._starts[other + 1])
                shape = len(first.weights), len(second.weights)
                both: Integers = first.groups * shape[1] + second.groups
                sums = group_sums(both, amounts, count=shape[0] * shape[1]).reshape(shape)
                result[rows, columns] = first.factor * second.factor * sums
                result[columns, rows] = result[rows, columns].T
        return result
