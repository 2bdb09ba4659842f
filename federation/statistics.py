"""Sums that sites report and what the centre makes of them. Pure numpy, no torch.

Every statistic is a count or a sum over at least `group_count_min` examples; smaller groups report
zero, so that no sum shows a single embedding. Sums of all sites add up, and only then become
prototypes, a code book, a temperature or an accuracy.

Shapes: C classes, d embedding columns, K cells, G = `TEMPERATURES`, B = `RELIABILITY_BINS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]

TEMPERATURES: Doubles = np.geomspace(0.25, 8.0, 26).astype(np.float64)
"""Temperatures that sites try; 1 lies between two of them and is added by the centre."""
RELIABILITY_BINS = 15
FEWEST_FITTED = 20
"""With fewer calibration examples no temperature is fitted."""
PRIOR_COUNT = 50.0
"""Examples at which a site's own temperature counts as much as the shared one."""
SPLIT_COUNT_MIN = 6
"""A cell with fewer examples is not split: its halves could not be reported."""
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Counts int64[groups] and sums float32[groups, d] of unit embeddings."""

    counts: Counts
    sums: Floats


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a site measures on its calibration examples and on the rest of its test split.

    Attributes:
        loss_sums: float64[G], negative log likelihood of the calibration part per temperature.
        loss_count: Examples behind the loss sums.
        bin_counts: int64[G, B], examples of the measuring part per confidence bin.
        bin_confidences: float64[G, B], sum of their confidences.
        bin_correct: int64[G, B], how many of them were right.
    """

    loss_sums: Doubles
    loss_count: int
    bin_counts: Counts
    bin_confidences: Doubles
    bin_correct: Counts


def group_sums(embedding: Floats, groups: Counts, *, group_count: int, count_min: int) -> GroupSums:
    """Sums unit embeddings by group and drops groups below the count.

    Args:
        embedding: float32[n, d]; rows longer than 1 are clipped to length 1.
        groups: int64[n], group of each row.
        group_count: Number of groups.
        count_min: Groups with fewer rows report zero.

    >>> rows, groups = np.float32([[3, 0], [0, 1]]), np.int64([0, 0])
    >>> found = group_sums(rows, groups, group_count=2, count_min=2)
    >>> found.counts.tolist(), found.sums.tolist()
    ([2, 0], [[1.0, 1.0], [0.0, 0.0]])
    """
    lengths = np.linalg.norm(embedding, axis=1, keepdims=True)
    clipped = embedding / np.maximum(lengths, 1.0)
    counts = np.bincount(groups, minlength=group_count).astype(np.int64)
    sums = np.zeros((group_count, embedding.shape[1]), dtype=np.float64)
    np.add.at(sums, groups, clipped)
    small = counts < count_min
    counts[small] = 0
    sums[small] = 0.0
    return GroupSums(counts, sums.astype(np.float32))


def nearest_cells(embedding: Floats, code_book: Floats) -> Counts:
    """Returns the row of the code book with the largest cosine, int64[n].

    >>> nearest_cells(np.float32([[0, 1]]), np.float32([[1, 0], [0, 2]])).tolist()
    [1]
    """
    centres = code_book / np.maximum(np.linalg.norm(code_book, axis=1, keepdims=True), _TINY)
    return np.asarray((embedding @ centres.T).argmax(axis=1), dtype=np.int64)


def prototypes(total: GroupSums) -> Floats:
    """Federated class means on the unit sphere; a class that nobody reported is a zero row.

    >>> prototypes(GroupSums(np.int64([2, 0]), np.float32([[2, 0], [0, 0]]))).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(total.sums, axis=1, keepdims=True)
    return np.where(lengths > _TINY, total.sums / np.maximum(lengths, _TINY), 0).astype(np.float32)


def next_code_book(code_book: Floats, total: GroupSums, rng: np.random.Generator) -> Floats:
    """One step of federated spherical k-means (Lloyd), with splitting of crowded cells.

    A cell that nobody reported moves beside the most crowded cell that was not split yet and holds
    more than its fair share (Linde, Buzo, Gray, "An algorithm for vector quantizer design", 1980),
    so that a code book drawn at random spreads over the data within a few rounds. Cells stay while
    nothing is crowded.
    """
    moved = prototypes(total)
    reported = np.linalg.norm(moved, axis=1) > _TINY
    book = np.where(reported[:, None], moved, code_book).astype(np.float32)
    crowded = np.argsort(-total.counts, kind="stable")
    fair = max(SPLIT_COUNT_MIN, 1.5 * total.counts.sum() / max(1, len(book)))
    crowded = crowded[total.counts[crowded] >= fair]
    for empty, full in zip(np.flatnonzero(~reported), crowded, strict=False):
        step = rng.standard_normal(book.shape[1]).astype(np.float32)
        book[empty] = book[full] + 0.1 * step / np.linalg.norm(step)
    lengths = np.linalg.norm(book, axis=1, keepdims=True)
    return np.asarray(book / np.maximum(lengths, _TINY), dtype=np.float32)


def seeded_code_book(cell_count: int, width: int, *, seed: int) -> Floats:
    """Unit rows in the positive orthant, where rectified embeddings lie; float32[cells, width].

    >>> seeded_code_book(4, 2, seed=1).shape
    (4, 2)
    """
    rng = np.random.default_rng(seed)
    rows = np.abs(rng.standard_normal((cell_count, width)))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    return np.asarray(rows, dtype=np.float32)


def class_table(predicted: Counts, actual: Counts, *, class_count: int) -> Counts:
    """Counts of right, predicted and actual examples per class, int64[3, C].

    >>> class_table(np.int64([0, 1]), np.int64([0, 0]), class_count=2).tolist()
    [[1, 0], [1, 1], [2, 0]]
    """
    right = actual[predicted == actual]
    parts = (right, predicted, actual)
    return np.stack([np.bincount(part, minlength=class_count) for part in parts]).astype(np.int64)


def accuracy(table: Counts) -> float:
    """Share of right examples of a class table; 0 for no examples.

    >>> accuracy(np.int64([[1, 0], [1, 1], [2, 0]]))
    0.5
    """
    return float(table[0].sum() / max(1, table[2].sum()))


def f1_scores(table: Counts) -> Doubles:
    """F1 of each class, float64[C]; 0 for a class that is neither present nor predicted.

    >>> f1_scores(np.int64([[1, 0], [1, 1], [2, 0]])).round(2).tolist()
    [0.67, 0.0]
    """
    total = table[1] + table[2]
    return np.asarray(2.0 * table[0] / np.maximum(total, 1), dtype=np.float64)


def macro_f1(table: Counts) -> float:
    """Mean F1 over the classes that the test examples hold; 0 for no examples.

    >>> round(macro_f1(np.int64([[1, 0], [1, 1], [2, 0]])), 2)
    0.67
    """
    present = table[2] > 0
    return float(f1_scores(table)[present].mean()) if present.any() else 0.0


def calibration_sums(logits: Floats, classes: Counts, fits: NDArray[np.bool_]) -> Calibration:
    """Measures every temperature: losses on rows where `fits`, reliability on the other rows.

    Args:
        logits: float32[n, C].
        classes: int64[n].
        fits: bool[n].
    """
    losses = np.zeros(len(TEMPERATURES))
    counts = np.zeros((len(TEMPERATURES), RELIABILITY_BINS), dtype=np.int64)
    confidences, correct = np.zeros(counts.shape), counts.copy()
    for i, temperature in enumerate(TEMPERATURES):
        log_probabilities = _log_softmax(logits / temperature)
        own = log_probabilities[np.arange(len(classes)), classes]
        losses[i] = -own[fits].sum()
        top = np.exp(log_probabilities[~fits].max(axis=1, initial=-np.inf))
        bins = np.minimum((top * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
        right = log_probabilities[~fits].argmax(axis=1) == classes[~fits]
        counts[i] = np.bincount(bins, minlength=RELIABILITY_BINS)
        confidences[i] = np.bincount(bins, weights=top, minlength=RELIABILITY_BINS)
        correct[i] = np.bincount(bins, weights=right, minlength=RELIABILITY_BINS)
    return Calibration(losses, int(fits.sum()), counts, confidences, correct)


def temperature_of(total: Calibration) -> tuple[float, float]:
    """Returns temperature and expected calibration error of summed calibrations.

    With fewer than `FEWEST_FITTED` examples the temperature is 1 and the error -1 (unknown).
    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    if total.loss_count < FEWEST_FITTED:
        return 1.0, -1.0
    best = int(total.loss_sums.argmin())
    return float(TEMPERATURES[best]), calibration_error(total, float(TEMPERATURES[best]))


def site_temperature(own: Calibration, shared: float) -> float:
    """Returns the temperature of one site: its own fit, drawn towards the shared one.

    With n examples the fit weighs n / (n + `PRIOR_COUNT`) on the logarithmic scale; below
    `FEWEST_FITTED` the shared one stays. The result lies on the grid, so that the site's bins say
    what its error is there.

    >>> few = Calibration(np.zeros(26), 3, *(np.zeros((26, 15), dtype=np.int64),) * 3)
    >>> site_temperature(few, 1.5)
    1.5
    """
    if own.loss_count < FEWEST_FITTED:
        return shared
    weight = own.loss_count / (own.loss_count + PRIOR_COUNT)
    fitted = float(TEMPERATURES[int(own.loss_sums.argmin())])
    wanted = weight * np.log(fitted) + (1.0 - weight) * np.log(shared)
    return float(TEMPERATURES[_nearest(float(np.exp(wanted)))])


def calibration_error(total: Calibration, temperature: float) -> float:
    """Expected calibration error at the grid's nearest temperature, -1 where nothing was measured.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", 2015.
    """
    place = _nearest(temperature)
    measured = int(total.bin_counts[place].sum())
    if not measured:
        return -1.0
    return float(np.abs(total.bin_confidences[place] - total.bin_correct[place]).sum() / measured)


def pooled_error(parts: Sequence[tuple[Calibration, float]]) -> float:
    """Expected calibration error over all sites, each at its own temperature; -1 when unknown."""
    places = [(part, _nearest(temperature)) for part, temperature in parts]
    measured = sum(int(part.bin_counts[place].sum()) for part, place in places)
    if not measured:
        return -1.0
    gaps = np.sum([part.bin_confidences[p] - part.bin_correct[p] for part, p in places], axis=0)
    return float(np.abs(gaps).sum() / measured)


def _nearest(temperature: float) -> int:
    return int(np.abs(np.log(TEMPERATURES) - np.log(temperature)).argmin())


def _log_softmax(logits: NDArray[np.floating]) -> Doubles:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
