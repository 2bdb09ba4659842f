"""The objective: a sum of concave functions of group masses, monotone and submodular.

    F(S) = w0 Σ u_i  +  Σ_families Σ_groups v_g [ φ(a_g + factor · Σ_{i in S, g} u_i) - φ(a_g) ]

A candidate's gain depends on the masses of its groups only, and for a fixed key (its groups, its
site, its cost) it grows with its own utility. So only the best open candidate of a key, its head,
can be the next pick, and greedy over heads equals greedy over candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.result import Certificate

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One way to put candidates into groups, and how fast a group's gain fades.

    The slope of φ at mass x is ``(1 + x / scale) ** -power``: 1 at the first label, constant for
    power 0, square-root like for power 1/2, logarithmic for power 1.

    Attributes:
        name: for reports.
        groups: int64[keys], group of each key.
        factor: share of a candidate's utility that counts in this family.
        weights: float64[groups], v_g, at least 0.
        base: float64[groups], a_g, mass that is labelled already.
        scale: float64[groups], positive mass at which the slope starts to fade.
        power: at least 0.
    """

    name: str
    groups: Integers
    factor: float
    weights: Reals
    base: Reals
    scale: Reals
    power: float

    def value(self, mass: Reals) -> Reals:
        """float64[groups]: weighted φ(base + mass) - φ(base)."""
        return self.weights * (self._phi(self.base + mass) - self._phi(self.base))

    def slope(self, mass: Reals) -> Reals:
        """float64[groups]: derivative of :meth:`value`."""
        return np.asarray(self.weights * (1.0 + (self.base + mass) / self.scale) ** -self.power)

    def gain(self, mass: Reals, added: Reals, groups: Integers) -> Reals:
        """What adding ``added`` to each of ``groups`` brings, each on its own."""
        start = np.take(self.base, groups) + np.take(mass, groups)
        scale = np.take(self.scale, groups)
        step = _phi(start + added, scale, self.power) - _phi(start, scale, self.power)
        return np.asarray(np.take(self.weights, groups) * step)

    def room(self, mass: Reals, epsilon: float) -> Reals:
        """Mass that each group can take before its slope has fallen by the factor 1 - epsilon."""
        if self.power == 0.0:
            return np.full(len(mass), np.inf)
        growth = (1.0 - epsilon) ** (-1.0 / self.power) - 1.0
        return np.asarray((self.scale + self.base + mass) * growth)

    def _phi(self, mass: Reals) -> Reals:
        return _phi(mass, self.scale, self.power)


def _phi(mass: Reals, scale: Reals, power: float) -> Reals:
    if power == 0.0:
        return mass
    if power == 1.0:
        return np.asarray(scale * np.log1p(mass / scale))
    if power == 0.5:
        return np.asarray(2.0 * scale * (np.sqrt(1.0 + mass / scale) - 1.0))
    ratio = (1.0 + mass / scale) ** (1.0 - power) - 1.0
    return np.asarray(scale / (1.0 - power) * ratio)


def group_sums(groups: NDArray[np.integer], amounts: Reals, *, count: int) -> Reals:
    """float64[count]: sum of the amounts in each group.

    >>> group_sums(np.array([0, 2, 0]), np.array([1.0, 2.0, 3.0]), count=3).tolist()
    [4.0, 0.0, 2.0]
    """
    return np.bincount(groups, weights=amounts, minlength=count).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Items grouped by key and ready for an engine. Items are sorted by key, best first.

    Attributes:
        utilities: float64[n], at least 0, falling inside each key.
        ties: uint64[n], rising inside equal utilities; breaks ties between keys.
        starts: int64[keys + 1], first item of each key.
        costs: int64[keys], cost units of one item.
        divisors: float64[keys], what an engine divides gains by: the costs, or 1.
        sites: int64[keys].
        linear: w0, weight of the plain sum of utilities.
        families: the concave terms.
        rows: int64[n], row of the pool behind each item.
    """

    utilities: Reals
    ties: NDArray[np.uint64]
    starts: Integers
    costs: Integers
    divisors: Reals
    sites: Integers
    linear: float
    families: tuple[Family, ...]
    rows: Integers

    @property
    def key_count(self) -> int:
        """How many keys there are."""
        return len(self.costs)

    def item_keys(self) -> Integers:
        """int64[n]: key of each item."""
        return np.repeat(np.arange(self.key_count), np.diff(self.starts))

    def masses(self, items: Integers) -> list[Reals]:
        """Mass that the items put into the groups of each family."""
        keys = np.searchsorted(self.starts, items, side="right") - 1
        return [
            group_sums(
                family.groups[keys],
                family.factor * self.utilities[items],
                count=len(family.weights),
            )
            for family in self.families
        ]

    def empty_masses(self) -> list[Reals]:
        """No mass anywhere."""
        return [np.zeros(len(family.weights)) for family in self.families]

    def value(self, items: Integers) -> float:
        """The objective of a set of items."""
        masses = self.masses(items)
        concave = sum(
            float(family.value(mass).sum())
            for family, mass in zip(self.families, masses, strict=True)
        )
        return self.linear * float(self.utilities[items].sum()) + concave

    def gains(self, masses: list[Reals], keys: Integers, utilities: Reals) -> Reals:
        """float64[len(keys)]: gain of one item of each key with the given utility."""
        total = self.linear * utilities
        for family, mass in zip(self.families, masses, strict=True):
            groups = np.take(family.groups, keys)
            total = total + family.gain(mass, family.factor * utilities, groups)
        return total

    def slopes(self, masses: list[Reals], keys: Integers) -> Reals:
        """float64[len(keys)]: gain per unit of utility at the given masses."""
        total = np.full(len(keys), self.linear)
        for family, mass in zip(self.families, masses, strict=True):
            total += np.take(family.factor * family.slope(mass), np.take(family.groups, keys))
        return total


def certificate(problem: Problem, items: Integers, bound: float) -> Certificate:
    """The value of the picked items beside an upper bound."""
    return Certificate(value=problem.value(items), bound=bound)
