"""Groups of near-duplicate items that one look can settle together.

Texts are compared as sets of character shingles. Candidates for comparison come from MinHash
sketches of one permutation, cut into bands, and every membership is then checked with the exact
Jaccard similarity to the first item of the group: a sketch can miss a pair, it can never invent
one. Groups are stars, not chains: all members resemble the one item that is shown first.

Other kinds group only when their bytes are equal.

Sources: Broder 1997 (shingles, resemblance); Li, Owen and Zhang 2012 (one permutation);
Shrivastava 2017 (filling empty bins).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from review_portal.core.model import Kind

SHINGLE_LENGTH = 5
"""Characters of a shingle."""
GROUP_SIZE_MAX = 20
"""Items that one approval may cover."""
SIMILARITY_MIN = 0.8
"""Least Jaccard similarity of a member to the first item of its group."""
_BIN_COUNT = 64
_BAND_ROWS = 4
_EMPTY = 1 << 32
_PLACEHOLDER = re.compile(r"<([A-Z_]+)_\d+>")
_SPACE = re.compile(r"\s+")
Shingles = frozenset[int]


@dataclass(frozen=True, slots=True)
class GroupableItem:
    """An item that may be settled together with others.

    Attributes:
        item_id: Names the item, unique in the call.
        kind: What it shows.
        content: Masked content, encoded as its kind says.
        part: Items group only within one part: the caller puts in what must be equal, such as the
            suggested class and the model version.
    """

    item_id: str
    kind: Kind
    content: bytes
    part: str = ""


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Items that look alike.

    Attributes:
        item_ids: The first one is shown; at least two, at most the group limit.
        similarity_min: Least similarity of a member to the first, in [0, 1]; 1.0 for equal bytes.
    """

    item_ids: tuple[str, ...]
    similarity_min: float


def near_duplicate_groups(
    items: Sequence[GroupableItem],
    *,
    similarity_min: float = SIMILARITY_MIN,
    group_size_max: int = GROUP_SIZE_MAX,
) -> tuple[DuplicateGroup, ...]:
    """Returns the groups of two or more, in the order of their first items.

    Each item joins the earliest group whose first item it resembles, so the answer depends on the
    order of items and on nothing else.

    Args:
        items: Items in the order in which they would be shown.
        similarity_min: In (0, 1].
        group_size_max: At least 2; what does not fit opens a new group.

    Raises:
        ValueError: A limit is out of range, or two items share an id.

    >>> rows = [GroupableItem(str(n), Kind.TEXT, f"Invoice {n} is overdue, please pay".encode())
    ...         for n in (1, 2)] + [GroupableItem("x", Kind.TEXT, b"Good morning")]
    >>> [group.item_ids for group in near_duplicate_groups(rows, similarity_min=0.6)]
    [('1', '2')]
    """
    if not 0.0 < similarity_min <= 1.0 or group_size_max < 2:
        raise ValueError("similarity_min lies in (0, 1] and group_size_max is at least 2")
    if len({item.item_id for item in items}) != len(items):
        raise ValueError("two items share an id; each item may be passed once")
    stars = _Stars(similarity_min, group_size_max)
    for item in items:
        stars.place(item)
    return tuple(
        DuplicateGroup(tuple(star.item_ids), star.similarity_min)
        for star in stars.stars
        if len(star.item_ids) > 1
    )


@dataclass(slots=True)
class _Star:
    shingles: Shingles
    item_ids: list[str]
    similarity_min: float = 1.0


class _Stars:
    """Groups under construction, found by the bands of their first item's sketch."""

    def __init__(self, similarity_min: float, size_max: int) -> None:
        self.stars: list[_Star] = []
        self._similarity_min = similarity_min
        self._size_max = size_max
        self._by_band: dict[tuple[object, ...], list[int]] = {}

    def place(self, item: GroupableItem) -> None:
        """Adds an item to the earliest group that it resembles, or opens one."""
        if item.kind is Kind.TEXT:
            shingles = shingles_of(item.content.decode("utf-8", "replace"))
            keys = [("text", item.part, *band) for band in _bands(sketch(shingles))]
        else:
            shingles = frozenset()
            digest = hashlib.sha256(item.content).digest()
            keys = [("bytes", item.part, item.kind, digest)]
        for index in sorted({found for key in keys for found in self._by_band.get(key, ())}):
            if self._joined(self.stars[index], item.item_id, shingles):
                return
        for key in keys:
            self._by_band.setdefault(key, []).append(len(self.stars))
        self.stars.append(_Star(shingles, [item.item_id]))

    def _joined(self, star: _Star, item_id: str, shingles: Shingles) -> bool:
        likeness = jaccard(star.shingles, shingles)
        if likeness < self._similarity_min or len(star.item_ids) >= self._size_max:
            return False
        star.item_ids.append(item_id)
        star.similarity_min = min(star.similarity_min, likeness)
        return True


def plain_text(text: str) -> str:
    """Returns a text without what makes no difference: case, spacing, numbers of placeholders.

    >>> plain_text("Ask  <PERSON_1> NOW")
    'ask <person> now'
    """
    return _SPACE.sub(" ", _PLACEHOLDER.sub(r"<\1>", text)).strip().casefold()


def pieces_of(text: str) -> tuple[str, ...]:
    """Returns the distinct pieces of a text that its shingles are hashes of.

    >>> len(pieces_of("abcabcabcabc")) < 12
    True
    """
    plain = plain_text(text)
    last = max(0, len(plain) - SHINGLE_LENGTH)
    return tuple(dict.fromkeys(plain[at : at + SHINGLE_LENGTH] for at in range(last + 1)))


def may_resemble(pieces: Sequence[str], text: str, similarity_min: float) -> bool:
    """Says without any hashing whether a text can be that similar to one with these pieces.

    A similarity of s needs the share s of all pieces: a few that are missing settle it.

    >>> may_resemble(pieces_of("my card is lost"), "where do I pay the loan?", 0.8)
    False
    """
    left = (1 - similarity_min) * len(pieces)
    plain = plain_text(text)
    for piece in pieces:
        if piece not in plain:
            left -= 1
            if left < -1:  # one more than can be missing: hashes of two pieces may be equal
                return False
    return True


def shingles_of(text: str) -> Shingles:
    """Returns hashed character shingles; case, spacing and placeholder numbers do not count.

    >>> shingles_of("Ask <PERSON_1>  now") == shingles_of("ask <PERSON_2> NOW")
    True
    """
    raw = plain_text(text).encode("utf-32-le")
    width = 4 * SHINGLE_LENGTH
    if len(raw) <= width:
        return frozenset({_spread(zlib.crc32(raw))})
    return frozenset(
        _spread(zlib.crc32(raw[start : start + width]))
        for start in range(0, len(raw) - width + 1, 4)
    )


def jaccard(first: Shingles, second: Shingles) -> float:
    """Returns the size of the intersection over the size of the union; 1.0 for two empty sets.

    >>> jaccard(frozenset({1, 2}), frozenset({2, 3}))
    0.3333333333333333
    """
    if not first and not second:
        return 1.0
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def sketch(shingles: Shingles) -> tuple[int, ...]:
    """Returns 64 minima, one for each bin of a single hash; equal bins estimate Jaccard.

    >>> len(sketch(frozenset({5})))
    64
    """
    smallest = [_EMPTY] * _BIN_COUNT
    for value in shingles:
        place = value & (_BIN_COUNT - 1)
        smallest[place] = min(smallest[place], value >> 6)
    if all(value == _EMPTY for value in smallest):
        return tuple(smallest)
    return tuple(
        value if value != _EMPTY else _borrowed(smallest, place)
        for place, value in enumerate(smallest)
    )


def _borrowed(smallest: Sequence[int], place: int) -> int:
    """The value of a filled bin, found by a walk that depends on the empty bin alone."""
    for attempt in range(1, 1 << 16):
        other = _spread(place * 65_537 + attempt) & (_BIN_COUNT - 1)
        if smallest[other] != _EMPTY:
            return smallest[other]
    return _EMPTY


def _bands(minima: Sequence[int]) -> list[tuple[int, ...]]:
    return [
        (start, *minima[start : start + _BAND_ROWS]) for start in range(0, len(minima), _BAND_ROWS)
    ]


def _spread(value: int) -> int:
    """Mixes 32 bits so that near values land far apart (the finaliser of MurmurHash3)."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16
