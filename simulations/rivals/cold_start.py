"""Strategies for few labels: TypiClust and ProbCover.

Hacohen, Dekel and Weinshall, "Active learning on a budget: opposite strategies suit high and low
budgets", 2022. Yehuda, Dekel, Hacohen and Weinshall, "Active learning through a covering lens",
2022.
"""

from __future__ import annotations

import numpy as np

from edge_agent.geometry import typicality
from simulations.rivals.geometry import (
    Floats,
    Integers,
    filled_up,
    k_means,
    squared_distances,
)
from simulations.view import SelectionView

MOST_CLUSTERS = 500
PURITY = 0.95


def rank_typiclust(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """The most typical sample of each of the largest clusters that hold no label yet."""
    if not len(places) or count <= 0:
        return places[:0]
    everything = np.concatenate([places, labelled])
    rows = view.embedding[everything]
    clusters = min(MOST_CLUSTERS, len(labelled) + count, len(everything))
    cluster, _ = k_means(rows, clusters, rng)
    labels = np.bincount(cluster[len(places) :], minlength=clusters)
    sizes = np.bincount(cluster[: len(places)], minlength=clusters)
    typical = np.zeros(len(places), dtype=np.float32)
    for group in range(clusters):
        members = np.flatnonzero(cluster[: len(places)] == group)
        if len(members):
            typical[members] = typicality(
                rows[members], neighbours=min(20, max(1, len(members) - 1))
            )
    picked: list[int] = []
    open_clusters = cluster[: len(places)].copy()
    while len(picked) < min(count, len(places)):
        # Fewest labels first, then most samples; a cluster is visited again only after all others.
        order = np.lexsort((-sizes, labels + 10**6 * (sizes == 0)))
        group = int(order[0])
        members = np.flatnonzero(open_clusters == group)
        best = int(members[typical[members].argmax()])
        picked.append(best)
        open_clusters[best] = -1
        sizes[group] -= 1
        labels[group] += 1
    return places[np.asarray(picked, dtype=np.int64)]


def rank_probcover(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """Greedy cover of the pool by balls whose radius keeps 95 % of them pure in pseudo-classes."""
    if not len(places) or count <= 0:
        return places[:0]
    rows = view.embedding[places]
    gaps = squared_distances(rows, rows)
    radius = ball_radius(gaps, k_means(rows, view.class_count, rng)[0])
    covers = gaps <= radius
    uncovered = np.ones(len(places), dtype=np.bool_)
    if len(labelled):
        near = squared_distances(rows, view.embedding[labelled]).min(axis=1) <= radius
        uncovered &= ~near
    picked: list[int] = []
    degree = covers[:, uncovered].sum(axis=1)
    while len(picked) < min(count, len(places)) and degree.max() > 0:
        best = int(degree.argmax())
        picked.append(best)
        fresh = covers[best] & uncovered
        uncovered &= ~fresh
        degree = degree - covers[:, fresh].sum(axis=1)
    chosen = np.asarray(picked, dtype=np.int64)
    return places[filled_up(chosen, rng.random(len(places), dtype=np.float32), count)]


def ball_radius(gaps: Floats, pseudo: Integers) -> float:
    """Largest squared radius at which at least 95 % of the balls hold one pseudo-class only."""
    other = np.where(pseudo[:, None] != pseudo, gaps, np.inf).min(axis=1)
    return float(np.quantile(other, 1.0 - PURITY)) * 0.999
