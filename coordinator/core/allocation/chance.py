"""Chance that does not depend on row order: keyed random numbers of candidate ids.

The key is drawn once per allocation, after the sites have sent their rows, and is logged. So no
site can pick ids that are favoured, and a replay draws the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def draw_key(rng: np.random.Generator) -> NDArray[np.uint64]:
    """Two 64-bit words, the only thing that an allocation takes from the generator."""
    return rng.integers(0, 2**64, size=2, dtype=np.uint64)


def keyed_numbers(
    candidate_ids: NDArray[np.uint8], key: NDArray[np.uint64], *, purpose: str
) -> NDArray[np.uint64]:
    """uint64[n], uniform and reproducible; one purpose says nothing about another.

    The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", 2014), run over both halves of the id.

    >>> ids = np.zeros((1, 16), dtype=np.uint8)
    >>> key = np.array([1, 2], dtype=np.uint64)
    >>> a = keyed_numbers(ids, key, purpose="tie")
    >>> (a == keyed_numbers(ids, key, purpose="tie")).all().item()
    True
    >>> (a == keyed_numbers(ids, key, purpose="explore")).any().item()
    False
    """
    salt = hashlib.sha256(purpose.encode() + key.astype("<u8").tobytes()).digest()
    first, second = np.frombuffer(salt[:16], dtype="<u8")
    words = np.ascontiguousarray(candidate_ids).view("<u8").reshape(-1, 2)
    mixed = _mix(words[:, 0] ^ np.uint64(first))
    return _mix(mixed ^ words[:, 1] ^ np.uint64(second))


def quick_numbers(
    candidate_ids: NDArray[np.uint8], rows: NDArray[np.int64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """uint64[len(rows)]: keyed numbers that break ties, one multiplication each.

    Ids are random to begin with; the secret odd multiplier keeps a site from choosing ids that
    win. Source: multiply-shift hashing, Dietzfelbinger et al., "A reliable randomized algorithm
    for the closest-pair problem", 1997.

    >>> ids = np.arange(32, dtype=np.uint8).reshape(2, 16)
    >>> found = quick_numbers(ids, np.array([0, 1]), np.array([1, 2], dtype=np.uint64))
    >>> len(set(found.tolist()))
    2
    """
    salt = hashlib.sha256(b"tie" + key.astype("<u8").tobytes()).digest()
    first, second = np.frombuffer(salt[:16], dtype="<u8")
    words = np.ascontiguousarray(candidate_ids).view("<u8").reshape(-1, 2)
    mixed = (words[rows, 0] ^ np.uint64(first)) * (np.uint64(second) | np.uint64(1))
    return np.asarray(mixed ^ words[rows, 1], dtype=np.uint64)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * _MULTIPLIER_1
    words = (words ^ (words >> np.uint64(27))) * _MULTIPLIER_2
    return np.asarray(words ^ (words >> np.uint64(31)), dtype=np.uint64)
