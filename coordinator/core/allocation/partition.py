"""One partition: the greedy is one vectorised pass, and provably optimal.

Inside a group the best set of size m is the m largest utilities, and the increments of a concave
function of their running sum fall. So the k largest increments over all groups are the optimum of
a separable concave allocation. Source: Federgruen and Groenevelt, "The greedy procedure for
resource allocation problems", 1986.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.keys import ranked, sorted_by
from coordinator.core.allocation.market import Market
from coordinator.core.allocation.objective import Family, Integers, Reals, group_sums
from coordinator.core.allocation.offer import Offer
from coordinator.core.allocation.terms import Objective, Term


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What ranking has to know of some rows.

    Attributes:
        groups: int64[n], group of each row.
        utilities: float32[n], in [0, 1].
        ties: uint64[n], chance; lower goes first among equals.
    """

    groups: Integers
    utilities: NDArray[np.float32]
    ties: NDArray[np.uint64]


def optimal_rows(market: Market, objective: Objective, offer: Offer) -> Integers | None:
    """The optimum, best increment first, or None where more than one family or limit matters.

    Rows outside the shortlist that could reach the last increment bought are added once. That is
    enough: with more rows to choose from that increment only rises, and what the others could add
    only falls. Rows of the shortlist below it are out for the same reason.

    Args:
        market: all rows.
        objective: weight of the plain utility sum, and the concave terms.
        offer: the shortlist.
    """
    terms = objective[1]
    if len(terms) != 1 or offer.floors.any() or (offer.costs != offer.costs[0]).any():
        return None
    term, count, cost = terms[0], market.most_picks, int(offer.costs[0])
    items = _items(offer, term)
    groups = items.groups
    picks, best = best_increments(items, objective, count)
    first = picks
    least = float(best[-1]) if len(best) == count else 0.0
    added = term.family.factor * offer.utilities.astype(np.float64)
    masses = [group_sums(groups, added, count=len(term.family.weights))]
    bars = np.full(market.pool.site_count, least / cost)
    missed = market.missed(offer.rows, objective, masses, bars)
    whole, most = offer, 4 * (1 + count // len(term.family.weights))
    while len(missed):
        # Rows of one group and utility are alike; most of them are enough unless all are bought.
        more = market.thinned(missed, terms, most)
        offer = market.offer(np.union1d(whole.rows[first], more))
        items = _items(offer, term)
        picks, _ = best_increments(items, objective, count)
        bought = np.bincount(items.groups[picks])
        if len(more) == len(missed) or int(bought.max()) < most:
            break
        most *= 4
    rows = offer.rows[picks]
    return rows if within_limits(market, rows) else None


def within_limits(market: Market, rows: Integers) -> bool:
    """Whether no site's limit is passed by buying these rows."""
    left = market.limits.less(market.pool.site_index[rows], market.setting.costs_of(rows))
    return bool((left.site_labels >= 0).all() and (left.site_costs >= 0).all())


def _items(offer: Offer, term: Term) -> Items:
    groups = term.groups(offer.rows).astype(np.int64)
    return Items(groups, offer.utilities, offer.ties)


def row_gains(family: Family, in_order: Integers, added: Reals, linear: float) -> Reals:
    """float64[n]: what each row adds after all earlier ones of its group.

    Args:
        family: the concave functions.
        in_order: int64[n], group of each row, rising.
        added: float64[n], utilities.
        linear: weight of the plain utility sum.
    """
    first = np.ones(len(added), dtype=np.bool_)
    first[1:] = in_order[1:] != in_order[:-1]
    total = np.cumsum(added * family.factor)
    starts = np.flatnonzero(first)
    before = np.concatenate([[0.0], total])[starts]
    mass = total - np.repeat(before, np.diff(np.append(starts, len(added))))
    step = family.factor * added
    # The table of masses is per row here: each row is the only one of its own group.
    per_row = Family(
        name=family.name,
        groups=in_order,
        factor=family.factor,
        weights=family.weights[in_order],
        base=family.base[in_order],
        scale=family.scale[in_order],
        power=family.power,
    )
    return np.asarray(linear * added + per_row.gain(mass - step, step, np.arange(len(added))))


def best_increments(items: Items, objective: Objective, count: int) -> tuple[Integers, Reals]:
    """Places of the ``count`` largest increments, largest first, and these increments.

    An increment is what a row adds after all better ones of its group.
    """
    order = ranked(items.groups, items.utilities, items.ties)
    added = items.utilities[order].astype(np.float64)
    gains = row_gains(objective[1][0].family, items.groups[order], added, objective[0])
    if count < len(gains):
        bar = np.partition(gains, len(gains) - count)[len(gains) - count]
        near = np.flatnonzero(gains >= bar)
    else:
        near = np.arange(len(gains))
    rank = near[sorted_by(-gains[near], items.ties[order[near]])][:count]
    return order[rank], gains[rank]
