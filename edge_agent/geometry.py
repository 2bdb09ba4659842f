"""Where a sample lies in the embedding space: its cell, its nearest prototype, its density."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shorts = NDArray[np.uint16]

CHUNK_ROWS = 4096
"""Rows per distance block, so that scoring a large pool needs little memory."""
_TINY = np.float32(1e-12)


def density(similarity: Floats) -> Floats:
    """How typical a sample is of its cell: 1 at the cell's centre, 0 from a right angle on.

    The angle is what is measured, not its cosine: embeddings lie close together, and a band of
    the cosine near 1 would hold them all.

    Nearness to a shared centre needs no neighbours, so a stream can be scored item by item and
    sites stay comparable. Source: the federated variant of TypiClust in Mohr and Weinshall,
    "Coordination on a budget", where it beats the most typical sample at one label a class.

    >>> density(np.float32([-0.5, 0.5, 1.0])).round(2).tolist()
    [0.0, 0.33000001311302185, 1.0]
    """
    angle = np.arccos(np.clip(similarity, 0.0, 1.0))
    return np.asarray(1.0 - angle / (np.pi / 2), dtype=np.float32)


def typicality(embedding: Floats, *, neighbours: int = 20) -> Floats:
    """Inverse mean distance to the nearest neighbours in the pool, scaled to (0, 1].

    Args:
        embedding: float32[n, d].
        neighbours: how many neighbours, at least 1; fewer where the pool is smaller.

    Source: Hacohen et al., "Active learning on a budget: opposite strategies suit high and low
    budgets", 2022 (TypiClust). The scale 1 / (1 + distance) keeps their order and is bounded.

    >>> typicality(np.float32([[0.0], [1.0], [4.0]]), neighbours=1).tolist()
    [0.5, 0.5, 0.25]
    """
    count = min(neighbours, len(embedding) - 1)
    if count < 1:
        return np.ones(len(embedding), dtype=np.float32)
    mean_distance = np.empty(len(embedding), dtype=np.float32)
    squares = (embedding**2).sum(axis=1)
    for start in range(0, len(embedding), CHUNK_ROWS):
        block = embedding[start : start + CHUNK_ROWS]
        gaps = squares[start : start + CHUNK_ROWS, None] + squares - 2 * block @ embedding.T
        nearest = np.partition(gaps, count, axis=1)[:, : count + 1]
        distances = np.sqrt(np.maximum(nearest, 0.0)).sum(axis=1) / count
        mean_distance[start : start + CHUNK_ROWS] = distances
    return np.asarray(1.0 / (1.0 + mean_distance), dtype=np.float32)


def nearest_prototype(embedding: Floats, prototypes: Floats, *, fallback: Shorts) -> Shorts:
    """Class whose prototype has the largest cosine to the sample, uint16[n].

    The arg-max class leans to frequent classes when labels are few; the prototype does not.
    Classes with a zero prototype are skipped; with none left the fallback is returned.

    Source: Snell et al., "Prototypical networks for few-shot learning", 2017; as a pseudo-class
    for balanced selection: FairFAL, 2026.

    >>> nearest_prototype(
    ...     np.float32([[0.0, 1.0]]), np.float32([[1, 0], [0, 2], [0, 0]]), fallback=np.uint16([0])
    ... ).tolist()
    [1]
    """
    norms = np.linalg.norm(prototypes, axis=1)
    seen = np.flatnonzero(norms > 0)
    if not len(seen):
        return fallback
    cosines = embedding @ (prototypes[seen] / norms[seen, None]).T
    return np.asarray(seen[cosines.argmax(axis=1)], dtype=np.uint16)


def assign_cells(embedding: Floats, code_book: Floats) -> tuple[Shorts, Floats]:
    """Nearest code-book row of each sample and the cosine to it.

    Both sides are compared on the unit sphere, where nearest by cosine is nearest by L2. An empty
    code book gives cell 0 and similarity 0.

    >>> cells, cosine = assign_cells(np.float32([[0, 1]]), np.float32([[1, 0], [0, 3]]))
    >>> cells.tolist(), cosine.tolist()
    ([1], [1.0])
    """
    rows = len(embedding)
    cells = np.zeros(rows, dtype=np.uint16)
    similarity = np.zeros(rows, dtype=np.float32)
    if not len(code_book):
        return cells, similarity
    centres = unit_rows(code_book).T
    for start in range(0, rows, CHUNK_ROWS):
        cosines = unit_rows(embedding[start : start + CHUNK_ROWS]) @ centres
        nearest = cosines.argmax(axis=1)
        cells[start : start + CHUNK_ROWS] = nearest
        similarity[start : start + CHUNK_ROWS] = cosines[np.arange(len(nearest)), nearest]
    return cells, similarity


def unit_rows(vectors: Floats) -> Floats:
    """float32[n, d]: rows of length 1; a row of zeros stays."""
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
    return np.asarray(vectors / norms, dtype=np.float32)
