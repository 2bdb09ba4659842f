"""Sorting candidates into keys: equal site, cost and groups, so that only utility differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.objective import Integers, Problem
from coordinator.core.allocation.offer import Offer
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.terms import Term


def build_problem(
    pool: Pool,
    offer: Offer,
    *,
    objective: tuple[float, tuple[Term, ...]],
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
    order = _order(code, utilities, ties)
    code = code[order]
    first = np.ones(len(code), dtype=np.bool_)
    first[1:] = code[1:] != code[:-1]
    starts = np.flatnonzero(first)
    heads = rows[order[starts]]
    return Problem(
        utilities=utilities[order].astype(np.float64),
        ties=ties[order],
        starts=np.append(starts, len(code)).astype(np.int64),
        costs=costs[order[starts]],
        divisors=costs[order[starts]].astype(np.float64) if per_cost else np.ones(len(starts)),
        sites=pool.site_index[heads].astype(np.int64),
        linear=linear,
        families=tuple(
            replace(term.family, groups=term.groups(heads).astype(np.int64)) for term in terms
        ),
        rows=rows[order],
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


def _order(
    code: NDArray[np.int64], utilities: NDArray[np.float32], ties: NDArray[np.uint64]
) -> Integers:
    """Rows by key, best utility first, chance last."""
    return np.asarray(np.lexsort((ties, -utilities, code)), dtype=np.int64)
