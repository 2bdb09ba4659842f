"""What a site's unlabelled samples are worth as lessons: targets and weights. Pure numpy.

The shared model guesses the class of every sample of the pool; the guesses become better with what
only the site knows: which classes it holds (`adapted`), which samples lie close together (`graph`,
`spread`), and which cells of the shared code book hold one class only (`pure_cells`). Nothing here
leaves the site.

Shapes: n samples of the pool, m labelled ones, C classes, d embedding columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.statistics import Counts, Doubles, Floats, nearest_cells

PRIOR_STEPS = 8
PRIOR_FLOOR = 0.05
"""Share of the prior that all classes divide evenly: a class that nobody saw yet stays possible."""
LABEL_VOTES = 2.0
"""Votes of a labelled example for its class in the site's prior; a sample of the pool has one."""
NEIGHBOURS = 10
SPREAD_STEPS = 20
SPREAD_SHARE = 0.5
"""Share of a sample's belief that comes from its neighbours in each step of spreading."""
SHARPNESS = 2.0
COHESION_RAMP = 0.2
"""From the floor of cohesion to where guesses count in full."""
CELL_LABELS_MIN = 3
CALIBRATION_MIN = 5
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Lessons:
    """What to teach of the pool.

    Attributes:
        targets: float32[n, C], class probabilities.
        weights: float32[n], 0 to 1.
    """

    targets: Floats
    weights: Floats


def adapted(probabilities: Floats, labelled_counts: Counts, *, strength: float = 1.0) -> Doubles:
    """Probabilities of a pool under the site's own share of classes.

    The shares are estimated from the pool itself by expectation maximisation (Saerens, Latinne,
    Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", 2002),
    with the site's labels as votes.

    Args:
        probabilities: float32[n, C] of a model that was trained for even classes.
        labelled_counts: int64[C], the site's labels by class.
        strength: Exponent of the shares, 0 to 1; 0 leaves the probabilities as they are.

    >>> unsure = np.float32([[0.9, 0.1]] * 8 + [[0.45, 0.55]])
    >>> adapted(unsure, np.int64([4, 0]))[-1].argmax()
    np.int64(0)
    """
    guesses = np.asarray(probabilities, dtype=np.float64)
    rows, classes = guesses.shape
    labels = float(labelled_counts.sum())
    votes = labelled_counts / max(1.0, labels) * min(0.5 * rows, LABEL_VOTES * labels)
    shares = guesses.mean(axis=0)
    found = guesses
    for _ in range(PRIOR_STEPS):
        found = guesses * (shares * classes) ** strength
        found /= np.maximum(found.sum(axis=1, keepdims=True), _TINY)
        shares = found.sum(axis=0) + votes
        shares = (1 - PRIOR_FLOOR) * shares / shares.sum() + PRIOR_FLOOR / classes
    return found


def certainty(targets: NDArray[np.floating]) -> Floats:
    """One minus the entropy as a share of the largest possible, float32[n].

    Source: Iscen et al., "Label propagation for deep semi-supervised learning", 2019.

    >>> certainty(np.array([[1.0, 0.0], [0.5, 0.5]])).round(3).tolist()
    [1.0, 0.0]
    """
    entropies = -(targets * np.log(targets + _TINY)).sum(axis=1)
    ratio = np.clip(1 - entropies / np.log(targets.shape[1]), 0, 1)
    return np.asarray(ratio, dtype=np.float32)


def graph(rows: Floats, *, neighbours: int = NEIGHBOURS) -> Floats:
    """The normalised graph of nearest neighbours by cosine, float32[n, n], symmetric.

    >>> graph(np.float32([[1, 0], [1, 0.1], [0, 1]]), neighbours=1).shape
    (3, 3)
    """
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    closeness = np.maximum(unit @ unit.T, 0.0) ** 3
    np.fill_diagonal(closeness, 0.0)
    count = min(neighbours, len(rows) - 1)
    if count < 1:
        return np.zeros((len(rows), len(rows)), dtype=np.float32)
    kept = np.argpartition(-closeness, count - 1, axis=1)[:, :count]
    links = np.zeros_like(closeness)
    np.put_along_axis(links, kept, np.take_along_axis(closeness, kept, axis=1), axis=1)
    links = np.maximum(links, links.T)
    scale = np.maximum(links.sum(axis=1), _TINY) ** -0.5
    return np.asarray(links * scale[:, None] * scale, dtype=np.float32)


def spread(links: Floats, beliefs: NDArray[np.floating]) -> Doubles:
    """Beliefs after taking turns with the neighbours' beliefs; rows sum to 1.

    Source: Zhou et al., "Learning with local and global consistency", 2004.

    Args:
        links: float32[n, n] of `graph`.
        beliefs: float[n, C]: one-hot rows of labelled examples, guesses of the others.
    """
    found = np.asarray(beliefs, dtype=np.float32)
    start = found
    for _ in range(SPREAD_STEPS):
        found = SPREAD_SHARE * (links @ found) + (1 - SPREAD_SHARE) * start
    sharp = found.astype(np.float64) ** SHARPNESS
    return np.asarray(sharp / np.maximum(sharp.sum(axis=1, keepdims=True), _TINY))


def pure_cells(
    embedding: Floats, labelled: Floats, classes: Counts, code_book: Floats, *, class_count: int
) -> Counts:
    """Class of each sample whose cell's labelled members agree, -1 for the others; int64[n].

    A cell counts as pure with at least `CELL_LABELS_MIN` labelled examples of one class.

    Args:
        embedding: float32[n, d] of the pool.
        labelled: float32[m, d] of the site's labelled examples.
        classes: int64[m].
        code_book: float32[K, d], shared by all sites.
        class_count: C.

    >>> book = np.float32([[1, 0], [0, 1]])
    >>> pure_cells(book, np.float32([[1, 0.1]] * 3), np.int64([3, 3, 3]), book, class_count=4)
    array([ 3, -1])
    """
    if not len(code_book) or not len(labelled):
        return np.full(len(embedding), -1, dtype=np.int64)
    votes = np.zeros((len(code_book), class_count), dtype=np.int64)
    np.add.at(votes, (nearest_cells(labelled, code_book), classes), 1)
    total, top = votes.sum(axis=1), votes.max(axis=1)
    named = np.where((total == top) & (total >= CELL_LABELS_MIN), votes.argmax(axis=1), -1)
    return np.asarray(named[nearest_cells(embedding, code_book)], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest neighbours of n rows among m others.

    Attributes:
        places: int64[n, k], row numbers among the others.
        closeness: float32[n, k], cosine to the third power, 0 to 1.
    """

    places: Counts
    closeness: Floats


def nearest(rows: Floats, others: Floats, *, skip: int | None = None) -> Nearest:
    """The `NEIGHBOURS` nearest of `others` by cosine for each row.

    Args:
        rows: float32[n, d].
        others: float32[m, d], m at least 1.
        skip: Where given, row i is the same sample as `others[skip + i]`, and no neighbour of its.

    >>> nearest(np.float32([[1, 0]]), np.float32([[1, 0], [1, 1]]), skip=0).closeness.round(2)
    array([[0.35, 0.  ]], dtype=float32)
    """
    left, right = (
        part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), _TINY)
        for part in (rows, others)
    )
    closeness = np.maximum(left @ right.T, 0.0) ** 3
    if skip is not None:
        index = np.arange(len(rows))
        closeness[index, skip + index] = 0.0
    count = min(NEIGHBOURS, len(others))
    kept = np.argpartition(-closeness, count - 1, axis=1)[:, :count]
    return Nearest(kept, np.take_along_axis(closeness, kept, axis=1).astype(np.float32))


def agreement(
    near: Nearest, beliefs: NDArray[np.floating], guesses: NDArray[np.floating]
) -> Floats:
    """Share of the neighbours' beliefs that says what a sample's guess says, float32[n].

    Wrong guesses confirm each other where classes overlap; there neighbours disagree.

    Args:
        near: Neighbours of the n samples among m rows.
        beliefs: float[m, C], class probabilities of those rows.
        guesses: float[n, C].

    >>> near = Nearest(np.int64([[0, 1]]), np.float32([[1.0, 1.0]]))
    >>> agreement(near, np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.9, 0.1]])).tolist()
    [0.75]
    """
    votes = _votes(near, beliefs)
    votes /= np.maximum(votes.sum(axis=1, keepdims=True), _TINY)
    said = np.take_along_axis(votes, guesses.argmax(axis=1)[:, None], axis=1)
    return np.asarray(said[:, 0], dtype=np.float32)


def cohesion(near: Nearest, beliefs: NDArray[np.floating], guesses: NDArray[np.floating]) -> float:
    """How far near neighbours say the same, beyond what the classes' shares bring by chance.

    1 where samples lie in clusters of one guess each, about 0 where neighbours say as little of
    each other as any two samples. Learning from guesses helps in the first case, as it assumes that
    boundaries run where samples are few (Chapelle, Zien, "Semi-supervised classification by low
    density separation", 2005), and harms in the second. No label is needed to see it. Chance is
    corrected as in Cohen, "A coefficient of agreement for nominal scales", 1960.

    Args:
        near: Neighbours of the n samples among m rows.
        beliefs: float[m, C], class probabilities of those rows.
        guesses: float[n, C].

    >>> near = Nearest(np.int64([[1], [0], [3], [2]]), np.ones((4, 1), np.float32))
    >>> clustered = np.eye(2)[[0, 0, 1, 1]]
    >>> cohesion(near, clustered, clustered), cohesion(near, *[np.eye(2)[[0, 1, 0, 1]]] * 2)
    (1.0, -1.0)
    """
    said = float(agreement(near, beliefs, guesses).mean())
    chance = float(guesses.mean(axis=0)[guesses.argmax(axis=1)].mean())
    return (said - chance) / (1.0 - chance) if chance < 1.0 - _TINY else 0.0


def cohesion_share(value: float, floor: float) -> float:
    """How much guesses count at a cohesion, 0 to 1.

    >>> [round(cohesion_share(value, 0.4), 2) for value in (0.3, 0.5, 0.9)]
    [0.0, 0.5, 1.0]
    """
    return min(1.0, max(0.0, (value - floor) / COHESION_RAMP))


def _votes(near: Nearest, beliefs: NDArray[np.floating]) -> NDArray[np.float64]:
    votes = np.einsum("nk,nkc->nc", near.closeness, beliefs[near.places], dtype=np.float64)
    return np.asarray(votes, dtype=np.float64)


def trust(known: Floats, classes: Counts, pool: Floats, guesses: NDArray[np.floating]) -> float:
    """Share of labelled examples whose neighbours in the pool are guessed to be of their class.

    One example each way is added, so that few labels neither prove nor condemn.

    Args:
        known: float32[m, d], labelled rows.
        classes: int64[m].
        pool: float32[n, d].
        guesses: float[n, C].

    >>> rows = np.float32([[1, 0], [0, 1]])
    >>> trust(rows, np.int64([0, 1]), rows, np.eye(2))
    0.75
    """
    votes = _votes(nearest(known, pool), guesses)
    hits = int((votes.argmax(axis=1) == classes).sum())
    return (hits + 1) / (len(classes) + 2)


def class_thresholds(
    pool: NDArray[np.floating], known: NDArray[np.floating], classes: Counts, *, precision: float
) -> Doubles:
    """Least confidence at which a guess of each class is taught, float64[C].

    Where the model has learnt less, the bar is lower (Wang et al., "FreeMatch: self-adaptive
    thresholding for semi-supervised learning", 2023). Where the site has at least
    `CALIBRATION_MIN` calibration examples that the model takes for a class, the bar rises to the
    least confidence above which `precision` of them are right; above 1 where none reaches it.

    Args:
        pool: float[n, C], probabilities of the pool.
        known: float[k, C], probabilities of calibration examples.
        classes: int64[k], their classes.
        precision: Share of right guesses that is asked for.

    >>> pool = np.array([[0.9, 0.1], [0.6, 0.4]])
    >>> class_thresholds(pool, pool[:0], np.int64([]), precision=0.95).round(2).tolist()
    [0.75, 0.25]
    """
    shares = pool.mean(axis=0)
    bars = pool.max(axis=1).mean() * shares / max(float(shares.max()), _TINY)
    guessed, sure = known.argmax(axis=1), known.max(axis=1, initial=0.0)
    for index in range(pool.shape[1]):
        rows = np.flatnonzero(guessed == index)
        if len(rows) < CALIBRATION_MIN:
            continue
        order = rows[np.argsort(-sure[rows], kind="stable")]
        right = np.cumsum(classes[order] == index) / np.arange(1, len(order) + 1)
        good = np.flatnonzero(right >= precision)
        bars[index] = max(bars[index], sure[order[good[-1]]]) if len(good) else 2.0
    return np.asarray(bars, dtype=np.float64)


def above(probabilities: NDArray[np.floating], bars: Doubles) -> Lessons:
    """Hard lessons: the likeliest class where it passes its bar, weight 0 elsewhere.

    >>> above(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0.8, 0.8])).weights.tolist()
    [1.0, 0.0]
    """
    guessed = probabilities.argmax(axis=1)
    targets = np.eye(probabilities.shape[1], dtype=np.float32)[guessed]
    weights = probabilities.max(axis=1) >= bars[guessed]
    return Lessons(targets, weights.astype(np.float32))
