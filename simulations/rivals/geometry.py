"""Clustering and covering that several rivals share: k-means, k-centres, gradient embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Last-layer gradients of samples, kept as outer products of two factors.

    The gradient at sample i is ``errors[i] x features[i]``; inner products factor, so that the
    product never has to be written out.

    Attributes:
        errors: float32[n, classes], probabilities less the one-hot pseudo-label.
        features: float32[n, d].
    """

    errors: Floats
    features: Floats

    @property
    def squares(self) -> Floats:
        """float32[n]: squared lengths."""
        products = (self.errors**2).sum(axis=1) * (self.features**2).sum(axis=1)
        return np.asarray(products, dtype=np.float32)

    def distances_to(self, place: int) -> Floats:
        """float32[n]: squared distances to one of them."""
        products = (self.errors @ self.errors[place]) * (self.features @ self.features[place])
        squares = self.squares
        gaps = np.maximum(squares + squares[place] - 2 * products, 0)
        return np.asarray(gaps, dtype=np.float32)


def gradients_of(probabilities: Floats, features: Floats) -> Gradients:
    """Gradients with the predicted class as label (Ash et al., 2020)."""
    errors = probabilities.copy()
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1.0
    return Gradients(errors, features)


def squared_distances(left: Floats, right: Floats) -> Floats:
    """float32[n, m] between rows.

    >>> squared_distances(np.float32([[0, 0]]), np.float32([[3, 4]])).tolist()
    [[25.0]]
    """
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)
    gaps = np.maximum(squares - 2 * left @ right.T, 0)
    return np.asarray(gaps, dtype=np.float32)


def k_means(
    rows: Floats, count: int, rng: np.random.Generator, *, steps: int = 15
) -> tuple[Integers, Floats]:
    """Cluster of each row and the centres (Lloyd 1982, k-means++ start).

    >>> rows = np.float32([[0.0], [0.1], [9.0]])
    >>> found, _ = k_means(rows, 2, np.random.default_rng(0))
    >>> bool(found[0] == found[1] != found[2])
    True
    """
    count = min(count, len(rows))
    centres = rows[plus_plus(rows, count, rng)].copy()
    cluster = np.zeros(len(rows), dtype=np.int64)
    for step in range(steps):
        nearest = squared_distances(rows, centres).argmin(axis=1)
        if step and (nearest == cluster).all():
            break
        cluster = nearest
        sizes = np.bincount(cluster, minlength=count)
        sums = np.zeros(centres.shape, dtype=np.float64)
        np.add.at(sums, cluster, rows)
        filled = sizes > 0
        centres[filled] = (sums[filled] / sizes[filled, None]).astype(np.float32)
    return cluster.astype(np.int64), centres


def plus_plus(rows: Floats, count: int, rng: np.random.Generator) -> Integers:
    """Places drawn by squared distance to those drawn before (Arthur, Vassilvitskii, 2007)."""
    picked = [int(rng.integers(len(rows)))]
    nearest = squared_distances(rows, rows[picked])[:, 0].astype(np.float64)
    while len(picked) < min(count, len(rows)):
        total = nearest.sum()
        chance = nearest / total if total > 0 else np.full(len(rows), 1 / len(rows))
        picked.append(int(rng.choice(len(rows), p=chance)))
        added = squared_distances(rows, rows[picked[-1:]])[:, 0]
        nearest = np.minimum(nearest, added)
    return np.asarray(picked, dtype=np.int64)


def k_centres(rows: Floats, anchors: Floats, count: int) -> Integers:
    """Places that are each the farthest from the anchors and those before (Gonzalez, 1985).

    Without anchors the first place is the one farthest from the mean.

    >>> k_centres(np.float32([[0.0], [5.0], [9.0]]), np.float32([[0.0]]), 2).tolist()
    [2, 1]
    """
    if not len(rows) or count <= 0:
        return np.zeros(0, dtype=np.int64)
    start = anchors if len(anchors) else rows.mean(axis=0, keepdims=True)
    nearest = np.full(len(rows), np.inf)
    for first in range(0, len(start), 512):
        block = squared_distances(rows, start[first : first + 512])
        nearest = np.minimum(nearest, block.min(axis=1))
    picked: list[int] = []
    for _ in range(min(count, len(rows))):
        place = int(nearest.argmax())
        picked.append(place)
        nearest = np.minimum(nearest, squared_distances(rows, rows[place : place + 1])[:, 0])
        nearest[picked] = -1.0
    return np.asarray(picked, dtype=np.int64)


def nearest_to_centres(rows: Floats, count: int, rng: np.random.Generator) -> Integers:
    """The row nearest to each of ``count`` k-means centres, largest cluster first."""
    cluster, centres = k_means(rows, count, rng)
    sizes = np.bincount(cluster, minlength=len(centres))
    picked = []
    for group in np.argsort(-sizes, kind="stable").tolist():
        members = np.flatnonzero(cluster == group)
        if len(members):
            gaps = squared_distances(rows[members], centres[group : group + 1])[:, 0]
            picked.append(int(members[gaps.argmin()]))
    return np.asarray(picked, dtype=np.int64)


def filled_up(picked: Integers, scores: Floats, count: int) -> Integers:
    """Tops a choice up to ``count`` by score, where a rule found too few."""
    picked = picked[:count]
    missing = count - len(picked)
    if missing <= 0:
        return picked
    rest = np.setdiff1d(np.argsort(-scores, kind="stable"), picked, assume_unique=True)
    return np.concatenate([picked, rest[:missing]]).astype(np.int64)
