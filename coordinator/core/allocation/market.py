"""All candidates that may be bought, read lazily: ten million rows are never scored one by one.

Rows that cannot be bought are left out by passes over one byte column; everything else is worked
out for the rows that remain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import quick_numbers
from coordinator.core.allocation.keys import dense_codes, key_codes
from coordinator.core.allocation.limits import Limits
from coordinator.core.allocation.objective import Integers, Reals
from coordinator.core.allocation.offer import Offer, floor_classes, missing_labels
from coordinator.core.allocation.policy import Policy
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.prune import level_reaching
from coordinator.core.allocation.setting import Setting
from coordinator.core.allocation.terms import Term, row_slopes
from coordinator.core.allocation.thin import lowest_per_key, spread_over_keys
from coordinator.core.allocation.utility import single_score, utilities

SMALLEST_SHORTLIST = 20_000
PICKS_MULTIPLE = 6
SMALLEST_LABEL_MASS = 0.05
"""Least utility that a label of the past counts as, so that counts matter among dull candidates."""


@dataclass(frozen=True)
class Market:
    """What may be bought, and within which limits.

    Attributes:
        setting: inputs of the allocation.
        drawn: int64[m], rising rows that the explore draw took.
        limits: what the draw and the overlap leave.
    """

    setting: Setting
    drawn: Integers
    limits: Limits

    @property
    def pool(self) -> Pool:
        """The open candidates."""
        return self.setting.pool

    @property
    def policy(self) -> Policy:
        """How the budget is spent."""
        return self.setting.policy

    @cached_property
    def floors(self) -> Integers:
        """int64[classes], labels that each class lacks to its floor."""
        return missing_labels(self.pool, self.setting.budget, self.policy)

    @cached_property
    def most_picks(self) -> int:
        """No choice can have more rows than this."""
        if not len(self.pool):
            return 0
        cheapest = int(self.setting.costs_of(slice(None)).min()) if self._mixed else self._one_cost
        return int(min(len(self.pool) - len(self.drawn), self.limits.cost_limit // cheapest))

    def offer(self, rows: Integers) -> Offer:
        """The given rows, which rise, as an offer."""
        if len(self.drawn):
            rows = rows[~np.isin(rows, self.drawn, assume_unique=True)]
        return Offer(
            rows=rows,
            utilities=self._utilities(rows),
            ties=self._ties(rows),
            costs=self.setting.costs_of(rows),
            classes=self._classes[rows] if self.floors.any() else self._main[rows].astype(np.int64),
            limits=self.limits,
            floors=self.floors,
        )

    def whole(self) -> Offer:
        """All rows; only the certificate needs them at once."""
        return self.offer(np.arange(len(self.pool)))

    @cached_property
    def label_mass(self) -> float:
        """Utility that a label of the past counts as: that of the last candidate one can afford."""
        if not self.most_picks:
            return SMALLEST_LABEL_MASS
        if self._single is not None:
            column, table = self._single
            level = level_reaching(column, self.most_picks, without=column[self.drawn])
            return max(SMALLEST_LABEL_MASS, float(table[level]))
        known = (
            np.delete(self._all_utilities, self.drawn) if len(self.drawn) else self._all_utilities
        )
        place = len(known) - self.most_picks
        return max(SMALLEST_LABEL_MASS, float(np.partition(known, place)[place]))

    def shortlist(self, terms: tuple[Term, ...]) -> Integers:
        """Rising rows worth a first look: the best of all, and of each class with a floor."""
        size = max(SMALLEST_SHORTLIST, PICKS_MULTIPLE * self.most_picks) + len(self.drawn)
        if size * 3 // 2 >= len(self.pool):
            return np.arange(len(self.pool))
        parts = [self._best(None, size, terms)]
        for group in np.flatnonzero(self.floors).tolist():
            members = np.flatnonzero(self._classes == group)
            if len(members):
                parts.append(self._best(members, 8 * int(self.floors[group]) + 64, terms))
        return np.unique(np.concatenate(parts)) if len(parts) > 1 else parts[0]

    def undominated(self, rows: Integers, spare: Integers, terms: tuple[Term, ...]) -> Integers:
        """Of rising rows, those better than every spare row of their key.

        Args:
            rows: rows that an engine has not seen.
            spare: rows that it saw and left.
            terms: the concave terms, which make the keys.
        """
        if len(rows) <= SMALLEST_SHORTLIST:
            return rows
        keys = dense_codes(self._codes(np.concatenate([spare, rows]), terms))
        best = np.full(int(keys.max()) + 1, -1.0, dtype=np.float32)
        np.maximum.at(best, keys[: len(spare)], self._utilities(spare))
        return rows[self._utilities(rows) > best[keys[len(spare) :]]]

    def thinned(self, rows: Integers, terms: tuple[Term, ...], most: int) -> Integers:
        """Of rising rows, those that chance puts first in each key and level of utility."""
        if len(rows) <= SMALLEST_SHORTLIST:
            return rows
        codes = dense_codes(self._codes(rows, terms)) * 1024
        codes += np.rint(self._utilities(rows) * 1023).astype(np.int64)
        return rows[lowest_per_key(codes, self._ties(rows), most)]

    def missed(
        self,
        known: Integers,
        objective: tuple[float, tuple[Term, ...]],
        masses: list[Reals],
        bars: Reals,
    ) -> Integers:
        """Rising rows outside ``known`` whose gain per cost unit could pass their site's bar.

        Args:
            known: rising rows that were looked at.
            objective: weight of the plain utility sum, and the concave terms.
            masses: masses of the terms' groups.
            bars: float64[sites], gain per cost unit that is no longer bought.
        """
        linear, terms = objective
        if len(known) + len(self.drawn) == len(self.pool):
            return np.zeros(0, dtype=np.int64)
        steepest = linear + sum(
            float((term.family.factor * term.family.slope(mass)).max())
            for term, mass in zip(terms, masses, strict=True)
        )
        lowest = float(bars.min(initial=np.inf))
        rows = self._at_least(lowest * self._one_cost / max(steepest, 1e-12))
        slopes = row_slopes(rows, linear, terms, masses)
        worth = self._utilities(rows) * slopes
        if self._mixed:
            worth = worth / self.setting.costs_of(rows)
        else:
            worth = worth / np.float32(self._one_cost)
        rows = rows[
            worth > (lowest if (bars == lowest).all() else bars[self.pool.site_index[rows]])
        ]
        return rows[~_in_sorted(rows, known) & ~_in_sorted(rows, self.drawn)]

    @cached_property
    def _mixed(self) -> bool:
        """Whether rows differ in cost."""
        bands = self.pool.cost_bands
        return bool(len(bands)) and bool(bands.min() != bands.max())

    @cached_property
    def _one_cost(self) -> int:
        """Cost of the cheapest row."""
        if self._mixed:
            return int(self.setting.costs_of(slice(None)).min())
        return int(self.setting.costs_of(slice(0, 1))[0])

    @cached_property
    def _main(self) -> NDArray[np.uint16]:
        pool = self.pool
        return pool.prototype_classes if self.policy.switches.prototype else pool.predicted_classes

    @cached_property
    def _classes(self) -> Integers:
        return floor_classes(self.pool, self.policy, self.floors)

    @cached_property
    def _single(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        return single_score(self.pool, self.policy, self.setting.phase)

    @cached_property
    def _all_utilities(self) -> NDArray[np.float32]:
        return utilities(self.pool, self.policy, self.setting.phase)

    def _utilities(self, rows: Integers) -> NDArray[np.float32]:
        if self._single is not None:
            column, table = self._single
            return np.asarray(table[column[rows]], dtype=np.float32)
        return np.asarray(self._all_utilities[rows], dtype=np.float32)

    def _at_least(self, bar: float) -> Integers:
        """Rising rows whose utility reaches the bar."""
        if self._single is not None:
            column, table = self._single
            level = int(np.searchsorted(table[:64], np.float32(bar * (1 - 1e-6))))
            return np.flatnonzero(column >= level) if level < 64 else np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self._all_utilities >= bar * (1 - 1e-6))

    def _best(self, members: Integers | None, size: int, terms: tuple[Term, ...]) -> Integers:
        """About the ``size`` best rising rows by utility, of some members or of all.

        Where far more rows than that share the last utility, they are spread over the keys.
        """
        if self._single is not None and members is None:
            column, _ = self._single
            level = level_reaching(column, size)
            near = np.flatnonzero(column >= level)
            if len(near) <= 2 * size:
                return near
            last = column[near] == level
        else:
            members = np.arange(len(self.pool)) if members is None else members
            if len(members) <= 2 * size:
                return members
            worth = self._utilities(members)
            bar = np.partition(worth, len(worth) - size)[len(worth) - size]
            near = np.asarray(members[worth >= bar], dtype=np.int64)
            if len(near) <= 2 * size:
                return near
            last = self._utilities(near) == bar
        above, level_rows = near[~last], near[last]
        codes = self._codes(level_rows, terms)
        kept = spread_over_keys(codes, self._ties(level_rows), size - len(above))
        return np.sort(np.concatenate([above, level_rows[kept]]))

    def _codes(self, rows: Integers, terms: tuple[Term, ...]) -> Integers:
        costs = self.setting.costs_of(rows)
        return key_codes(self.pool, rows, costs, terms)

    def _ties(self, rows: Integers) -> NDArray[np.uint64]:
        return quick_numbers(self.pool.candidate_ids, rows, self.setting.key)


def _in_sorted(values: Integers, known: Integers) -> NDArray[np.bool_]:
    """Whether each value is among the rising known ones."""
    place = np.minimum(np.searchsorted(known, values), max(0, len(known) - 1))
    return known[place] == values if len(known) else np.zeros(len(values), dtype=np.bool_)
