"""Noised counts become rows that stand in for samples; noise alone becomes none."""

from __future__ import annotations

import doctest

import numpy as np

from coordinator import stand_ins
from coordinator.core.allocation.noise import geometric_noise
from coordinator.core.records import COLUMN_WIDTHS
from coordinator.stand_ins import estimated_counts, stand_in_columns, stand_in_count


def noised(counts: np.ndarray, epsilon: float, seed: int) -> np.ndarray:
    noise = geometric_noise(counts.shape, epsilon=epsilon, rng=np.random.default_rng(seed))
    return counts + noise


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(stand_ins).failed == 0


def test_an_empty_pool_stays_nearly_empty():
    empty = np.zeros((256, 16), dtype=np.int64)
    counts = [stand_in_count(noised(empty, 0.5, seed), 0.5) for seed in range(20)]
    assert np.mean(counts) < 150, "4096 bins of noise, some 3000 rows if they were only cut at 0"


def test_a_pool_too_thin_for_any_cell_is_counted_by_its_scores():
    thin = np.random.default_rng(0).poisson(1.0, (256, 16)).astype(np.int64)
    thin[:, 12:] = 0
    found = estimated_counts(noised(thin, 0.5, 1), 0.5)
    assert abs(found.sum() - thin.sum()) < 0.2 * thin.sum()
    assert found[:, 12:].sum() < 0.1 * thin.sum(), "high scores are not made up"


def test_counts_above_the_noise_stay_in_their_cell():
    counts = np.zeros((8, 16), dtype=np.int64)
    counts[3, 15] = 400
    found = estimated_counts(noised(counts, 0.5, 2), 0.5)
    assert abs(found[3, 15] - 400) < 30
    assert found.sum() < 450


def test_rows_have_every_column_and_ids_of_their_own():
    counts = np.full((4, 16), 50, dtype=np.int64)
    columns = stand_in_columns(counts, 1.0, b"d" * 32)
    rows = stand_in_count(counts, 1.0)
    assert rows == 4 * 16 * 50
    assert {name: len(raw) for name, raw in columns.items()} == {
        name: rows * width for name, width in COLUMN_WIDTHS.items()
    }
    assert len({columns["candidate_ids"][i : i + 16] for i in range(0, 16 * rows, 16)}) == rows
    again = stand_in_columns(counts, 1.0, b"d" * 32)
    assert again == columns
    other = stand_in_columns(counts, 1.0, b"e" * 32)
    assert other["candidate_ids"][:16] != columns["candidate_ids"][:16]
    margins = np.frombuffer(columns["margins"], np.uint8)
    assert (margins.min(), margins.max()) == (2, 62)
