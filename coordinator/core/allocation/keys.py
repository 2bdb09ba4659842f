"""Sorting candidates into keys: equal site, cost and groups, so that only utility differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.objective import Integers, Problem
from coordinator.core.allocation.offer import Offer
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.terms import Objective, Term


def build_problem(
    pool: Pool,
    offer: Offer,
    *,
    objective: Objective,
    per_cost: bool,
    worthless: bool = False,
) -> Problem:
    """The problem over the rows of an offer.

    Args:
        pool: all open candidates.
        offer: rows to consider.
        objective: weight of the plain utility sum, and the concave terms.
        per_cost: whether engines rank by gain per cost unit or by gain alone.
        worthless: whether to keep rows of utility 0. No engine takes them, but they may be the
            cheapest way to meet a class floor.
    """
    rows, utilities, ties, costs = offer.rows, offer.utilities, offer.ties, offer.costs
    linear, terms = objective
    if not worthless:
        useful = utilities > 0
        rows, utilities, ties, costs = rows[useful], utilities[useful], ties[useful], costs[useful]
    code = key_codes(pool, rows, costs, terms)
    order = ranked(code, utilities, ties)
    code = np.take(code, order)
    first = np.ones(len(code), dtype=np.bool_)
    first[1:] = code[1:] != code[:-1]
    starts = np.flatnonzero(first)
    heads = rows[order[starts]]
    return Problem(
        utilities=np.take(utilities, order).astype(np.float64),
        ties=np.take(ties, order),
        starts=np.append(starts, len(code)).astype(np.int64),
        costs=costs[order[starts]],
        divisors=costs[order[starts]].astype(np.float64) if per_cost else np.ones(len(starts)),
        sites=pool.site_index[heads].astype(np.int64),
        linear=linear,
        families=tuple(
            replace(term.family, groups=term.groups(heads).astype(np.int64)) for term in terms
        ),
        rows=np.take(rows, order),
    )


def key_codes(pool: Pool, rows: Integers, costs: Integers, terms: tuple[Term, ...]) -> Integers:
    """int64[n]: equal where site, cost and all groups are equal; otherwise in their order."""
    code = pool.site_index[rows].astype(np.int64)
    apart = dict.fromkeys(term.apart for term in terms if term.apart is not None)
    for column in (costs, *(groups(rows) for groups in apart)):
        width = int(column.max(initial=0)) + 1
        if (int(code.max(initial=0)) + 1) * width >= _table_size(len(code)):
            code = dense_codes(code)
        code = code * width + column
    return code


def dense_codes(codes: Integers) -> Integers:
    """int64[n]: the rank of each code among the different ones.

    >>> dense_codes(np.array([70, 3, 70])).tolist()
    [1, 0, 1]
    """
    if int(codes.max(initial=0)) >= _table_size(len(codes)):
        return np.asarray(np.unique(codes, return_inverse=True)[1], dtype=np.int64)
    known = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.bool_)
    known[codes] = True
    ranks = np.cumsum(known, dtype=np.int32) - 1
    return np.asarray(ranks[codes], dtype=np.int64)


def _table_size(rows: int) -> int:
    """Up to so many codes a table ranks them quicker than a sort does."""
    return 8 * rows + (1 << 16)


def ranked(codes: Integers, utilities: NDArray[np.float32], ties: NDArray[np.uint64]) -> Integers:
    """int64[n]: places by code, then best utility first, then lowest tie number.

    As ``np.lexsort((ties, -utilities, codes))``, in sorts of one 64-bit number each, which
    processors with wide registers do many times as fast.

    Args:
        codes: int64[n], at least 0.
        utilities: float32[n], at least 0.
        ties: uint64[n], uniform.

    >>> ranked(np.array([4, 1, 4]), np.float32([0.5, 0.1, 0.5]), np.uint64([9, 3, 2])).tolist()
    [1, 2, 0]
    """
    if int(codes.max(initial=0)) >= 1 << 32:
        codes = dense_codes(codes)
    # The bits of a float that is not negative rise with it.
    bits = (utilities + np.float32(0.0)).view(np.uint32)
    packed = (codes.astype(np.uint64) << np.uint64(32)) | ~bits
    return sorted_by(packed, ties)


def sorted_by(values: NDArray[np.generic], ties: NDArray[np.uint64]) -> Integers:
    """int64[n]: places of rising values, and among equal ones of rising tie numbers.

    As ``np.lexsort((ties, values))``.

    >>> sorted_by(np.array([0.5, 0.25, 0.5]), np.uint64([9, 3, 2])).tolist()
    [1, 2, 0]
    """
    order = np.argsort(values)
    found = values[order]
    alike = np.zeros(len(order) + 1, dtype=np.bool_)
    alike[1:-1] = found[1:] == found[:-1]
    places = np.flatnonzero(alike[1:] | alike[:-1])
    if not len(places):
        return order
    # Runs of alike places, numbered; inside each the leading bits of the tie numbers decide.
    runs = np.cumsum(~alike[places]) - 1
    room = np.uint64(64 - max(1, int(runs[-1]).bit_length()))
    members = order[places]
    drawn = ties[members]
    packed = (runs.astype(np.uint64) << room) | (drawn >> (np.uint64(64) - room))
    inside = np.argsort(packed)
    if (np.diff(packed[inside]) == 0).any():
        inside = np.lexsort((members, drawn, runs))
    order[places] = members[inside]
    return order
