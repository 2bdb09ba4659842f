"""From a noised histogram to rows that stand in for samples nobody here knows.

The rows go through the same pool, allocation, ledger and replay as real candidates. A grant for a
stand-in permits one release; the device that holds it chooses which of its samples it is for. So
the number of an agent's grants is its quota.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.histograms import denoised

Integers = NDArray[np.int64]
STAND_INS_MAX = 500_000
"""Rows that one histogram may stand for."""
_LEVELS_PER_BIN = 4
_SCORE_LEVELS = 63


def estimated_counts(counts: Integers, epsilon: float) -> Integers:
    """int64[cells, bins]: counts without what noise alone makes; never below 0.

    Counts that stand out of the noise stay where they are. What they leave of each bin's sum over
    all cells, whose noise is small beside it, is spread evenly: then nothing is known of its cells.

    Args:
        counts: int64[cells, bins] with two-sided geometric noise.
        epsilon: Privacy loss that the noise was made for.

    >>> estimated_counts(np.array([[100, 1], [2, -3]]), 1.0).tolist()
    [[100, 0], [0, 0]]
    """
    cells = len(counts)
    kept = denoised(counts, epsilon=epsilon)
    left = counts.sum(axis=0) - kept.sum(axis=0)
    # Three standard deviations of a sum of two-sided geometric noise over the cells.
    reach = 3.0 * np.sqrt(2.0 * cells) / epsilon
    left = np.where(left > reach, left, 0)
    share, rest = np.divmod(left, cells)
    spread = share + (np.arange(cells)[:, np.newaxis] < rest)
    return np.asarray(kept + spread, dtype=np.int64)


def stand_in_count(counts: Integers, epsilon: float) -> int:
    """Returns how many rows a histogram becomes."""
    return int(estimated_counts(counts, epsilon).sum())


def stand_in_columns(counts: Integers, epsilon: float, digest: bytes) -> dict[str, bytes]:
    """Returns candidate columns, little-endian, one row for each counted sample.

    Args:
        counts: int64[cells, 16] with noise.
        epsilon: Privacy loss that the noise was made for.
        digest: 32 bytes of the message; makes the ids, so that they never meet those of another.
    """
    found = estimated_counts(counts, epsilon)
    flat = np.repeat(np.arange(found.size), found.ravel())
    cells, bins = np.divmod(flat, counts.shape[1])
    margins = (bins * _LEVELS_PER_BIN + _LEVELS_PER_BIN // 2).astype(np.uint8)
    none_small = bytes(len(flat))
    ids = np.empty((len(flat), 2), dtype="<u8")
    ids[:, 0] = int.from_bytes(digest[:8], "little")
    ids[:, 1] = np.arange(len(flat))
    return {
        "candidate_ids": ids.tobytes(),
        "margins": margins.tobytes(),
        "top_probabilities": (_SCORE_LEVELS - margins // 2).astype(np.uint8).tobytes(),
        "entropies": margins.tobytes(),
        "divergence_risk": none_small,
        "predicted_classes": none_small * 2,
        "runner_up_classes": none_small * 2,
        "prototype_classes": none_small * 2,
        "cell_ids": cells.astype("<u2").tobytes(),
        "density_cost": none_small,
    }
