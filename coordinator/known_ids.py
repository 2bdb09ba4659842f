"""A set of candidate ids that grows batch by batch and costs eight bytes an id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class KnownIds:
    """Ids seen so far, as sorted arrays of their first eight bytes, each twice as long as the next.

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
        words = np.sort(np.frombuffer(ids, dtype="<u8")[::2])
        new = np.ones(len(words), dtype=np.bool_)
        new[1:] = words[1:] != words[:-1]
        for known in self._sorted:
            at = np.searchsorted(known, words)
            at[at == len(known)] = 0
            new &= known[at] != words
        if new.any():
            self._sorted.append(words[new])
        while len(self._sorted) > 1 and len(self._sorted[-2]) < 2 * len(self._sorted[-1]):
            # A stable sort merges two sorted runs in one pass.
            joined = np.concatenate([self._sorted[-2], self._sorted[-1]])
            self._sorted[-2:] = [np.sort(joined, kind="stable")]
        return int(new.sum())
