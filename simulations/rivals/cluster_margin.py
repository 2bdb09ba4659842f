"""Cluster-Margin: uncertain samples, spread over clusters.

Citovsky et al., "Batch active learning at scale", 2021.
"""

from __future__ import annotations

import numpy as np

from edge_agent.scoring import margin
from simulations.rivals.geometry import Floats, Integers, k_means
from simulations.view import SelectionView

CANDIDATE_FACTOR = 10
MOST_LINKED = 3000
"""Beyond so many samples the clusters come from k-means: average linkage needs all pairs."""


def rank_cluster_margin(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """Ten times too many by margin, then one from each cluster in turn, small clusters first."""
    del labelled
    if not len(places) or count <= 0:
        return places[:0]
    scores = margin(view.probabilities[places])
    cluster = _clusters(view.embedding[places], count, rng)
    likely = np.argsort(-scores, kind="stable")[: CANDIDATE_FACTOR * count]
    queues = [likely[cluster[likely] == group].tolist() for group in np.unique(cluster[likely])]
    queues.sort(key=len)
    picked: list[int] = []
    while len(picked) < min(count, len(places)):
        for queue in queues:
            if queue and len(picked) < count:
                picked.append(queue.pop(0))
    return places[np.asarray(picked, dtype=np.int64)]


def _clusters(rows: Floats, count: int, rng: np.random.Generator) -> Integers:
    clusters = max(2, min(len(rows), count))
    if len(rows) < 2:
        return np.zeros(len(rows), dtype=np.int64)
    if len(rows) > MOST_LINKED:
        return k_means(rows, clusters, rng)[0]
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(rows, "average")
    return np.asarray(fcluster(tree, clusters, "maxclust"), dtype=np.int64) - 1
