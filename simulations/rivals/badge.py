"""BADGE: uncertain and diverse gradients.

Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds", 2020.
"""

from __future__ import annotations

import numpy as np

from simulations.rivals.geometry import Integers, gradients_of
from simulations.view import SelectionView


def rank_badge(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """k-means++ draws over last-layer gradients; the first is the longest gradient."""
    del labelled
    if not len(places) or count <= 0:
        return places[:0]
    gradients = gradients_of(view.probabilities[places], view.embedding[places])
    picked = [int(gradients.squares.argmax())]
    nearest = gradients.distances_to(picked[0]).astype(np.float64)
    while len(picked) < min(count, len(places)):
        nearest[picked] = 0.0
        total = nearest.sum()
        if total <= 0:
            rest = np.setdiff1d(np.arange(len(places)), picked)
            picked += rng.permutation(rest)[: count - len(picked)].tolist()
            break
        picked.append(int(rng.choice(len(places), p=nearest / total)))
        nearest = np.minimum(nearest, gradients.distances_to(picked[-1]))
    return places[np.asarray(picked, dtype=np.int64)]
