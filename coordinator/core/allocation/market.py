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
from coordinator.core.allocation.crowd import Crowd, drawn_kinds, find_crowd
from coordinator.core.allocation.keys import dense_codes, key_codes
from coordinator.core.allocation.limits import Limits
from coordinator.core.allocation.objective import Integers, Reals
from coordinator.core.allocation.offer import Offer, floor_classes, missing_labels
from coordinator.core.allocation.policy import Policy
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.prune import level_reaching, likely_level, rows_where
from coordinator.core.allocation.setting import Setting
from coordinator.core.allocation.terms import Objective, Term, row_slopes
from coordinator.core.allocation.thin import best_first, lowest_per_key, spread_over_keys
from coordinator.core.allocation.utility import single_score, utilities

SMALLEST_SHORTLIST = 20_000
PICKS_MULTIPLE = 6
ROWS_A_PICK = 64
"""So many rows a pick are ranked one by one."""
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
        affordable = self.limits.cost_limit // self._one_cost
        return int(min(len(self.pool) - len(self.drawn), affordable))

    def left(self, rows: Integers) -> Integers:
        """Those of some rows that the explore draw left."""
        return rows[~_in_sorted(rows, self.drawn)] if len(self.drawn) else rows

    def offer(self, rows: Integers) -> Offer:
        """The given rows, which rise, as an offer."""
        rows = self.left(rows)
        return Offer(
            rows=rows,
            utilities=self.utilities_of(rows),
            ties=self.ties(rows),
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
        if self.only_score is not None:
            return max(SMALLEST_LABEL_MASS, float(self.only_score[1][self.picks_level]))
        known = (
            np.delete(self._all_utilities, self.drawn) if len(self.drawn) else self._all_utilities
        )
        place = len(known) - self.most_picks
        return max(SMALLEST_LABEL_MASS, float(np.partition(known, place)[place]))

    @cached_property
    def picks_level(self) -> int:
        """The highest level of the only score that as many rows reach as can be bought."""
        assert self.only_score is not None
        column, rows = self.only_score[0], self._likely_rows
        if rows is not None:
            reached = np.cumsum(np.bincount(column[rows], minlength=256)[::-1])[::-1]
            if reached[0] >= self.most_picks:
                return int(np.flatnonzero(reached >= self.most_picks)[-1])
        return level_reaching(column, self.most_picks, without=column[self.drawn])

    @cached_property
    def best_rows(self) -> Integers | None:
        """Rising rows that reach this level, without the drawn ones; None if there are far more."""
        assert self.only_score is not None
        level, rows = self.picks_level, self._likely_rows
        if rows is None or len(rows) < self.most_picks:
            return self._reaching(level)
        return rows[np.take(self.only_score[0], rows) >= level]

    @cached_property
    def _likely_rows(self) -> Integers | None:
        """Likewise for the level that a sample suggests: all of them, but perhaps too few."""
        assert self.only_score is not None
        count = self.most_picks + len(self.drawn)
        return self._reaching(likely_level(self.only_score[0], count, sure=True))

    def _reaching(self, level: int) -> Integers | None:
        """Rising rows that reach a level, without the drawn ones; None if there are far more."""
        assert self.only_score is not None
        column = self.only_score[0]
        rows = rows_where(len(column), lambda part: column[part] >= level, most=self.most_rows)
        return None if rows is None else self.left(rows)

    @property
    def most_rows(self) -> int:
        """More rows than this are thinned before an engine sees them."""
        return ROWS_A_PICK * self.most_picks + SMALLEST_SHORTLIST

    @cached_property
    def size(self) -> int:
        """Rows of a shortlist, about."""
        return max(SMALLEST_SHORTLIST, PICKS_MULTIPLE * self.most_picks) + len(self.drawn)

    def crowd(self, terms: tuple[Term, ...]) -> Crowd | None:
        """All rows by kind where far too many share the last utility of a shortlist."""
        if self.only_score is None or self.size * 3 // 2 >= len(self.pool):
            return None
        column, _ = self.only_score
        if np.count_nonzero(column >= self._last_level) <= 2 * self.size:
            return None
        return find_crowd(self.pool, column, np.array([self._last_level]), terms)

    def kinds(self, terms: tuple[Term, ...]) -> Crowd | None:
        """All rows by kind, or None where scores have too many levels for that to help."""
        if self.only_score is None:
            return None
        column, _ = self.only_score
        return find_crowd(self.pool, column, np.flatnonzero(np.bincount(column)), terms)

    def shortlist(self, terms: tuple[Term, ...], crowd: Crowd | None = None) -> Integers:
        """Rising rows worth a first look: the best of all, and of each class with a floor."""
        size = self.size
        if size * 3 // 2 >= len(self.pool):
            return np.arange(len(self.pool))
        best = self._best(None, size, terms) if crowd is None else self._of_crowd(crowd, terms)
        parts = [best]
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
        np.maximum.at(best, keys[: len(spare)], self.utilities_of(spare))
        return rows[self.utilities_of(rows) > best[keys[len(spare) :]]]

    def thinned(self, rows: Integers, terms: tuple[Term, ...], most: int) -> Integers:
        """Of rising rows, a few of each key and level of utility: the best, or as chance has it.

        Where more than one score counts, or chance, rows of a level are not alike.
        """
        if len(rows) <= SMALLEST_SHORTLIST:
            return rows
        worth = self.utilities_of(rows).astype(np.float64) * 1023
        levels, ties = np.rint(worth), self.ties(rows)
        if self.only_score is None:
            ties = best_first(worth - levels, ties)
        codes = dense_codes(self._codes(rows, terms)) * 1024 + levels.astype(np.int64)
        return rows[lowest_per_key(codes, ties, most)]

    def missed(
        self,
        known: Integers,
        objective: Objective,
        masses: list[Reals],
        bars: Reals,
        crowd: Crowd | None = None,
    ) -> Integers:
        """Rising rows outside ``known`` whose gain per cost unit could pass their site's bar.

        Args:
            known: rising rows that were looked at.
            objective: weight of the plain utility sum, and the concave terms.
            masses: masses of the terms' groups.
            bars: float64[sites], gain per cost unit that is no longer bought.
            crowd: rows to leave out.
        """
        linear, terms = objective
        if len(known) + len(self.drawn) == len(self.pool):
            return np.zeros(0, dtype=np.int64)
        steepest = linear + sum(
            float((term.family.factor * term.family.slope(mass)).max())
            for term, mass in zip(terms, masses, strict=True)
        )
        lowest = float(bars.min(initial=np.inf))
        rows = self._at_least(lowest * self._one_cost / max(steepest, 1e-12), crowd)
        slopes = row_slopes(rows, linear, terms, masses)
        worth = self.utilities_of(rows) * slopes
        if self.costs_differ:
            worth = worth / self.setting.costs_of(rows)
        else:
            worth = worth / np.float32(self._one_cost)
        rows = rows[
            worth > (lowest if (bars == lowest).all() else bars[self.pool.site_index[rows]])
        ]
        return self.left(rows[~_in_sorted(rows, known)])

    def of_kinds(
        self,
        crowd: Crowd,
        known: tuple[Integers, Integers],
        objective: Objective,
        look: tuple[list[Reals], Reals],
        most: int,
    ) -> Integers:
        """Rising rows of kinds that pass their site's bar and have no row left among the known.

        Args:
            crowd: rows of one level by kind.
            known: rows that an engine saw, and those of them that it chose.
            objective: weight of the plain utility sum, and the concave terms.
            look: masses of the terms' groups; float64[sites], gain per cost unit that is no longer
                bought.
            most: rows of one kind.
        """
        (linear, terms), (masses, bars) = objective, look
        seen = crowd.tally(known[0]) + crowd.tally(self.drawn)
        slopes = row_slopes(crowd.heads, linear, terms, masses)
        worth = self.utilities_of(crowd.heads) * slopes / self.setting.costs_of(crowd.heads)
        passed = worth / np.maximum(bars[self.pool.site_index[crowd.heads]], 1e-12)
        # A row left of the same kind does as well.
        spare = crowd.tally(known[0]) > crowd.tally(known[1])
        over = np.flatnonzero((passed > 1.0) & (crowd.counts > seen) & ~spare)
        if len(over) > self.size:
            over = over[np.argsort(-passed[over], kind="stable")[: self.size]]
        wanted: Integers = np.zeros(len(crowd.kinds), dtype=np.int64)
        wanted[over] = seen[over] + min(most, max(1, self.size // max(1, len(over))))
        return crowd.lowest(wanted, self.pool, self.setting.key)

    @cached_property
    def _last_level(self) -> int:
        """The highest level of the only score that enough rows reach for a shortlist."""
        assert self.only_score is not None
        return level_reaching(self.only_score[0], self.size)

    def _of_crowd(self, crowd: Crowd, terms: tuple[Term, ...]) -> Integers:
        """The best rising rows of a crowd, those of the last utility spread over its kinds."""
        assert self.only_score is not None
        above = np.flatnonzero(self.only_score[0] > self._last_level)
        left = self.size - len(above)
        kinds: Integers = np.arange(len(crowd.kinds))
        if len(kinds) > left:
            kinds = drawn_kinds(crowd, left // 2, terms, self.setting.key)
        wanted: Integers = np.zeros(len(crowd.kinds), dtype=np.int64)
        wanted[kinds] = -(-left // len(kinds))
        for term in terms:
            # A group of few kinds needs more of each, or its share of the picks is not there.
            groups = term.groups(crowd.heads[kinds])
            known = np.bincount(groups)
            share = 2 * self.most_picks // np.count_nonzero(known) + 8
            wanted[kinds] = np.maximum(wanted[kinds], -(-share // known[groups]))
        return np.union1d(above, crowd.lowest(wanted, self.pool, self.setting.key))

    @cached_property
    def costs_differ(self) -> bool:
        """Whether rows differ in cost."""
        bands = self.pool.cost_bands
        return bool(len(bands)) and bool(bands.min() != bands.max())

    @cached_property
    def _one_cost(self) -> int:
        """Cost of the cheapest row."""
        if self.costs_differ:
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
    def only_score(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """The only score column that counts and its table of utilities, or None."""
        return single_score(self.setting)

    @cached_property
    def _all_utilities(self) -> NDArray[np.float32]:
        return utilities(self.setting)

    def utilities_of(self, rows: Integers) -> NDArray[np.float32]:
        """float32[len(rows)]: worth of the rows' labels, apart from all others."""
        if self.only_score is not None:
            column, table = self.only_score
            return np.take(table, np.take(column, rows))
        return np.asarray(self._all_utilities[rows], dtype=np.float32)

    def _at_least(self, bar: float, crowd: Crowd | None) -> Integers:
        """Rising rows outside the crowd whose utility reaches the bar."""
        if self.only_score is not None:
            column, table = self.only_score
            level = int(np.searchsorted(table[:64], np.float32(bar * (1 - 1e-6))))
            if level >= 64:
                return np.zeros(0, dtype=np.int64)
            reached = column >= level
            return np.flatnonzero(
                reached if crowd is None else reached & (column != self._last_level)
            )
        return np.flatnonzero(self._all_utilities >= bar * (1 - 1e-6))

    def _best(self, members: Integers | None, size: int, terms: tuple[Term, ...]) -> Integers:
        """About the ``size`` best rising rows by utility, of some members or of all.

        Where far more rows than that share the last utility, they are spread over the keys.
        """
        if self.only_score is not None and members is None:
            column, level = self.only_score[0], self._last_level
            near = np.flatnonzero(column >= level)
            if len(near) <= 2 * size:
                return near
            last = column[near] == level
        else:
            members = np.arange(len(self.pool)) if members is None else members
            if len(members) <= 2 * size:
                return members
            worth = self.utilities_of(members)
            bar = np.partition(worth, len(worth) - size)[len(worth) - size]
            near = np.asarray(members[worth >= bar], dtype=np.int64)
            if len(near) <= 2 * size:
                return near
            last = self.utilities_of(near) == bar
        above, level_rows = near[~last], near[last]
        codes = self._codes(level_rows, terms)
        kept = spread_over_keys(codes, self.ties(level_rows), size - len(above))
        return np.sort(np.concatenate([above, level_rows[kept]]))

    def _codes(self, rows: Integers, terms: tuple[Term, ...]) -> Integers:
        costs = self.setting.costs_of(rows)
        return key_codes(self.pool, rows, costs, terms)

    def ties(self, rows: Integers) -> NDArray[np.uint64]:
        """uint64[len(rows)]: chance; lower goes first among equals."""
        return quick_numbers(self.pool.candidate_ids, rows, self.setting.key)


def _in_sorted(values: Integers, known: Integers) -> NDArray[np.bool_]:
    """Whether each value is among the rising known ones."""
    place = np.minimum(np.searchsorted(known, values), max(0, len(known) - 1))
    return known[place] == values if len(known) else np.zeros(len(values), dtype=np.bool_)
