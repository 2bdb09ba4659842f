"""Strategies that rank: one score, one budget over all sites or a quota for each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_agent import scoring
from simulations import quotas
from simulations.view import Floats, Integers, Selection, SelectionView

Scorer = Callable[[SelectionView, np.random.Generator], Floats]
Quota = Callable[[SelectionView, Floats, np.random.Generator], Integers]


def random_scores(view: SelectionView, rng: np.random.Generator) -> Floats:
    """Uniform scores."""
    return scoring.random(len(view.sites), rng=rng)


def entropy_scores(view: SelectionView, rng: np.random.Generator) -> Floats:
    """Entropy of the shared model."""
    del rng
    return scoring.entropy(view.probabilities)


def margin_scores(view: SelectionView, rng: np.random.Generator) -> Floats:
    """Margin of the shared model."""
    del rng
    return scoring.margin(view.probabilities)


def least_confidence_scores(view: SelectionView, rng: np.random.Generator) -> Floats:
    """Least confidence of the shared model."""
    del rng
    return scoring.least_confidence(view.probabilities)


def select_global(scorer: Scorer) -> Callable[[SelectionView, np.random.Generator], Selection]:
    """The best scores anywhere, whatever site they lie at (global top-k)."""

    def select(view: SelectionView, rng: np.random.Generator) -> Selection:
        places = np.flatnonzero(view.open)
        ranked = places[_descending(scorer(view, rng)[places], rng)]
        return take(view, ranked)

    return select


def select_by_site(
    scorer: Scorer, quota: Quota
) -> Callable[[SelectionView, np.random.Generator], Selection]:
    """The best scores of each site, as many as its quota says."""

    def select(view: SelectionView, rng: np.random.Generator) -> Selection:
        scores = scorer(view, rng)
        counts = quota(view, scores, rng)
        parts = []
        for site in range(view.site_count):
            places, _ = view.at_site(site)
            order = _descending(scores[places], rng)
            parts.append(places[order[: int(counts[site])]])
        return take(view, np.concatenate(parts))

    return select


def take(view: SelectionView, ranked: Integers) -> Selection:
    """Walks a ranking and takes what fits the budget and the experts of each site."""
    left, room = view.budget, view.capacity.tolist()
    costs = view.costs
    taken = []
    for place in ranked.tolist():
        site, cost = int(view.sites[place]), int(costs[place])
        if room[site] > 0 and cost <= left:
            room[site] -= 1
            left -= cost
            taken.append(place)
        if left <= 0:
            break
    return Selection(np.asarray(taken, dtype=np.int64), np.zeros(len(taken)))


def site_limits(view: SelectionView) -> Integers:
    """int64[sites], labels that each site can give: its experts' and its pool's limit."""
    sizes = np.bincount(view.sites[view.open], minlength=view.site_count)
    return np.minimum(sizes, view.capacity).astype(np.int64)


def labels_affordable(view: SelectionView) -> int:
    """Labels that the budget pays for at the pool's mean cost."""
    if not view.open.any():
        return 0
    return int(view.budget / float(view.costs[view.open].mean()))


def equal_quota(view: SelectionView, scores: Floats, rng: np.random.Generator) -> Integers:
    """The same number of labels for every site."""
    del scores, rng
    sizes = np.bincount(view.sites[view.open], minlength=view.site_count)
    return quotas.equal(sizes, labels_affordable(view), site_limits(view))


def proportional_quota(view: SelectionView, scores: Floats, rng: np.random.Generator) -> Integers:
    """In proportion to the open pool."""
    del scores, rng
    sizes = np.bincount(view.sites[view.open], minlength=view.site_count)
    return quotas.proportional(sizes, labels_affordable(view), site_limits(view))


def square_root_quota(view: SelectionView, scores: Floats, rng: np.random.Generator) -> Integers:
    """In proportion to the root of the open pool."""
    del scores, rng
    sizes = np.bincount(view.sites[view.open], minlength=view.site_count)
    return quotas.square_root(sizes, labels_affordable(view), site_limits(view))


def neyman_quota(view: SelectionView, scores: Floats, rng: np.random.Generator) -> Integers:
    """In proportion to pool size times the spread of the scores."""
    del rng
    sizes = np.bincount(view.sites[view.open], minlength=view.site_count)
    spread = np.array(
        [float(scores[view.at_site(s)[0]].std()) if sizes[s] else 0.0 for s in range(len(sizes))]
    )
    return quotas.neyman(sizes, spread, labels_affordable(view), site_limits(view))


def water_quota(view: SelectionView, scores: Floats, rng: np.random.Generator) -> Integers:
    """To equal labelled counts."""
    del scores, rng
    labelled = np.bincount(view.sites[view.labels >= 0], minlength=view.site_count)
    return quotas.water_filling(labelled, labels_affordable(view), site_limits(view))


def thompson_quota(view: SelectionView, scores: Floats, rng: np.random.Generator) -> Integers:
    """By each site's chance that the shared model is wrong on its labels."""
    del scores
    labelled = np.flatnonzero(view.labels >= 0)
    wrong = view.probabilities[labelled].argmax(axis=1) != view.labels[labelled]
    sites = view.sites[labelled]
    wins = np.bincount(sites[wrong], minlength=view.site_count).astype(np.float64)
    losses = np.bincount(sites[~wrong], minlength=view.site_count).astype(np.float64)
    return quotas.thompson(wins, losses, labels_affordable(view), site_limits(view), rng)


def _descending(scores: NDArray[np.floating], rng: np.random.Generator) -> Integers:
    """Order by score, chance among equals."""
    return np.asarray(np.lexsort((rng.random(len(scores)), -scores)), dtype=np.int64)
