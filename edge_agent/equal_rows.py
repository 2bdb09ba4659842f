"""Samples that are equal in all that leaves a site travel once, with a count.

The coordinator sees nothing of a candidate but its row. Candidates with the same row are the same
to it: which of them is bought is chance, and where a site may be asked for `named_max` labels it
needs the ids of no more than `named_max`. So that many rows of a kind are sent, those with the
lowest ids, and how many more there are like them. Ids are keyed hashes: which ones are low has
nothing to do with what the samples hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edge_agent.scoring import CandidateColumns

COUNT_MAX = 255
"""Further samples that one row may stand for."""


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What to send.

    Attributes:
        rows: int64[m], rising.
        further_counts: uint8[m], samples like this row that are not sent.
    """

    rows: NDArray[np.int64]
    further_counts: NDArray[np.uint8]


def merge_equal(columns: CandidateColumns, ids: Sequence[bytes], *, named_max: int) -> Merged:
    """Chooses the rows to send.

    Args:
        columns: all candidates of a batch.
        ids: their ids, 16 bytes each.
        named_max: most rows of a kind that are sent with their id, 0 for all. More are sent where
            a row would stand for more than 255 others.
    """
    count = len(columns)
    if not named_max or not count:
        return Merged(np.arange(count), np.zeros(count, dtype=np.uint8))
    parts = [getattr(columns, item.name).astype(np.int64) for item in fields(columns)]
    kinds = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)[1].ravel()
    order = np.lexsort((np.array(ids, dtype="S16"), kinds))
    sizes = np.bincount(kinds)
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(count) - np.repeat(starts, sizes)
    named = np.maximum(np.minimum(sizes, named_max), -(-sizes // (COUNT_MAX + 1)))
    share, rest = np.divmod(sizes - named, named)
    sent = rank < np.repeat(named, sizes)
    further = np.repeat(share, sizes) + (rank < np.repeat(rest, sizes))
    rows, counts = order[sent], further[sent]
    rising = np.argsort(rows)
    return Merged(rows[rising].astype(np.int64), counts[rising].astype(np.uint8))
