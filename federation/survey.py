"""A site's answers to a survey: sums over its samples, with or without a label.

    answer(spec, Question("patches", {}, seed, count_min), site_samples(data, spec))

Test examples stay out. Copies of one sample are one sample, and a sample without content (one
colour, no token) is none. A site with fewer than `SAMPLES_MIN` samples answers zeros; a sum that
fewer than `count_min` samples fill is left out, however many patches they have. Which patches are
looked at follows from the seed and the sample itself, so that an answer depends neither on the
order of the samples nor on their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from federation import survey_stages as stages
from federation.dataset import SiteData
from federation.errors import ReplyRefused
from federation.networks import INPUT_NAMES, NetworkSpec, input_shape, patch_side, pooled_width
from federation.operations import PATCH_VARIANCE_FLOOR
from federation.statistics import group_sums, nearest_cells
from federation.survey_stages import Question, SurveySums

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Keys = NDArray[np.uint64]
_BATCH_POSITIONS = 1 << 15
_BATCH_TEXTS = 1024
_TINY = 1e-9


def site_samples(data: SiteData, spec: NetworkSpec) -> NDArray[np.generic]:
    """Returns the model input of all samples that a site may learn from, labelled or not.

    Returns:
        float32[n, channels, ...] or, for texts, int64[n, longest].
    """
    name = INPUT_NAMES[spec.family]
    parts = [part.inputs[name] for part in (data.train, data.unlabelled) if len(part)]
    if not parts:
        shape = (0, *input_shape(spec))
        return np.zeros(shape, dtype=np.int64 if spec.family == "text" else np.float32)
    if spec.family != "text":
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(p, ((0, 0), (0, longest - p.shape[1]))) for p in parts])


def answer(spec: NetworkSpec, question: Question, samples: NDArray[np.generic]) -> SurveySums:
    """Answers one stage.

    Args:
        spec: A network with `fixed_width`.
        question: Stage and what it needs.
        samples: As `site_samples` returns them.

    Raises:
        RequestInvalid: The network has no such stage.
        ReplyRefused: The question's arrays would make sums longer than their counts.
    """
    layout = stages.sums_layout(spec, question.stage, question.cell_count)
    kept, keys = _distinct(samples)
    if len(kept) < max(stages.SAMPLES_MIN, question.count_min):
        return stages.no_sums(layout)
    return _ANSWERS[question.stage](spec, question, kept, keys)


def ask_of(
    spec: NetworkSpec, sites: list[NDArray[np.generic]], *, seed: int, count_min: int
) -> stages.Ask:
    """Returns what asks sites in memory, for simulations and tests."""

    def ask(stage: str, arrays: Mapping[str, Floats]) -> list[SurveySums]:
        question = Question(stage, arrays, seed, count_min)
        found = [answer(spec, question, samples) for samples in sites]
        return [one for one in found if one.sample_count]

    return ask


def _distinct(samples: NDArray[np.generic]) -> tuple[NDArray[np.generic], Keys]:
    """Drops copies and samples without content; returns the rest and a hash of each."""
    if not samples.size:
        return samples[:0], np.zeros(0, dtype=np.uint64)
    flat = samples.reshape(len(samples), -1)
    full = (flat != flat[:, :1]).any(axis=1) if flat.dtype.kind == "f" else (flat != 0).any(axis=1)
    flat, samples = flat[full], samples[full]
    bits = flat.view(np.uint32) if flat.dtype == np.float32 else flat
    weights = _mixed(np.arange(1, flat.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    parts = [
        (bits[start : start + 1024].astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
        for start in range(0, len(bits), 1024)
    ]
    keys = _mixed(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.uint64)
    first = np.sort(np.unique(keys, return_index=True)[1])
    return samples[first], keys[first]


def _mixed(values: Keys) -> Keys:
    """Scrambles 64-bit numbers one by one.

    Source: the output function of SplitMix64; Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", 2014.
    """
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def _patch_batches(
    spec: NetworkSpec, question: Question, samples: Floats, keys: Keys
) -> Iterator[Floats]:
    """Yields normalised patches float32[samples, patches, d] of some samples at a time."""
    side, axes = patch_side(spec), list(range(2, samples.ndim))
    grid = tuple(size - side + 1 for size in samples.shape[2:])
    count = int(np.prod(grid))
    batch = max(1, _BATCH_POSITIONS // count)
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        places = _positions(keys[start : start + batch], question.seed, count)
        windows: Floats = sliding_window_view(part, [side] * len(axes), axis=axes)  # type: ignore[call-overload]
        rows = np.arange(len(part))[:, None]
        index: tuple[Any, ...] = (rows, slice(None), *np.unravel_index(places, grid))
        yield normalised(windows[index].reshape(*places.shape, -1))


def normalised(patches: Floats) -> Floats:
    """Takes the mean from each patch and divides by its spread; float32[..., d].

    >>> normalised(np.float32([[0, 0.2], [3, 3]])).round(3).tolist()
    [[-0.707, 0.707], [0.0, 0.0]]
    """
    centred = patches - patches.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + PATCH_VARIANCE_FLOOR), dtype=np.float32)


def _positions(keys: Keys, seed: int, count: int) -> NDArray[np.intp]:
    """Chooses at most `PATCHES_MAX` of `count` positions for each sample, without repeats."""
    if count <= stages.PATCHES_MAX:
        return np.tile(np.arange(count), (len(keys), 1))
    own = _mixed(keys ^ _mixed(np.asarray([seed], dtype=np.uint64)))
    draws = _mixed(own[:, None] + np.arange(count, dtype=np.uint64))
    first = np.argpartition(draws, stages.PATCHES_MAX, axis=1)[:, : stages.PATCHES_MAX]
    return np.asarray(np.sort(first, axis=1), dtype=np.intp)


def _patches(spec: NetworkSpec, question: Question, samples: Floats, keys: Keys) -> SurveySums:
    width, count = stages.patch_width(spec), 0
    sums, moments = np.zeros(width), np.zeros((width, width))
    for part in _patch_batches(spec, question, samples, keys):
        rows = part.reshape(-1, width).astype(np.float64)
        count += len(rows)
        sums += rows.sum(axis=0)
        moments += rows.T @ rows
    return _summed(len(samples), np.array([count]), sums[None], moments)


def _filters(spec: NetworkSpec, question: Question, samples: Floats, keys: Keys) -> SurveySums:
    filters, mean = question.arrays["filters"], question.arrays["mean"]
    whitening, (groups, width) = question.arrays["whitening"], filters.shape
    counts, holders = np.zeros(groups, dtype=np.int64), np.zeros(groups, dtype=np.int64)
    sums = np.zeros((groups, width))
    for part in _patch_batches(spec, question, samples, keys):
        white = (part.reshape(-1, width) - mean) @ whitening
        white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), _TINY)
        nearest = (white @ filters.T).argmax(axis=1)
        counts += np.bincount(nearest, minlength=groups)
        _add_rows(sums, nearest, white)
        held = np.zeros((len(part), groups), dtype=bool)
        held[np.arange(len(part))[:, None], nearest.reshape(part.shape[:2])] = True
        holders += held.sum(axis=0)
    small = holders < question.count_min
    counts[small], sums[small] = 0, 0.0
    return _summed(len(samples), counts, sums)


def _responses(spec: NetworkSpec, question: Question, samples: Floats, keys: Keys) -> SurveySums:
    from federation import torch_engine

    del keys
    width = pooled_width(spec)
    device = torch_engine.choose_device("cpu")
    parameters = torch_engine.to_parameters(question.arrays, device)
    sums, moments = np.zeros(width), np.zeros((width, width))
    holders = np.zeros((width, width))
    for start in range(0, len(samples), 256):
        part = samples[start : start + 256]
        x = torch_engine.input_tensor(spec, {INPUT_NAMES[spec.family]: part}, device)
        rows = torch_engine.responses_rows(spec, parameters, x).numpy()
        sums += rows.sum(axis=0, dtype=np.float64)
        moments += rows.T @ rows
        filled = (rows > 0).astype(np.float32)
        holders += filled.T @ filled
    moments[holders < question.count_min] = 0.0
    sums[np.diag(holders) < question.count_min] = 0.0
    return _summed(len(samples), np.array([len(samples)]), sums[None], moments)


def _frequencies(
    spec: NetworkSpec, question: Question, samples: NDArray[np.int64], keys: Keys
) -> SurveySums:
    del keys
    counts = _holders(spec, samples)
    counts[counts < question.count_min] = 0
    counts[0] = len(samples)
    return _summed(len(samples), counts, np.zeros((len(counts), 0)))


def _directions(
    spec: NetworkSpec, question: Question, samples: NDArray[np.int64], keys: Keys
) -> SurveySums:
    del keys
    basis, rarity = question.arrays["basis"].astype(np.float64), question.arrays["rarity"]
    if np.linalg.norm(basis.T @ basis, 2) > 1.001 or (rarity < 0).any():
        raise ReplyRefused("the directions are longer than 1, or a weight is below 0")
    counts = _holders(spec, samples)
    counts[counts < question.count_min] = 0
    # On both sides of the moment: what few texts of this site hold is neither asked for nor told.
    basis = basis * (counts > 0)[:, None]
    sums = np.zeros(basis.shape)
    for start in range(0, len(samples), _BATCH_TEXTS):
        texts, buckets, times = _held(spec, samples[start : start + _BATCH_TEXTS])
        weights = times * rarity[buckets].astype(np.float64)
        lengths = np.sqrt(np.bincount(texts, weights=np.square(weights)))
        weights /= np.maximum(lengths, _TINY)[texts]
        size = (len(lengths), len(basis))
        projected = _applied(np.stack([texts, buckets]), weights, size, basis)
        sums += _applied(np.stack([buckets, texts]), weights, size[::-1], projected)
    sums[counts == 0] = 0.0
    return _summed(len(samples), counts, sums)


def _cells(
    spec: NetworkSpec, question: Question, samples: NDArray[np.generic], keys: Keys
) -> SurveySums:
    del keys
    book = question.arrays[stages.CELLS]
    rows = unit_columns(spec, question.arrays, samples)
    told = group_sums(
        rows, nearest_cells(rows, book), group_count=len(book), count_min=question.count_min
    )
    return _summed(len(samples), told.counts, told.sums.astype(np.float64))


def unit_columns(
    spec: NetworkSpec, arrays: Mapping[str, Floats], samples: NDArray[np.generic]
) -> Floats:
    """Returns the directions of the columns that the trained part takes, float32[n, width].

    Args:
        spec: A network with `fixed_width`.
        arrays: Parameters of its layer of features, if it has one.
        samples: As `site_samples` returns them.
    """
    from federation import torch_engine

    rows = np.asarray(samples, dtype=np.float32)
    if spec.unsupervised_width:
        device = torch_engine.choose_device("cpu")
        x = torch_engine.input_tensor(spec, {INPUT_NAMES[spec.family]: samples}, device)
        parameters = torch_engine.to_parameters(arrays, device)
        rows = torch_engine.features(spec, parameters, x).numpy()
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY))


def _holders(spec: NetworkSpec, samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many texts hold each bucket, int64[buckets]; 0 for the padding."""
    counts = np.zeros(spec.features.buckets, dtype=np.int64)
    for start in range(0, len(samples), _BATCH_TEXTS):
        _, buckets, _ = _held(spec, samples[start : start + _BATCH_TEXTS])
        counts += np.bincount(buckets, minlength=len(counts))
    return counts


def _held(
    spec: NetworkSpec, samples: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Doubles]:
    """Returns text, bucket and number of times of each pair that occurs."""
    places, columns = np.nonzero(samples)
    pairs = places * spec.features.buckets + samples[places, columns]
    found, times = np.unique(pairs, return_counts=True)
    return found // spec.features.buckets, found % spec.features.buckets, times.astype(np.float64)


def _applied(
    places: NDArray[np.int64], values: Doubles, size: tuple[int, int], rows: Doubles
) -> Doubles:
    """Applies the matrix of the values at (row, column), int64[2, n], to rows of numbers."""
    import torch

    at, held = torch.from_numpy(places), torch.from_numpy(values)
    matrix = torch.sparse_coo_tensor(at, held, size, check_invariants=True)
    return np.asarray(torch.sparse.mm(matrix, torch.from_numpy(rows)).numpy(), dtype=np.float64)


def _add_rows(sums: Doubles, groups: NDArray[np.int64], rows: NDArray[np.floating]) -> None:
    """Adds each row to the sum of its group, in place."""
    if not len(groups):
        return
    order = np.argsort(groups, kind="stable")
    told, starts = np.unique(groups[order], return_index=True)
    sums[told] += np.add.reduceat(rows[order].astype(np.float64), starts, axis=0)


def _summed(
    sample_count: int, counts: NDArray[np.int64], sums: Doubles, moments: Doubles | None = None
) -> SurveySums:
    second = np.zeros((0, 0)) if moments is None else moments
    return SurveySums(
        sample_count,
        counts.astype(np.int64),
        sums.astype(np.float32),
        second.astype(np.float32),
    )


_ANSWERS: dict[str, Callable[..., SurveySums]] = {
    stages.PATCHES: _patches,
    stages.FILTERS: _filters,
    stages.RESPONSES: _responses,
    stages.FREQUENCIES: _frequencies,
    stages.DIRECTIONS: _directions,
    stages.CELLS: _cells,
}
