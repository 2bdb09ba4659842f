"""Rows that stand for several equal samples, and picks that must name one of them.

A device may send a few rows of a kind with their ids and say how many more it holds. Taken in,
these become rows with made-up ids, so that pool, explore draw and replay see the pool as it is. A
pick of such a row turns into one of a row that is equal in every column and has an id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.pool import Pool
from coordinator.core.allocation.result import Allocation
from coordinator.core.records import COLUMN_WIDTHS
from coordinator.errors import WireInvalid

UNNAMED = b"unnamed\0"
"""Second half of every made-up id; a keyed id has it by a chance of 2 ** -64."""
SAMPLES_MAX = 10_000
"""Samples that one batch may stand for."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def check_counts(ids: bytes, further_counts: bytes) -> bytes:
    """Checks how many samples the rows of a batch stand for, and that no id is a made-up one.

    Args:
        ids: 16 bytes a row.
        further_counts: uint8 a row, or nothing.

    Raises:
        WireInvalid: A length or a sum is wrong, or an id has the form of a made-up one.
    """
    rows = len(ids) // 16
    if further_counts and len(further_counts) != rows:
        raise WireInvalid("further_counts", f"must have {rows} bytes, not {len(further_counts)}")
    if rows + sum(further_counts) > SAMPLES_MAX:
        raise WireInvalid("further_counts", f"stands for more than {SAMPLES_MAX} samples")
    if (np.frombuffer(ids, dtype="<u8")[1::2] == np.frombuffer(UNNAMED, dtype="<u8")[0]).any():
        raise WireInvalid("candidate_ids", "an id has the form of a made-up one")
    return further_counts


def expanded(columns: Mapping[str, bytes], further_counts: bytes) -> dict[str, bytes]:
    """Returns the columns with a row for every sample; those with an id come first.

    Args:
        columns: little-endian bytes as `COLUMN_WIDTHS` says.
        further_counts: uint8 a row, or nothing.

    >>> one = {name: bytes(width) for name, width in COLUMN_WIDTHS.items()}
    >>> [len(column) for column in expanded(one, bytes([2])).values()][:2]
    [48, 3]
    """
    counts = np.frombuffer(further_counts, dtype=np.uint8).astype(np.int64)
    if not counts.any():
        return dict(columns)
    source = np.repeat(np.arange(len(counts)), counts)
    result: dict[str, bytes] = {}
    for name, width in COLUMN_WIDTHS.items():
        table = np.frombuffer(columns[name], dtype=np.uint8).reshape(-1, width)
        more = table[source]
        if name == "candidate_ids":
            number = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
            more = _made_up(more, number)
        result[name] = columns[name] + more.tobytes()
    return result


def _made_up(ids: NDArray[np.uint8], number: NDArray[np.int64]) -> NDArray[np.uint8]:
    """uint8[n, 16]: different for every sample, the same whenever the row is sent again."""
    words = np.ascontiguousarray(ids).view("<u8")
    mixed = words[:, 0] ^ (words[:, 1] * _MULTIPLIER)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _MULTIPLIER
    halves = np.empty((len(ids), 2), dtype="<u8")
    halves[:, 0] = mixed + (number.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
    halves[:, 1] = np.frombuffer(UNNAMED, dtype="<u8")[0]
    return halves.view(np.uint8).reshape(-1, 16)


def named_picks(made: Allocation, pool: Pool) -> Allocation:
    """The allocation with a named row for every pick; a pick without an equal one left is dropped.

    No pick is dropped while a site is asked for at most as many labels as it names rows of a kind.
    """
    unnamed = (pool.candidate_ids[:, 8:] == np.frombuffer(UNNAMED, np.uint8)).all(axis=1)
    if not unnamed[made.rows].any():
        return made
    free = ~unnamed
    free[made.rows] = False
    places: dict[int, int] = {}
    for row in dict.fromkeys(made.rows[unnamed[made.rows]].tolist()):
        alike = np.flatnonzero(free & _equal_to(pool, row))
        if len(alike):
            best = min(alike.tolist(), key=lambda place: pool.candidate_ids[place].tobytes())
            free[best] = False
            places[row] = best
    rows = np.array([places.get(row, -1 if unnamed[row] else row) for row in made.rows.tolist()])
    kept = rows >= 0
    chosen = rows[kept].astype(np.int64)
    return replace(
        made,
        rows=chosen,
        candidate_ids=pool.candidate_ids[chosen],
        site_index=made.site_index[kept],
        reasons=made.reasons[kept],
        inclusion_probabilities=made.inclusion_probabilities[kept],
        costs=made.costs[kept],
        gains=made.gains[kept],
    )


def _equal_to(pool: Pool, row: int) -> NDArray[np.bool_]:
    """bool[n]: rows of the same agent that are equal in all but their id."""
    same = np.ones(len(pool), dtype=np.bool_)
    for name, column in pool.columns().items():
        if name != "candidate_ids":
            same &= column == column[row]
    return same
