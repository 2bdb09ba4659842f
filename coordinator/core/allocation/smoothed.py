"""Prices and shares of the linear problem, by Newton steps on a smoothed dual.

Each limit pays a logarithmic toll that shrinks in stages, and so do both ends of each row's share.
Then the dual is smooth and strictly convex in the prices, and the best share of a row follows from
its worth after prices in closed form. Rows meet only in sums by site and class, so a Newton step
costs a few passes over the rows and one small system: two unknowns a site are eliminated by hand.

A floor that cannot be met must not make the problem infeasible, so a missing floor label may be
bought from nobody at :data:`DEAREST_FLOOR` times the largest worth.

Source: Fiacco and McCormick, "Nonlinear programming: sequential unconstrained minimization
techniques", 1968 (the barrier and its shares); the elimination is a Schur complement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordinator.core.allocation.prices import LinearProblem, Multipliers, Reals

TOLLS = (0.03, 4.5e-3, 7e-4, 1e-4, 1e-5, 1e-6)
"""Toll of each stage, in units of the largest worth; the last one says how exact the prices are."""
DITHER = 1e-3
"""Largest change of a worth that tells equal rows apart, in units of the largest worth."""
DEAREST_FLOOR = 10.0
_GOLDEN = 0.6180339887498949
_MOST_STEPS = 30
_CLOSE = 1e-8
_INTER = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Relaxed:
    """An almost best solution where rows may be bought in part.

    Attributes:
        prices: what each limit is worth; they give a bound whatever their quality.
        shares: float64[n] in [0, 1], how much of each row is bought.
    """

    prices: Multipliers
    shares: Reals


def solve_relaxed(
    problem: LinearProblem, *, dither: float = 0.0, start: Multipliers | None = None
) -> Relaxed:
    """Solves the linear problem with shares of rows.

    Args:
        problem: rows and limits; rows that fit no limit get the share 0.
        dither: with :data:`DITHER` nearly all shares are 0 or 1, because equal rows differ a little
            by their place. So a caller who puts rows into an order of its own gets the same shares
            whatever order they came in.
        start: prices of a similar problem; the early stages are then left out.
    """
    limits = problem.limits
    all_shares: Reals = np.zeros(len(problem.worth))
    sites, classes = len(limits.site_labels), len(problem.floors)
    rows = problem.fitting()
    scale = float(problem.worth[rows].max(initial=0.0))
    if scale <= 0.0:
        none = Multipliers(0.0, np.zeros(sites), np.zeros(sites), np.zeros(classes))
        return Relaxed(none, all_shares)
    dual = _Dual(problem.part(rows), scale, dither * np.mod(rows.astype(np.float64) * _GOLDEN, 1.0))
    point = dual.first() if start is None else dual.near(start, scale)
    shares: Reals = np.zeros(len(rows))
    for toll in TOLLS if start is None else TOLLS[2:]:
        point, shares = _settle(dual, point, toll)
    all_shares[rows] = shares
    return Relaxed(dual.multipliers(point, scale), all_shares)


def _settle(dual: _Dual, point: Reals, toll: float) -> tuple[Reals, Reals]:
    """Newton steps at one toll until a step would gain next to nothing."""
    last = toll == TOLLS[-1]
    shares: Reals = np.zeros(0)
    for _ in range(_MOST_STEPS):
        look = dual.look(point, toll)
        shares = look.shares
        promised = float(-(look.gradient @ look.direction))
        if promised <= (_CLOSE if last else _INTER * _CLOSE) * (1.0 + abs(look.value)):
            break
        steepest = float((look.direction / point).min())
        size = min(1.0, -0.9 / steepest) if steepest < 0 else 1.0
        while size > _CLOSE:
            moved = point + size * look.direction
            if dual.value(moved, toll) <= look.value - 1e-4 * size * promised:
                break
            size *= 0.5
        else:
            break
        point = moved
    return point, shares


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """The dual at one point: its value, its slope, the Newton step, and the rows' shares."""

    value: float
    gradient: Reals
    direction: Reals
    shares: Reals


class _Dual:
    """The smoothed dual. A point is budget, labels by site, money by site, floors by class."""

    def __init__(self, problem: LinearProblem, scale: float, dither: Reals) -> None:
        self._problem = problem
        self._worth = problem.worth / scale + dither
        self._costs = problem.costs.astype(np.float64)
        self._sites = len(problem.limits.site_labels)
        self._floored = np.flatnonzero(problem.floors > 0)
        # Classes without a floor share the last column, which has no price.
        column = np.full(len(problem.floors), len(self._floored), dtype=np.int64)
        column[self._floored] = np.arange(len(self._floored))
        self._columns = len(self._floored) + 1
        self._pairs = problem.sites * self._columns + column[problem.classes]
        labels, money = self._table(np.ones(len(self._pairs))), self._table(self._costs)
        limits = problem.limits
        most = np.concatenate([[money.sum()], labels.sum(axis=1), money.sum(axis=1)])
        given = np.concatenate([[limits.cost_limit], limits.site_labels, limits.site_costs])
        self._floors = problem.floors[self._floored].astype(np.float64)
        # A limit beyond all that is offered is as good as one just beyond it.
        self._bounds = np.concatenate([np.minimum(given, most + 1.0), -self._floors])
        self._binding = np.concatenate([given <= most, self._floors > 0])

    def first(self) -> Reals:
        """A point to start from: the budget's price as if no other limit mattered."""
        place = int(self._bounds[0] / self._costs.mean())
        ratio = np.sort(self._worth / self._costs)[::-1]
        point = np.full(len(self._bounds), 0.05)
        point[0] = max(float(ratio[min(place, len(ratio) - 1)]), 1e-3)
        return point

    def near(self, prices: Multipliers, scale: float) -> Reals:
        """A point close to known prices, away from all edges."""
        floors = prices.floors[self._floored]
        joined = np.concatenate([[prices.budget], prices.labels, prices.money, floors])
        return np.maximum(joined / scale, 1e-3)

    def multipliers(self, point: Reals, scale: float) -> Multipliers:
        """The point as prices in units of worth. A site that may sell nothing costs the most."""
        floors = np.zeros(len(self._problem.floors))
        # The smallest price of a limit that cannot bind would cost its whole, huge limit.
        known = np.where(self._binding, point * scale, 0.0)
        budget, labels, money, floors[self._floored] = self._parts(known)
        closed = self._problem.limits.site_labels <= 0
        dearest = scale + float(floors.max(initial=0.0))
        return Multipliers(float(budget), np.where(closed, dearest, labels), money, floors)

    def value(self, point: Reals, toll: float) -> float:
        """The smoothed dual."""
        gain, short = self._gains(point)
        rows, missing = _Shares(gain, np.ones(1), toll), _Shares(short, self._floors, toll)
        tolls = toll * float(np.log(point).sum())
        return float(self._bounds @ point) - tolls + rows.value() + missing.value()

    def look(self, point: Reals, toll: float) -> _Look:
        """Value, slope and Newton step."""
        gain, short = self._gains(point)
        rows, missing = _Shares(gain, np.ones(1), toll), _Shares(short, self._floors, toll)
        tolls = toll * float(np.log(point).sum())
        used = self._used(rows.taken, missing.taken)
        gradient = self._bounds - used - toll / point
        return _Look(
            value=float(self._bounds @ point) - tolls + rows.value() + missing.value(),
            gradient=gradient,
            direction=self._newton(-gradient, (rows.bend(), missing.bend()), toll / point**2),
            shares=rows.taken,
        )

    def _parts(self, point: Reals) -> tuple[Reals, Reals, Reals, Reals]:
        one, two = 1 + self._sites, 1 + 2 * self._sites
        return point[0], point[1:one], point[one:two], point[two:]

    def _gains(self, point: Reals) -> tuple[Reals, Reals]:
        """Worth after prices of each row, and of a floor label bought from nobody."""
        budget, labels, money, floors = self._parts(point)
        flat = (labels[:, None] - np.append(floors, 0.0)[None, :]).ravel()
        per_cost = np.repeat(budget + money, self._columns)
        gain = self._worth - flat[self._pairs] - per_cost[self._pairs] * self._costs
        return gain, floors - DEAREST_FLOOR

    def _used(self, shares: Reals, missing: Reals) -> Reals:
        """How much of each limit the shares take."""
        labels, money = self._table(shares), self._table(shares * self._costs)
        return np.concatenate(
            [
                [money.sum()],
                labels.sum(axis=1),
                money.sum(axis=1),
                -labels.sum(axis=0)[:-1] - missing,
            ]
        )

    def _newton(self, target: Reals, bends: tuple[Reals, Reals], own: Reals) -> Reals:
        """Solves the second derivative times a step = target, site by site, then the core."""
        rows, missing = bends
        costly = rows * self._costs
        flat, once, twice = (
            self._table(rows),
            self._table(costly),
            self._table(costly * self._costs),
        )
        own_budget, own_labels, own_money, own_floors = self._parts(own)
        # Each site has a block of two: [[a, b], [b, e]].
        a, b = flat.sum(axis=1) + own_labels, once.sum(axis=1)
        e = twice.sum(axis=1) + own_money
        size = a * e - b * b
        to_labels = np.column_stack([b, -flat[:, :-1]])
        to_money = np.column_stack([twice.sum(axis=1), -once[:, :-1]])
        by_labels = (e[:, None] * to_labels - b[:, None] * to_money) / size[:, None]
        by_money = (a[:, None] * to_money - b[:, None] * to_labels) / size[:, None]
        core = np.diag(
            np.append(twice.sum() + own_budget, flat.sum(axis=0)[:-1] + missing + own_floors)
        )
        core[0, 1:] = core[1:, 0] = -once.sum(axis=0)[:-1]
        core -= to_labels.T @ by_labels + to_money.T @ by_money
        budget, labels, money, floors = self._parts(target)
        left = np.append(budget, floors) - by_labels.T @ labels - by_money.T @ money
        middle = np.linalg.solve(core, left)
        return np.concatenate(
            [
                middle[:1],
                (e * labels - b * money) / size - by_labels @ middle,
                (a * money - b * labels) / size - by_money @ middle,
                middle[1:],
            ]
        )

    def _table(self, amounts: Reals) -> Reals:
        """float64[sites, columns]: sums by site and floor class."""
        size = self._sites * self._columns
        sums = np.bincount(self._pairs, amounts, minlength=size).astype(np.float64)
        return sums.reshape(self._sites, -1)


class _Shares:
    """Shares x in (0, most) that maximise gain · x + toll · (log x + log(most - x))."""

    def __init__(self, gain: Reals, most: Reals, toll: float) -> None:
        self._gain, self._toll = gain, toll
        half = 2.0 * toll / most
        size = np.abs(gain)
        root = np.sqrt(gain * gain + half * half)
        # The smaller of the two ends first, in a form that loses no digits.
        near = half * (root + size + half) / (2.0 * (root + size) * (root + half))
        low = gain < 0
        self.taken = most * np.where(low, near, 1.0 - near)
        self._left = most * np.where(low, 1.0 - near, near)

    def value(self) -> float:
        """The maximum, summed."""
        tolls = self._toll * (np.log(self.taken) + np.log(self._left))
        return float((self._gain * self.taken).sum() + tolls.sum())

    def bend(self) -> Reals:
        """How fast each share grows with its gain."""
        product = (self.taken * self._left) ** 2
        return np.asarray(product / (self._toll * (self.taken**2 + self._left**2)))
