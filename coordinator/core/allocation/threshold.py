"""Vectorised descending threshold: many picks per pass, each nearly as good as the greedy's.

A pass takes every head whose gain reaches the threshold, as far as no group's slope falls by more
than the factor 1 - epsilon meanwhile. So each pick gained at least (1 - epsilon) times the
threshold, and every item left aside gains at most the threshold divided by (1 - epsilon).

Source: Badanidiyuru and Vondrak, "Fast algorithms for maximizing submodular functions", 2014; the
room of a group makes a pass safe to run at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.limits import Limits
from coordinator.core.allocation.objective import Integers, Problem, Reals, group_sums

_SMALLEST = 1e-12
_AT_ONCE = 8192
"""Keys that one pass looks at, the most promising ones; the others wait for a later pass."""
_CHANCE = 1e-9
"""Equal gains differ by this share according to chance, so that one sort ranks by both."""


@dataclass(slots=True, eq=False)
class _State:
    """The engine's moving parts."""

    masses: list[Reals]
    cursor: Integers
    stale: Reals
    site_labels: Integers
    site_costs: Integers
    cost_left: int


def descending_threshold(problem: Problem, limits: Limits, *, epsilon: float) -> Integers:
    """Picked items, those of the highest threshold first.

    Args:
        problem: items by key.
        limits: labels and cost units left.
        epsilon: relative step, in (0, 1); smaller is closer to the greedy and slower.
    """
    state = _start(problem, limits)
    table = _Items(
        order=problem.item_keys() * 2.0 + (1.0 - problem.utilities),
        cumulated=np.concatenate([[0.0], np.cumsum(problem.utilities)]),
        fade=1.0 - problem.ties.astype(np.float64) * (_CHANCE / 2.0**64),
    )
    picks: list[Integers] = []
    tau = float(state.stale.max(initial=0.0))
    while tau > _SMALLEST and state.cost_left > 0:
        ready = np.flatnonzero(state.stale >= tau)
        keys = _still_fitting(problem, state, _most_promising(state, ready, table))
        if len(keys):
            heads = np.take(problem.utilities, state.cursor[keys])
            state.stale[keys] = problem.gains(state.masses, keys, heads) / problem.divisors[keys]
            keys = keys[state.stale[keys] >= tau]
        if len(keys):
            items, keys = _candidates(problem, state, keys, table, (tau, epsilon))
            picks.append(_take(problem, state, items, keys, epsilon=epsilon))
        elif len(ready) <= _AT_ONCE:
            tau = min(tau * (1.0 - epsilon), float(state.stale.max(initial=0.0)))
    return np.concatenate(picks) if picks else np.zeros(0, dtype=np.int64)


def _most_promising(state: _State, ready: Integers, table: _Items) -> Integers:
    """Rising keys with the largest bounds of their gain, chance among equals."""
    if len(ready) <= _AT_ONCE:
        return ready
    # A key that is used up points behind its last item; it is sorted out afterwards.
    heads = np.minimum(np.take(state.cursor, ready), len(table.fade) - 1)
    place = len(ready) - _AT_ONCE
    worth = np.take(state.stale, ready) * np.take(table.fade, heads)
    best = np.argpartition(worth, place)[place:]
    return np.sort(ready[best])


def _start(problem: Problem, limits: Limits) -> _State:
    masses = problem.empty_masses()
    cursor = problem.starts[:-1].copy()
    every = np.arange(problem.key_count)
    gains = problem.gains(masses, every, problem.utilities[cursor]) if len(every) else np.zeros(0)
    return _State(
        masses=masses,
        cursor=cursor,
        stale=gains / problem.divisors,
        site_labels=limits.site_labels.copy(),
        site_costs=limits.site_costs.copy(),
        cost_left=limits.cost_limit,
    )


def _still_fitting(problem: Problem, state: _State, keys: Integers) -> Integers:
    """Keys that are used up, or whose items no longer fit, never come back."""
    sites, costs = np.take(problem.sites, keys), np.take(problem.costs, keys)
    fits = (
        (np.take(state.cursor, keys) < np.take(problem.starts, keys + 1))
        & np.take(state.site_labels > 0, sites)
        & (np.take(state.site_costs, sites) >= costs)
        & (costs <= state.cost_left)
    )
    state.stale[keys[~fits]] = 0.0
    return np.asarray(keys[fits], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Items:
    """What a run looks up per item: sorted keys, running utilities, and chance close below 1."""

    order: Reals
    cumulated: Reals
    fade: Reals


def _candidates(
    problem: Problem, state: _State, keys: Integers, table: _Items, step: tuple[float, float]
) -> tuple[Integers, Integers]:
    """Items of the keys that reach the threshold and fit into the room, best first; their keys."""
    (tau, epsilon), cumulated = step, table.cumulated
    first = state.cursor[keys]
    slope = problem.slopes(state.masses, keys) / problem.divisors[keys]
    ready, least = first + 1, keys * 2.0 + (1.0 - tau / slope)
    # Most keys have one such item, so that few are worth a search.
    following = np.take(table.order, np.minimum(ready, len(table.order) - 1))
    more = np.flatnonzero(following <= least)
    by_gain = np.searchsorted(table.order, least[more], side="right")
    ready[more] = np.maximum(np.minimum(by_gain, problem.starts[keys[more] + 1]), ready[more])
    wanted = np.take(cumulated, ready) - np.take(cumulated, first)
    share = np.ones(len(keys))
    for family, mass in zip(problem.families, state.masses, strict=True):
        # Keys of one group share its room in proportion to what they have ready.
        groups = family.groups[keys]
        total = group_sums(groups, family.factor * wanted, count=len(mass))[groups]
        room = family.room(mass, epsilon)[groups]
        share = np.minimum(share, room / np.maximum(total, 1e-300))
    counts = np.ones(len(keys), dtype=np.int64)
    filled = cumulated[first[more]] + wanted[more] * share[more]
    by_room = np.searchsorted(cumulated, filled, side="right") - 1
    counts[more] = np.maximum(np.minimum(ready[more], by_room) - first[more], 1)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    items = np.repeat(first, counts) + offsets
    gains = np.take(problem.utilities, items) * np.repeat(slope, counts)
    gains *= np.take(table.fade, items)
    rank = np.argsort(-gains)
    return items[rank], np.repeat(keys, counts)[rank]


def _take(
    problem: Problem, state: _State, items: Integers, keys: Integers, *, epsilon: float
) -> Integers:
    """Takes the ranked items that fit, and moves the state on."""
    fits: NDArray[np.bool_] = np.ones(len(items), dtype=np.bool_)
    for family, mass in zip(problem.families, state.masses, strict=True):
        groups = family.groups[keys]
        room = family.room(mass, epsilon)
        total, first = _running(groups, family.factor * problem.utilities[items])
        fits &= first | (total <= room[groups])
    fits = _within(problem, state, keys, fits)
    taken, keys = items[fits], keys[fits]
    for place, family in enumerate(problem.families):
        added = family.factor * problem.utilities[taken]
        state.masses[place] += group_sums(family.groups[keys], added, count=len(family.weights))
    sites, costs = problem.sites[keys], problem.costs[keys]
    np.add.at(state.cursor, keys, 1)
    state.site_labels -= np.bincount(sites, minlength=len(state.site_labels))
    spent = np.bincount(sites, weights=costs, minlength=len(state.site_costs))
    state.site_costs -= spent.astype(np.int64)
    state.cost_left -= int(costs.sum())
    return taken


def _within(
    problem: Problem, state: _State, keys: Integers, fits: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Drops ranked items beyond the limits. An item that would pass one ends its key."""
    chosen = np.flatnonzero(fits)
    sites, costs = problem.sites[keys[chosen]], problem.costs[keys[chosen]].astype(np.float64)
    spent = costs.sum()
    if (
        len(chosen)
        and len(chosen) <= state.site_labels[sites].min()
        and spent <= min(state.cost_left, state.site_costs[sites].min())
    ):
        return fits  # so few that no limit is near
    labels, _ = _running(sites, np.ones(len(chosen)))
    money, _ = _running(sites, costs)
    inside = (
        (labels <= state.site_labels[sites])
        & (money <= state.site_costs[sites])
        & (np.cumsum(costs) <= state.cost_left)
    )
    result = np.zeros(len(fits), dtype=np.bool_)
    result[chosen[inside]] = True
    return result


def _running(groups: Integers, amounts: Reals) -> tuple[Reals, NDArray[np.bool_]]:
    """Running sum inside each group in the given order, and whether an item is its first."""
    # Sixteen bits sort by counting, three times as fast.
    few = len(groups) and int(groups.max()) < 1 << 16
    order = np.argsort(groups.astype(np.uint16) if few else groups, kind="stable")
    ranked = groups[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = ranked[1:] != ranked[:-1]
    total = np.cumsum(amounts[order])
    before = np.concatenate([[0.0], total[:-1]])[first]
    lengths = np.diff(np.append(np.flatnonzero(first), len(order)))
    sums = np.empty(len(order))
    sums[order] = total - np.repeat(before, lengths)
    heads = np.empty(len(order), dtype=np.bool_)
    heads[order] = first
    return sums, heads
