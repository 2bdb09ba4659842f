"""The lossless pre-filter: send only candidates that could be bought, counts for the rest.

Inside one key (cell, classes, density and cost band) the coordinator prefers candidates by a sum of
scores with weights of at least 0; density is part of the key, because some phases look for typical
samples and others for novel ones. So a candidate that ``limit`` others of its key beat in every
score cannot be bought before all of those are, and ``limit`` is all that the site may be asked for.

A pool that was filtered is no random sample of itself: explore draws then speak about the
candidates that were sent. A site that wants its whole pool measured sends it whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.scoring import CandidateColumns

Integers = NDArray[np.int64]
_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Prefiltered:
    """What to send.

    Attributes:
        rows: int64[m], rising rows that could be bought.
        left_out: how many could not.
    """

    rows: Integers
    left_out: int


def keep_buyable(columns: CandidateColumns, *, limit: int) -> Prefiltered:
    """Rows that could be bought when the site can be asked for at most ``limit`` labels.

    Args:
        columns: all candidates of one site, all of one agent when the site has one.
        limit: most labels that the site may be asked for, at least 0.
    """
    if limit >= len(columns):
        return Prefiltered(np.arange(len(columns)), 0)
    key = _keys(columns)
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.append(True, key[order][1:] != key[order][:-1]))
    scores = _scores(columns)
    kept = []
    for members in np.split(order, starts[1:]):
        if len(members) <= limit:
            kept.append(members)
        elif limit > 0:
            kept.append(members[beaten_by(scores[members], limit) < limit])
    rows = np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)
    return Prefiltered(rows.astype(np.int64), len(columns) - len(rows))


def beaten_by(scores: NDArray[np.uint8], limit: int) -> Integers:
    """int64[n]: how many rows are at least as good in every score and better in one.

    Counting stops being exact beyond ``limit``; rows equal in all scores beat nobody, so chance
    can still choose among them.

    >>> beaten_by(np.uint8([[1, 1], [2, 2], [0, 3]]), limit=5).tolist()
    [1, 0, 0]
    """
    total = scores.astype(np.int64).sum(axis=1)
    best_first = np.argsort(-total, kind="stable")
    beaten = np.zeros(len(scores), dtype=np.int64)
    for start in range(0, len(scores), _BLOCK):
        rivals = best_first[start : start + _BLOCK]
        open_rows = np.flatnonzero(beaten < limit)
        rivals = rivals[total[rivals] > total[open_rows].min(initial=0)]
        if not len(rivals):
            break
        for block in range(0, len(open_rows), _BLOCK):
            rows = open_rows[block : block + _BLOCK]
            better = (scores[rivals][None, :, :] >= scores[rows][:, None, :]).all(axis=2)
            better &= total[rivals][None, :] > total[rows][:, None]
            beaten[rows] += better.sum(axis=1)
    return beaten


def _keys(columns: CandidateColumns) -> Integers:
    """Equal where cell, all three classes, density band and cost band are equal."""
    parts = (
        columns.cell_ids,
        columns.prototype_classes,
        columns.predicted_classes,
        columns.runner_up_classes,
        columns.density_cost,
    )
    return np.unique(np.stack([p.astype(np.int64) for p in parts], 1), axis=0, return_inverse=True)[
        1
    ].ravel()


def _scores(columns: CandidateColumns) -> NDArray[np.uint8]:
    """uint8[n, 3]: all scores of which a utility may weigh more as better."""
    parts = (columns.margins, columns.entropies, columns.divergence_risk & 0x3F)
    return np.stack(parts, axis=1).astype(np.uint8)
