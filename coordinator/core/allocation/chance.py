"""Chance that does not depend on row order: keyed random numbers of candidate ids.

The key is drawn once per allocation, after the sites have sent their rows, and is logged. So no
site can pick ids that are favoured, and a replay draws the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

FACTORS = 256
"""Different chance factors: one for each value of a byte."""
_BLOCK = 1 << 16
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


def chance_factors(coldness: float) -> NDArray[np.float32]:
    """float32[256], rising to 1: what chance makes of a score, one factor for each byte.

    The factor is exp(G / coldness) for a number G of Gumbel's distribution, at the middles of 256
    equal shares of it, over the largest one. The best by score times factor are a draw without
    replacement in which a score counts with its power ``coldness``: a high one is ranked nearly as
    if there were no chance, and 0 would be a blind draw. Source: Kirsch et al., "Stochastic batch
    acquisition: a simple baseline for deep active learning", 2023 (power acquisition).

    Args:
        coldness: above 0.

    >>> [round(float(chance_factors(8.0)[byte]), 3) for byte in (0, 128, 255)]
    [0.365, 0.48, 1.0]
    >>> float(chance_factors(1e9)[0])
    1.0
    """
    shares = (np.arange(FACTORS) + 0.5) / FACTORS
    drawn = -np.log(-np.log(shares))
    return np.asarray(np.exp((drawn - drawn[-1]) / coldness), dtype=np.float32)


def shaken(
    scores: NDArray[np.float32],
    candidate_ids: NDArray[np.uint8],
    key: NDArray[np.uint64],
    factors: NDArray[np.float32],
) -> None:
    """Multiplies scores by the factors that chance gives to their candidates, in place.

    Works in blocks, so that ten million rows need no column of numbers.

    Args:
        scores: float32[n].
        candidate_ids: uint8[n, 16].
        key: the chance key.
        factors: float32[256].
    """
    for start in range(0, len(scores), _BLOCK):
        part = slice(start, start + _BLOCK)
        numbers = keyed_numbers(candidate_ids[part], key, purpose="ranking")
        scores[part] *= factors[(numbers >> np.uint64(56)).astype(np.uint8)]


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
    halves = np.take(words, rows, axis=0)  # both lie side by side, so each row is met once
    mixed = (halves[:, 0] ^ np.uint64(first)) * (np.uint64(second) | np.uint64(1))
    return np.asarray(mixed ^ halves[:, 1], dtype=np.uint64)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * _MULTIPLIER_1
    words = (words ^ (words >> np.uint64(27))) * _MULTIPLIER_2
    return np.asarray(words ^ (words >> np.uint64(31)), dtype=np.uint64)
