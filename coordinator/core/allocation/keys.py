"""Sorting candidates into keys: equal site, cost and groups, so that only utility differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.objective import Integers, Problem
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.terms import Term


def build_problem(
    pool: Pool,
    rows: Integers,
    *,
    scores: tuple[NDArray[np.float32], NDArray[np.uint64], NDArray[np.int64]],
    objective: tuple[float, tuple[Term, ...]],
    per_cost: bool,
) -> Problem:
    """The problem over some rows of the pool.

    Args:
        pool: all open candidates.
        rows: those to consider; rows of utility 0 are left out.
        scores: utility, tie breaker and cost of every row in ``rows``.
        objective: weight of the plain utility sum, and the concave terms.
        per_cost: whether engines rank by gain per cost unit or by gain alone.
    """
    utilities, ties, costs = scores
    linear, terms = objective
    useful = utilities > 0
    rows, utilities, ties, costs = rows[useful], utilities[useful], ties[useful], costs[useful]
    code = _codes(pool, rows, costs, terms)
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


def _codes(
    pool: Pool, rows: Integers, costs: Integers, terms: tuple[Term, ...]
) -> NDArray[np.int64]:
    """int64[n]: equal where site, cost and all groups are equal."""
    code = pool.site_index[rows].astype(np.int64)
    for column in (costs, *(term.groups(rows) for term in terms)):
        width = int(column.max(initial=0)) + 1
        if (int(code.max(initial=0)) + 1) * width >= 2**62:
            code = np.unique(code, return_inverse=True)[1].astype(np.int64)
        code = code * width + column
    return code


def _order(
    code: NDArray[np.int64], utilities: NDArray[np.float32], ties: NDArray[np.uint64]
) -> Integers:
    """Rows by key, best utility first, chance last."""
    return np.asarray(np.lexsort((ties, -utilities, code)), dtype=np.int64)
