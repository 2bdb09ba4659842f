"""IFAL: disagreement between three models, judged by reverse nearest neighbours.

"Inconsistency-based federated active learning", IJCAI 2025, as written: distances between class
distributions see which class the mass lies on (the released code compares sorted values).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulations.rivals.geometry import (
    Floats,
    Integers,
    filled_up,
    nearest_to_centres,
    squared_distances,
)
from simulations.view import SelectionView

NEIGHBOURS = 250


def rank_ifal(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """Inconsistency between and inside models, Otsu's threshold, then representatives."""
    if not len(places) or count <= 0:
        return places[:0]
    scores = inconsistency(view, places, labelled)
    likely = np.flatnonzero(scores >= otsu_threshold(scores))
    if len(likely) < count:
        likely = np.argsort(-scores, kind="stable")[: min(len(places), 2 * count)]
    chosen = likely[nearest_to_centres(view.embedding[places[likely]], count, rng)]
    return places[filled_up(chosen, scores, count)]


def inconsistency(view: SelectionView, places: Integers, labelled: Integers) -> Floats:
    """float32[len(places)]: between-model term times inside-model term."""
    models = (
        (view.embedding, view.probabilities),
        (view.local.embedding, view.local.probabilities),
        (view.tuned.embedding, view.tuned.probabilities),
    )
    shared, local, tuned = (
        reverse_neighbour_classes(rows[places], rows[labelled], view.labels[labelled], view)
        for rows, _ in models
    )
    to_shared, to_tuned = _variation(shared, local), _variation(tuned, local)
    ratio = (to_shared + 1e-3) / (to_tuned + 1e-3)
    between = (to_shared + to_tuned) * np.maximum(ratio, 1.0 / ratio)
    inside = np.mean(
        [
            _variation(found, probabilities[places])
            for found, (_, probabilities) in zip((shared, local, tuned), models, strict=True)
        ],
        axis=0,
    )
    return np.asarray(between * inside, dtype=np.float32)


def reverse_neighbour_classes(
    rows: Floats, anchors: Floats, labels: Integers, view: SelectionView
) -> Floats:
    """float32[n, classes]: classes of the labelled samples that count a row among their nearest."""
    votes = np.full((len(rows), view.class_count), 1e-3, dtype=np.float64)
    if len(anchors):
        gaps = squared_distances(anchors, rows)
        nearest = np.argsort(gaps, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(rows))]
        for label, found in zip(labels.tolist(), nearest, strict=True):
            votes[found, label] += 1.0
    return np.asarray(votes / votes.sum(axis=1, keepdims=True), dtype=np.float32)


def otsu_threshold(scores: NDArray[np.floating]) -> float:
    """Value that splits the scores into two groups of least spread (Otsu, 1979).

    >>> 1.0 < otsu_threshold(np.array([0.0, 0.1, 0.9, 1.0, 9.0, 9.1, 8.9])) <= 8.9
    True
    """
    counts, edges = np.histogram(scores, bins=64)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    first = np.cumsum(counts * middles) / np.maximum(below, 1)
    second = ((counts * middles).sum() - np.cumsum(counts * middles)) / np.maximum(above, 1)
    spread = below * above * (first - second) ** 2
    return float(edges[1:][int(spread[:-1].argmax())]) if len(scores) > 1 else float(scores.min())


def _variation(left: Floats, right: Floats) -> NDArray[np.float64]:
    """Total variation: the Wasserstein distance when all classes are equally far apart."""
    return np.asarray(0.5 * np.abs(left.astype(np.float64) - right).sum(axis=1))
