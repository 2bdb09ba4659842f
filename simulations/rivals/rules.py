"""Turning a rule over some places into a strategy: inside each site, or over their union."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulations.ranking import equal_quota, labels_affordable, take
from simulations.view import Integers, Selection, SelectionView

Rule = Callable[[SelectionView, Integers, Integers, int, np.random.Generator], Integers]


def select_inside(rule: Rule) -> Callable[[SelectionView, np.random.Generator], Selection]:
    """The rule inside each site, with equal quotas, as the papers have it."""

    def select(view: SelectionView, rng: np.random.Generator) -> Selection:
        counts = equal_quota(view, np.zeros(0, dtype=np.float32), rng)
        parts = []
        for site, count in enumerate(counts.tolist()):
            places, labelled = view.at_site(site)
            parts.append(rule(view, places, labelled, min(count, len(places)), rng))
        return take(view, np.concatenate(parts))

    return select


def select_union(rule: Rule) -> Callable[[SelectionView, np.random.Generator], Selection]:
    """The rule over all sites at once, which needs embeddings to leave them."""

    def select(view: SelectionView, rng: np.random.Generator) -> Selection:
        places, labelled = np.flatnonzero(view.open), np.flatnonzero(view.labels >= 0)
        count = min(labels_affordable(view), len(places))
        return take(view, rule(view, places, labelled, count, rng))

    return select
