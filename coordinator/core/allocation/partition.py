"""One partition: the greedy is one vectorised pass, and provably optimal.

Inside a group the best set of size m is the m largest utilities, and the increments of a concave
function of their running sum fall. So the k largest increments over all groups are the optimum of
a separable concave allocation. Source: Federgruen and Groenevelt, "The greedy procedure for
resource allocation problems", 1986.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.market import Market
from coordinator.core.allocation.objective import Family, Integers, Reals, group_sums
from coordinator.core.allocation.offer import Offer
from coordinator.core.allocation.terms import Term


def optimal_rows(
    market: Market, objective: tuple[float, tuple[Term, ...]], offer: Offer
) -> Integers | None:
    """The optimum, best increment first, or None where more than one family or limit matters.

    The shortlist is extended until no row outside it can reach the last increment that was
    bought, so leaving rows out changes nothing.

    Args:
        market: all rows.
        objective: weight of the plain utility sum, and the concave terms.
        offer: the shortlist.
    """
    linear, terms = objective
    if len(terms) != 1 or offer.floors.any() or (offer.costs != offer.costs[0]).any():
        return None
    family, count, cost = terms[0].family, market.most_picks, int(offer.costs[0])
    while True:
        groups = terms[0].groups(offer.rows).astype(np.int64)
        order, gains = increments(offer, groups, family, linear)
        picks, best = best_increments(order, gains, offer.ties, count)
        least = float(best[-1]) if len(best) == count else 0.0
        added = family.factor * offer.utilities.astype(np.float64)
        masses = [group_sums(groups, added, count=len(family.weights))]
        bars = np.full(market.pool.site_count, least / cost)
        missed = market.missed(offer.rows, objective, masses, bars)
        if not len(missed):
            break
        offer = market.offer(np.union1d(offer.rows, missed))
    left = offer.limits.less(market.pool.site_index[offer.rows[picks]], offer.costs[picks])
    if (left.site_labels < 0).any() or (left.site_costs < 0).any():
        return None
    return offer.rows[picks]


def increments(
    offer: Offer, groups: Integers, family: Family, linear: float
) -> tuple[Integers, Reals]:
    """Places by group, best first, and what each adds after all better ones of its group."""
    order = np.lexsort((offer.ties, -offer.utilities, groups))
    ranked = groups[order]
    added = offer.utilities[order].astype(np.float64)
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = ranked[1:] != ranked[:-1]
    total = np.cumsum(added * family.factor)
    starts = np.flatnonzero(first)
    before = np.concatenate([[0.0], total])[starts]
    mass = total - np.repeat(before, np.diff(np.append(starts, len(order))))
    step = family.factor * added
    # The table of masses is per row here: each row is the only one of its own group.
    per_row = Family(
        name=family.name,
        groups=ranked,
        factor=family.factor,
        weights=family.weights[ranked],
        base=family.base[ranked],
        scale=family.scale[ranked],
        power=family.power,
    )
    gains = linear * added + per_row.gain(mass - step, step, np.arange(len(order)))
    return order, gains


def best_increments(
    order: Integers, gains: Reals, ties: NDArray[np.uint64], count: int
) -> tuple[Integers, Reals]:
    """The ``count`` largest increments, largest first, and their gains."""
    if count < len(gains):
        bar = np.partition(gains, len(gains) - count)[len(gains) - count]
        near = np.flatnonzero(gains >= bar)
    else:
        near = np.arange(len(gains))
    rank = near[np.lexsort((ties[order[near]], -gains[near]))][:count]
    return order[rank], gains[rank]
