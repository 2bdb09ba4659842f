"""The centre's side of a survey: sums of all sites in, a layer of features out.

    arrays = fit_features(spec, initial_arrays(spec, seed=7), ask, seed=7)

Images and series get a dictionary of patches (whitened, spherical k-means) and principal components
of its pooled responses; texts get the leading directions of their TF-IDF rows, by subspace
iteration. Pure apart from `ask`: all follows from the answers and the seed. `survey_stages` names
the sources.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from federation import survey_stages as stages
from federation.fixed_columns import fixed_width
from federation.layer_arrays import fixed_arrays
from federation.networks import Arrays, NetworkSpec, parameter_layout
from federation.statistics import GroupSums, next_code_book
from federation.survey_stages import Ask, SurveySums

FILTER_STEPS = 12
DIRECTION_STEPS = 5
CELL_STEPS = 12
WHITENING_FLOOR = 0.5
"""Added to the variances before whitening, so that directions of mere noise stay small."""
RESPONSE_BIAS = 1.0
"""Taken from each response before the rectifier: only patches like the filter answer."""
TEXT_COUNT_MIN = 2
"""N-grams that fewer texts hold get a zero row."""
_SPENT = 1e-6
"""Directions below this share of the greatest are rounding, since sums travel as float32."""
_TINY = 1e-12
Doubles = NDArray[np.float64]


def exchange_count(spec: NetworkSpec) -> int:
    """Returns how often a survey for a layer of features asks; `CELL_STEPS` more for cells."""
    if not spec.unsupervised_width:
        return 0
    return 1 + DIRECTION_STEPS if spec.family == "text" else 2 + FILTER_STEPS


def fit_features(spec: NetworkSpec, arrays: Arrays, ask: Ask, seed: int) -> Arrays:
    """Returns the parameters with the layer of features learned from the answers.

    Args:
        spec: A network with `unsupervised_width`.
        arrays: All its parameters.
        ask: Asks all sites one stage; returns the answers that hold any samples.
        seed: Fixes first filters and directions.

    Returns:
        New arrays, or `arrays` as they are where no site had samples for a stage.
    """
    fit = _fit_texts if spec.family == "text" else _fit_patches
    found = fit(spec, ask, np.random.default_rng([seed, 5]))
    if found is None:
        return arrays
    return {name: found.get(name, array) for name, array in arrays.items()}


def fit_cells(
    spec: NetworkSpec, arrays: Arrays, ask: Ask, count: int, seed: int
) -> NDArray[np.float32] | None:
    """Returns the centres of cells of alike samples, unit rows float32[count, fixed_width].

    Spherical k-means over the unit columns that the trained part takes. Samples near a centre are
    typical of many others.

    Args:
        spec: A network with `fixed_width`.
        arrays: All its parameters; a layer of features should be a fitted one.
        ask: Asks all sites one stage; returns the answers that hold any samples.
        count: Cells, 1 to `survey_stages.CELLS_MAX`.
        seed: Fixes the first centres.

    Returns:
        The centres, or None where no site had samples.

    Source: Mohr and Weinshall, "Coordination on a budget", for first labels near the centres of
    cells that all sites share.
    """
    rng = np.random.default_rng([seed, 6])
    cells = _first_centres(rng, count, fixed_width(spec))
    layer = fixed_arrays(arrays, spec)
    for _ in range(CELL_STEPS):
        total = added(ask(stages.CELLS, {**layer, stages.CELLS: cells}))
        if total is None or not total.counts.any():
            return None
        cells = next_code_book(cells, GroupSums(total.counts, total.sums), rng)
    return cells


def _fit_patches(spec: NetworkSpec, ask: Ask, rng: np.random.Generator) -> Arrays | None:
    patches = added(ask(stages.PATCHES, {}))
    if patches is None or not patches.counts[0]:
        return None
    mean, covariance = moments_of(patches)
    whitening = whitening_of(covariance)
    filters = _filters(spec, ask, {"mean": mean, "whitening": whitening}, rng)
    shape = parameter_layout(spec)["dictionary.weight"]
    weight = filters @ whitening
    found = {
        "dictionary.weight": _float32(weight.reshape(shape)),
        "dictionary.bias": _float32(-(weight @ mean) - RESPONSE_BIAS),
    }
    responses = added(ask(stages.RESPONSES, found))
    if responses is None or not responses.counts[0]:
        return None
    return found | _components(*moments_of(responses), spec.unsupervised_width)


def _filters(
    spec: NetworkSpec, ask: Ask, frame: dict[str, Doubles], rng: np.random.Generator
) -> Doubles:
    """Spherical k-means over the sites' whitened patches; unit rows float64[K, d]."""
    filters = _first_centres(rng, spec.filter_count, stages.patch_width(spec))
    sent = {name: _float32(array) for name, array in frame.items()}
    for _ in range(FILTER_STEPS):
        total = added(ask(stages.FILTERS, {**sent, "filters": filters}))
        if total is not None:
            filters = next_code_book(filters, GroupSums(total.counts, total.sums), rng)
    return filters.astype(np.float64)


def _first_centres(rng: np.random.Generator, count: int, width: int) -> NDArray[np.float32]:
    """Draws unit rows float32[count, width] in all directions alike."""
    rows = rng.standard_normal((count, width))
    return _float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _fit_texts(spec: NetworkSpec, ask: Ask, rng: np.random.Generator) -> Arrays | None:
    held = added(ask(stages.FREQUENCIES, {}))
    if held is None or not held.counts[0]:
        return None
    rarity = rarity_of(held.counts)
    basis = rng.standard_normal((spec.features.buckets, spec.unsupervised_width))
    basis = _orthonormal(basis * (rarity > 0)[:, None])
    for step in range(DIRECTION_STEPS):
        sent = {"rarity": _float32(rarity), "basis": _float32(basis)}
        total = added(ask(stages.DIRECTIONS, sent))
        if total is None:
            return None
        image = total.sums.astype(np.float64)
        basis = _ordered(basis, image) if step + 1 == DIRECTION_STEPS else _orthonormal(image)
    return {"tokens.weight": _float32(rarity[:, None] * basis)}


def added(answers: Sequence[SurveySums]) -> SurveySums | None:
    """Adds the sites' answers; None for none.

    >>> one = SurveySums(30, np.int64([2]), np.float32([[1]]), np.float32([[3]]))
    >>> added([one, one]).sums.tolist(), added([]) is None
    ([[2.0]], True)
    """
    if not answers:
        return None
    return SurveySums(
        sum(one.sample_count for one in answers),
        np.sum([one.counts for one in answers], axis=0, dtype=np.int64),
        _float32(np.sum([one.sums for one in answers], axis=0, dtype=np.float64)),
        _float32(np.sum([one.moments for one in answers], axis=0, dtype=np.float64)),
    )


def moments_of(total: SurveySums) -> tuple[Doubles, Doubles]:
    """Returns mean float64[d] and covariance float64[d, d] of the rows behind a sum.

    >>> total = SurveySums(30, np.int64([2]), np.float32([[2]]), np.float32([[4]]))
    >>> [found.tolist() for found in moments_of(total)]
    [[1.0], [[1.0]]]
    """
    count = float(total.counts[0])
    mean = total.sums[0].astype(np.float64) / count
    second = total.moments.astype(np.float64) / count
    covariance = (second + second.T) / 2 - np.outer(mean, mean)
    return mean, covariance


def whitening_of(covariance: Doubles) -> Doubles:
    """Returns the symmetric (ZCA) whitening of a covariance, float64[d, d].

    >>> whitening_of(np.eye(2) * 3.5).round(6).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    values, vectors = np.linalg.eigh(covariance)
    shrunk = 1.0 / np.sqrt(np.maximum(values, 0.0) + WHITENING_FLOOR)
    return np.asarray((vectors * shrunk) @ vectors.T)


def rarity_of(counts: NDArray[np.int64]) -> Doubles:
    """Returns how much an n-gram says: the log of the texts over those that hold it, float64[b].

    Args:
        counts: Texts that hold each bucket; at 0, where the padding is, the number of all texts.

    >>> rarity_of(np.int64([9, 1, 9, 4])).round(2).tolist()
    [0.0, 0.0, 1.0, 1.69]
    """
    rarity = 1.0 + np.log((1.0 + counts[0]) / (1.0 + counts))
    return np.asarray(np.where(counts < TEXT_COUNT_MIN, 0.0, rarity) * (np.arange(len(counts)) > 0))


def _components(mean: Doubles, covariance: Doubles, width: int) -> Arrays:
    """Principal components as a projection whose columns have variance 1 on average.

    Rows beyond the rank, where a network asks for more columns than there are, are zero.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1][:width], 0.0), vectors[:, ::-1][:, :width]
    scale = np.sqrt(max(float(values.mean()), _TINY))
    projection = np.zeros((width, len(mean)))
    projection[: len(values)] = _signed(vectors).T / scale
    return {
        "projection.weight": _float32(projection),
        "projection.bias": _float32(-(projection @ mean)),
    }


def _orthonormal(columns: Doubles) -> Doubles:
    """Returns an orthonormal basis of the columns; rows of zeros and spent columns are zero."""
    basis, upper = np.linalg.qr(columns)
    sizes = np.abs(np.diag(upper))
    basis = basis * (sizes > _SPENT * max(float(sizes.max(initial=0.0)), _TINY))
    return np.asarray(basis * (np.abs(columns).max(axis=1, keepdims=True) > 0))


def _ordered(basis: Doubles, image: Doubles) -> Doubles:
    """Turns a basis to its Ritz vectors, the largest value first; directions without any are 0."""
    turned = basis.T @ image
    values, vectors = np.linalg.eigh((turned + turned.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > _SPENT * max(float(values[0]), _TINY)
    held = np.abs(image).max(axis=1, keepdims=True) > 0
    return np.asarray(_signed(basis @ (vectors * kept)) * held)


def _signed(columns: Doubles) -> Doubles:
    """Gives each column the sign that makes its largest entry positive: eigenvectors have none."""
    largest = np.abs(columns).argmax(axis=0)
    signs = np.sign(columns[largest, np.arange(columns.shape[1])])
    return np.asarray(columns * np.where(signs == 0, 1.0, signs))


def _float32(array: Doubles) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, dtype=np.float32)
