"""A crowd: far more rows than kinds of them, so that kinds are counted and rows seldom read.

Rows of one key and one utility are alike. Where scores have few levels, millions of rows fall into
few such kinds. Gains are then worked out once a kind, and a row is read only when chance decides
which rows stand for their kind.

Near the optimum nearly all kinds gain the same, because every concave term has levelled them. A
part of the kinds, drawn by chance, then leads to the same value as all of them, as long as each
group has some.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.chance import keyed_numbers, quick_numbers
from coordinator.core.allocation.objective import Integers
from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.terms import Term

COVER = 64
"""Kinds of each group that stay whatever chance says: small groups have few."""
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """Rows of one level of utility, or of several, by kind: site, cost, groups and level.

    Attributes:
        codes: uint32[n], kind of each row of the pool; 0 outside the crowd.
        kinds: int64[k], rising codes that occur.
        counts: int64[k], rows of each kind.
        heads: int64[k], some row of each kind; it says all about the kind but its chance.
    """

    codes: NDArray[np.uint32]
    kinds: Integers
    counts: Integers
    heads: Integers

    def tally(self, rows: Integers) -> Integers:
        """int64[k]: how many of the rows each kind has."""
        found = np.bincount(self.codes[rows], minlength=int(self.kinds[-1]) + 1)
        return np.asarray(found[self.kinds], dtype=np.int64)

    def lowest(self, most: Integers, pool: Pool, key: NDArray[np.uint64]) -> Integers:
        """Rising rows: of each kind the ``most`` rows that chance puts first.

        Args:
            most: int64[k].
            pool: the rows.
            key: the chance key.
        """
        open_kinds: Integers = np.zeros(int(self.kinds[-1]) + 1, dtype=np.int64)
        open_kinds[self.kinds] = np.minimum(most, self.counts)
        size, found = np.zeros(len(open_kinds)), []
        size[self.kinds] = self.counts
        share = np.minimum(1.0, (open_kinds + 2.0 * np.sqrt(open_kinds) + 2.0) / (size + 1e-9))
        while open_kinds.any():
            rows, ties = self._below(np.where(open_kinds > 0, share, 0.0), pool, key)
            codes = self.codes[rows]
            enough = np.bincount(codes, minlength=len(size)) >= open_kinds
            order = np.flatnonzero(enough[codes])
            order = order[np.lexsort((ties[order], codes[order]))]
            ranked = codes[order].astype(np.int64)
            rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
            found.append(rows[order[rank < open_kinds[ranked]]])
            open_kinds[enough] = 0
            share = np.minimum(1.0, 4.0 * share)
        return np.sort(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def _below(
        self, share: NDArray[np.float64], pool: Pool, key: NDArray[np.uint64]
    ) -> tuple[Integers, NDArray[np.uint64]]:
        """Rows whose tie number lies in the lowest share that their kind may have, and the number.

        Read in blocks, so that ten million rows need no column of numbers.
        """
        ceiling = (share * (2.0**64 - 2048)).astype(np.uint64)
        ceiling[share >= 1.0] = np.uint64(2**64 - 1)
        rows: list[Integers] = [np.zeros(0, dtype=np.int64)]
        ties: list[NDArray[np.uint64]] = [np.zeros(0, dtype=np.uint64)]
        for start in range(0, len(self.codes), _BLOCK):
            most = ceiling[self.codes[start : start + _BLOCK]]
            near = np.flatnonzero(most) + start
            number = quick_numbers(pool.candidate_ids, near, key)
            low = number <= most[near - start]
            rows.append(near[low])
            ties.append(number[low])
        return np.concatenate(rows), np.concatenate(ties)


def find_crowd(
    pool: Pool, column: NDArray[np.uint8], levels: NDArray[np.intp], terms: tuple[Term, ...]
) -> Crowd | None:
    """The rows of some levels by kind, or None where there could be more kinds than rows.

    Args:
        pool: all rows.
        column: uint8[n], the only score that counts.
        levels: rows with these scores make the crowd.
        terms: the concave terms, which make the kinds with site and cost.
    """
    dear = bool(pool.cost_bands.min() != pool.cost_bands.max())
    widths = {apart: term.width for term in terms if (apart := term.apart) is not None}
    size = pool.site_count * len(levels) * (8 if dear else 1) * math.prod(widths.values())
    if size >= len(pool):
        return None
    ranks = np.zeros(256, dtype=np.uint32)
    ranks[levels] = np.arange(1, len(levels) + 1)
    codes = np.empty(len(pool), dtype=np.uint32)
    for start in range(0, len(pool), _BLOCK):
        part = slice(start, start + _BLOCK)
        code = pool.site_index[part].astype(np.uint32)
        if dear:
            code = code * np.uint32(8) + pool.cost_bands[part]
        for apart, width in widths.items():
            code = code * np.uint32(width) + apart(part).astype(np.uint32)
        rank = ranks[column[part]]
        codes[part] = (code * np.uint32(len(levels)) + rank) * (rank > 0)
    found = np.bincount(codes, minlength=1)
    found[0] = 0
    kinds = np.flatnonzero(found)
    heads = np.zeros(len(found), dtype=np.int64)
    heads[codes] = np.arange(len(codes))
    return Crowd(codes, kinds, found[kinds], heads[kinds])


def drawn_kinds(
    crowd: Crowd, count: int, terms: tuple[Term, ...], key: NDArray[np.uint64]
) -> Integers:
    """Rising places of about ``count`` kinds drawn by chance, and some of each group.

    Args:
        crowd: the kinds.
        count: how many.
        terms: the concave terms, whose groups are all covered.
        key: the chance key.
    """
    names = np.zeros((len(crowd.kinds), 2), dtype="<u8")
    names[:, 0] = crowd.kinds
    order = np.argsort(keyed_numbers(names.view(np.uint8), key, purpose="kinds"))
    kept = np.arange(len(order)) < count
    for term in terms:
        groups = term.groups(crowd.heads[order]).astype(np.int64)
        by_group = np.argsort(groups, kind="stable")
        ranked = groups[by_group]
        kept[by_group[np.arange(len(order)) - np.searchsorted(ranked, ranked) < COVER]] = True
    return np.sort(order[kept])
