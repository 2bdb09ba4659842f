"""Strategies made for federations: LoGo and the sampler of KAFAL.

Kim et al., "Re-thinking federated active learning based on inter-class diversity", 2023 (LoGo).
Cao et al., "Knowledge-aware federated active learning with non-IID data", 2023 (KAFAL).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_agent.scoring import entropy
from simulations.rivals.geometry import Floats, Integers, k_means
from simulations.view import SelectionView

SMALLEST_COUNT = 0.5
"""Stands in for a class without labels, whose logarithm would be infinite."""


def rank_logo(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """Clusters by the local model's gradients; in each, the largest entropy of the shared model.

    Macro step: k-means with as many clusters as labels on the local embedding scaled by one less
    the largest probability, the predicted class's part of the last-layer gradient.
    """
    del labelled
    if not len(places) or count <= 0:
        return places[:0]
    unsure = 1.0 - view.local.probabilities[places].max(axis=1, keepdims=True)
    cluster, _ = k_means(view.local.embedding[places] * unsure, count, rng)
    scores = entropy(view.probabilities[places])
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(cluster[order], return_index=True)
    best = order[np.sort(first)]
    rest = np.setdiff1d(order, best, assume_unique=True)
    rest = rest[np.argsort(-scores[rest], kind="stable")]
    ranked = np.concatenate([best, rest])[:count]
    return np.asarray(places[ranked], dtype=np.int64)


def rank_kafal(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """The largest knowledge-specialised divergence between the shared and the local model."""
    del rng
    scores = kafal_scores(view, places, view.labels[labelled])
    return places[np.argsort(-scores, kind="stable")[:count]]


def kafal_scores(view: SelectionView, places: Integers, labels: Integers) -> Floats:
    """Half the symmetric Kullback-Leibler divergence after both models favour the site's classes.

    The logarithm of the site's labelled class counts is added to both models' logits.
    """
    counts = np.maximum(np.bincount(labels, minlength=view.class_count), SMALLEST_COUNT)
    shared = _favoured(view.probabilities[places], counts)
    local = _favoured(view.local.probabilities[places], counts)
    ratio = np.log(shared) - np.log(local)
    return np.asarray(0.5 * ((shared - local) * ratio).sum(axis=1), dtype=np.float32)


def _favoured(probabilities: Floats, counts: NDArray[np.floating]) -> Floats:
    weighted = np.maximum(probabilities, 1e-9) * counts
    return np.asarray(weighted / weighted.sum(axis=1, keepdims=True), dtype=np.float32)
