"""Core-set: cover the pool so that no sample is far from a labelled one.

Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", 2018.
"""

from __future__ import annotations

import numpy as np

from simulations.rivals.geometry import Integers, k_centres
from simulations.view import SelectionView


def rank_core_set(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """Greedy k-centres in the shared model's embedding, anchored on the labelled samples."""
    del rng
    return places[k_centres(view.embedding[places], view.embedding[labelled], count)]
