"""A set of candidate ids that grows batch by batch and costs eight bytes an id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MERGE_AT_COUNT = 12


class KnownIds:
    """Ids seen so far, as sorted arrays of their first eight bytes.

    Ids are uniform, so that two different ones share eight bytes with a probability below 3e-6
    among ten million; the count it gives is for people, nothing is decided by it.

    >>> known = KnownIds()
    >>> known.add(b"a" * 16 + b"b" * 16), known.add(b"b" * 16 + b"c" * 16)
    (2, 1)
    """

    def __init__(self) -> None:
        self._sorted: list[NDArray[np.uint64]] = []

    def add(self, ids: bytes) -> int:
        """Adds ids of 16 bytes each, laid end to end, and returns how many were new."""
        words = np.unique(np.frombuffer(ids, dtype="<u8")[::2])
        new = np.ones(len(words), dtype=np.bool_)
        for known in self._sorted:
            at = np.minimum(np.searchsorted(known, words), len(known) - 1)
            new &= known[at] != words
        if new.any():
            self._sorted.append(words[new])
        if len(self._sorted) > MERGE_AT_COUNT:
            self._sorted = [np.sort(np.concatenate(self._sorted))]
        return int(new.sum())
