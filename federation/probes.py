"""Seeded inputs that look a little like each kind of data: for parity checks and a first code book.

They hold no data of any site, so the centre may use them freely.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.networks import NetworkSpec, input_shape

PROBE_TOKENS_MAX = 60
STROKE_STEPS = 9


def probe_inputs(spec: NetworkSpec, count: int, *, seed: int) -> NDArray[Any]:
    """Returns `count` rows of the network's input.

    >>> from model_bundle.features import FeatureSpec
    >>> probe_inputs(NetworkSpec("text", FeatureSpec("text"), 2), 3, seed=1).shape
    (3, 60)
    """
    rng = np.random.default_rng(seed)
    if spec.family == "text":
        return _tokens(spec, count, rng)
    shape = input_shape(spec)
    if spec.family == "image":
        return _pictures(count, shape, rng)
    if spec.family == "series":
        return _waves(count, shape, rng)
    return rng.standard_normal((count, *shape)).astype(np.float32)


def _tokens(spec: NetworkSpec, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    longest = min(PROBE_TOKENS_MAX, spec.features.tokens_max)
    ids = rng.integers(1, spec.features.buckets, (count, longest))
    lengths = rng.integers(min(4, longest), longest + 1, count)
    ids[np.arange(longest) >= lengths[:, None]] = 0
    return ids.astype(np.int64)


def _pictures(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Soft blobs and strokes on an empty ground; real pictures lie nearer to these than noise."""
    channels, height, width = shape
    rows = (np.arange(height)[:, None] + 0.5) / height
    columns = (np.arange(width)[None, :] + 0.5) / width
    pictures = np.zeros((count, channels, height, width), dtype=np.float32)
    for number in range(count):
        spots, spread = _strokes(rng) if number % 4 else _blobs(rng)
        for y, x in spots:
            distance = (rows - y) ** 2 + (columns - x) ** 2
            spot = 1.3 * np.exp(-distance / (2 * spread**2))
            np.maximum(pictures[number], spot, out=pictures[number])
    return np.clip(pictures, 0.0, 1.0)


def _blobs(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """Places of a few blobs, and their spread."""
    return rng.random((rng.integers(2, 7), 2)), rng.uniform(0.05, 0.25)


def _strokes(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """Places along a line with a few corners, and the pen's width."""
    corners = rng.uniform(0.1, 0.9, (rng.integers(3, 7), 2))
    steps = np.linspace(0.0, 1.0, STROKE_STEPS)[:, None]
    parts = [a + steps * (b - a) for a, b in pairwise(corners)]
    return np.concatenate(parts), rng.uniform(0.05, 0.12)


def _waves(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Sines of random pitch, phase and height, plus noise."""
    channels, steps = shape
    pitch = rng.uniform(0.5, 12.0, (count, channels, 1))
    phase = rng.uniform(0, 2 * np.pi, (count, channels, 1))
    height = rng.lognormal(0.0, 0.7, (count, channels, 1))
    waves = height * np.sin(2 * np.pi * pitch * np.arange(steps) / steps + phase)
    return np.asarray(waves + 0.2 * rng.standard_normal(waves.shape), dtype=np.float32)
