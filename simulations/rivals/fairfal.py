"""FairFAL: class-fair selection with an adaptive query model.

"Class-fair federated active learning", CVPR 2026, arXiv 2603.10341: the query model is the shared
or the local one by how much they differ and how imbalanced the federation is; the quota is split
equally over pseudo-classes; inside a class, uncertain samples first, then diverse ones.
"""

from __future__ import annotations

import numpy as np

from edge_agent.geometry import nearest_prototype
from edge_agent.scoring import entropy
from simulations.quotas import share_out
from simulations.rivals.geometry import Floats, Integers, filled_up, k_centres
from simulations.view import SelectionView

QUERY_BAR = 0.75
CANDIDATE_FACTOR = 4


def rank_fairfal(
    view: SelectionView, places: Integers, labelled: Integers, count: int, rng: np.random.Generator
) -> Integers:
    """Equal quota per pseudo-class, four times too many by entropy, then k-centres."""
    del rng
    if not len(places) or count <= 0:
        return places[:0]
    shared = similarity(view, labelled) > QUERY_BAR
    source = view.probabilities if shared else view.local.probabilities
    scores = entropy(source[places])
    pseudo = nearest_prototype(
        view.embedding[places],
        view.model.prototypes,
        fallback=source[places].argmax(axis=1).astype(np.uint16),
    )
    quota = class_quota(pseudo.astype(np.int64), count, view.class_count)
    chosen: list[int] = []
    for group in np.flatnonzero(quota).tolist():
        members = np.flatnonzero(pseudo == group)
        wanted = int(quota[group])
        likely = members[np.argsort(-scores[members], kind="stable")][: CANDIDATE_FACTOR * wanted]
        anchors = labelled[view.labels[labelled] == group]
        picked = k_centres(
            _gradient_rows(view, places[likely]), _gradient_rows(view, anchors), wanted
        )
        chosen += likely[picked].tolist()
    return places[filled_up(np.asarray(chosen, dtype=np.int64), scores, count)]


def class_quota(pseudo: Integers, count: int, classes: int) -> Integers:
    """Equal shares over the pseudo-classes; what a short class leaves goes to the others.

    >>> class_quota(np.array([0, 1, 1, 1]), 3, 2).tolist()
    [1, 2]
    """
    sizes = np.bincount(pseudo, minlength=classes)
    return share_out(np.ones(classes), count, sizes)


def similarity(view: SelectionView, labelled: Integers) -> float:
    """S of a site: one less the mean of model difference and federation balance gamma."""
    if "gamma" not in view.notes:
        view.notes["gamma"] = _gamma(view)
    if not len(labelled):
        return 1.0
    shared = _balanced_mean(view, view.probabilities, labelled)
    local = _balanced_mean(view, view.local.probabilities, labelled)
    difference = float((np.abs(shared - local) / (shared + local + 1e-9)).mean())
    return 1.0 - (difference + view.notes["gamma"]) / 2.0


def _gamma(view: SelectionView) -> float:
    """Mean over sites of smallest over largest mean probability on class-balanced labels."""
    found = []
    for site in range(view.site_count):
        _, labelled = view.at_site(site)
        if len(labelled):
            mean = _balanced_mean(view, view.probabilities, labelled)
            found.append(float(mean.min() / max(float(mean.max()), 1e-9)))
    return float(np.mean(found)) if found else 1.0


def _balanced_mean(view: SelectionView, probabilities: Floats, labelled: Integers) -> Floats:
    """Mean probabilities over labelled samples, every class of equal weight."""
    labels = view.labels[labelled]
    rows = [probabilities[labelled[labels == c]].mean(axis=0) for c in np.unique(labels)]
    return np.asarray(np.mean(rows, axis=0), dtype=np.float32)


def _gradient_rows(view: SelectionView, places: Integers) -> Floats:
    """Gradient embeddings, the predicted class's block: features scaled by the doubt."""
    doubt = 1.0 - view.probabilities[places].max(axis=1, keepdims=True)
    return np.asarray(view.embedding[places] * doubt, dtype=np.float32)
