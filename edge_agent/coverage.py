"""Which samples stand for the most others of a pool, for a model that nobody has taught yet.

An untrained model's doubt says nothing, and its code book was drawn at random. What is worth
a first label is then a sample that stands for many others which no better one stands for. A device
sees that in its own pool alone; what leaves it is a band of four bits.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from edge_agent.geometry import unit_rows

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

REFERENCE_ROWS = 1024
"""Samples that stand for the pool, evenly taken from it; bounds memory to 4 KiB a sample."""
NEIGHBOURS = 10
BANDS_PER_DOUBLING = 1.5
LARGEST_BAND = 15
LEAST_GAIN = 1.0
_TINY = 1e-9


def coverage(embedding: Floats) -> Floats:
    """How many more samples of the pool each one stands for, float32[n].

    Samples are taken one by one, each time the one that adds most to what all taken ones stand
    for (greedy facility location), until none adds a whole sample; those never taken have 0. So
    the samples above any bar cover the pool well, however many they are, and gains of different
    sites can be compared: all count samples.

    Args:
        embedding: float32[n, d]; its direction counts.

    Sources: Nemhauser, Wolsey, Fisher, "An analysis of approximations for maximizing submodular
    set functions", 1978; Wei, Iyer, Bilmes, "Submodularity in data subset selection and active
    learning", 2015; Minoux, "Accelerated greedy algorithms", 1978, for looking again only
    where it can matter.

    >>> rows = np.float32([[1, 0]] * 30 + [[0, 1]] * 20)
    >>> gains = coverage(rows)
    >>> gains[gains > 0].tolist(), np.flatnonzero(gains).tolist()
    ([30.0, 20.0], [0, 30])
    """
    rows = len(embedding)
    gains = np.zeros(rows, dtype=np.float32)
    if not rows:
        return gains
    likeness, scale = _likeness(embedding)
    covered = np.zeros(likeness.shape[1], dtype=np.float32)
    first = likeness.sum(axis=1) * scale
    heap = [(-float(gain), place) for place, gain in enumerate(first)]
    heapq.heapify(heap)
    while heap:
        place = heapq.heappop(heap)[1]
        gain = float(np.maximum(likeness[place] - covered, 0).sum()) * scale
        if heap and gain < -heap[0][0]:
            heapq.heappush(heap, (-gain, place))
            continue
        if gain < LEAST_GAIN - _TINY:
            break
        gains[place] = gain
        np.maximum(covered, likeness[place], out=covered)
    return gains


def coverage_bands(gains: Floats) -> Bytes:
    """Bands 0 to 15 of `coverage`, on a logarithmic scale; 0 stands for nothing more.

    >>> coverage_bands(np.float32([0, 1, 2, 8, 1e6])).tolist()
    [0, 1, 2, 5, 15]
    """
    steps = np.floor(BANDS_PER_DOUBLING * np.log2(np.maximum(gains, LEAST_GAIN)) + _TINY)
    bands = np.where(gains > 0, 1 + steps, 0)
    return np.asarray(np.minimum(bands, LARGEST_BAND), dtype=np.uint8)


def _likeness(embedding: Floats) -> tuple[Floats, float]:
    """float32[n, r] in (0, 1] to the reference samples, and how many samples each of them is.

    A Gaussian of the distance between directions, as wide as the pool's typical distance to a
    near neighbour.
    """
    rows = len(embedding)
    unit = unit_rows(embedding)
    count = min(rows, REFERENCE_ROWS)
    chosen = np.linspace(0, rows - 1, count).round().astype(np.int64)
    # In place: at 9000 samples each further copy would cost a device 37 MB.
    squares = unit @ unit[chosen].T
    squares *= -2.0
    squares += 2.0
    np.maximum(squares, 0.0, out=squares)
    near = min(NEIGHBOURS, count - 1)
    closest = np.partition(squares[chosen], near, axis=1)[:, : near + 1]
    width = float(closest.sum() / max(1, near * count)) + 1e-6
    squares /= np.float32(-width)
    return np.exp(squares, out=squares), rows / count
