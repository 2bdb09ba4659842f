"""Finds any of thousands of byte patterns in any number of bytes, at memory speed.

Every pattern is known by one of its windows of eight bytes. All windows of the searched bytes are
looked up in a bit table at once, and only the few that might belong to a pattern are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 8
"""Bytes of an anchor; no pattern is shorter."""
_BITS = 24
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret where none should be.

    Attributes:
        marker: Name of the secret.
        encoding: Form in which it was found.
        place: File, stream or page.
        offset: First byte inside that place.
    """

    marker: str
    encoding: str
    place: str
    offset: int


class Matcher:
    """Searches for patterns.

    Args:
        patterns: Pattern to (name of the marker, name of the encoding).

    Raises:
        ValueError: A pattern is shorter than eight bytes or is one byte repeated.
    """

    def __init__(self, patterns: Mapping[bytes, tuple[str, str]]) -> None:
        self._names = dict(patterns)
        self._by_anchor: dict[int, list[tuple[bytes, int]]] = {}
        for pattern in patterns:
            start = _anchor_start(pattern)
            anchor = int.from_bytes(pattern[start : start + WINDOW], "little")
            self._by_anchor.setdefault(anchor, []).append((pattern, start))
        anchors = np.fromiter(self._by_anchor, dtype=np.uint64, count=len(self._by_anchor))
        self._table = np.zeros(1 << _BITS, dtype=np.bool_)
        self._table[_slots(anchors)] = True

    def __len__(self) -> int:
        return len(self._names)

    def hits(self, searched: bytes, place: str) -> list[Hit]:
        """Returns the first hit of each marker and encoding, in the order of their offsets."""
        first: dict[tuple[str, str], int] = {}
        for position in self._suspects(searched):
            anchor = int.from_bytes(searched[position : position + WINDOW], "little")
            for pattern, start in self._by_anchor.get(anchor, ()):
                begin = position - start
                if begin >= 0 and searched.startswith(pattern, begin):
                    name = self._names[pattern]
                    first[name] = min(begin, first.get(name, begin))
        found = [Hit(marker, encoding, place, at) for (marker, encoding), at in first.items()]
        return sorted(found, key=lambda hit: (hit.offset, hit.marker, hit.encoding))

    def _suspects(self, searched: bytes) -> Iterable[int]:
        for shift in range(WINDOW):
            count = (len(searched) - shift) // WINDOW
            if count <= 0:
                return
            windows = np.frombuffer(searched, dtype="<u8", count=count, offset=shift)
            for index in np.flatnonzero(self._table[_slots(windows)]):
                yield int(index) * WINDOW + shift


def _slots(windows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return (windows * _FACTOR) >> np.uint64(64 - _BITS)


def _anchor_start(pattern: bytes) -> int:
    """Where the window with the most different bytes starts: zeros and spaces are everywhere."""
    if len(pattern) < WINDOW:
        raise ValueError(f"pattern {pattern!r} is shorter than {WINDOW} bytes")
    starts = range(len(pattern) - WINDOW + 1)
    best = max(starts, key=lambda start: len(set(pattern[start : start + WINDOW])))
    if len(set(pattern[best : best + WINDOW])) < 3:
        raise ValueError(f"pattern {pattern!r} is too uniform to be told from noise")
    return best
