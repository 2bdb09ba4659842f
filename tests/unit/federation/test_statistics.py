"""Sums that sites report, and what the centre makes of them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from federation import statistics as stats
from federation.errors import ReplyRefused
from federation.reply_rules import check_sums
from federation.round_loop import sum_groups
from federation.statistics import GroupSums


def unit_rows(count: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_group_that_could_show_one_example_reports_nothing() -> None:
    rows, groups = unit_rows(5, 3, 0), np.int64([0, 0, 0, 1, 1])
    found = stats.group_sums(rows, groups, group_count=3, count_min=3)
    assert found.counts.tolist() == [3, 0, 0]
    assert not found.sums[1:].any()
    check_sums(found, 3)
    with pytest.raises(ReplyRefused, match="fewer than 3"):
        check_sums(GroupSums(np.int64([2]), np.zeros((1, 3), np.float32)), 3)


def test_a_sum_longer_than_its_count_is_refused() -> None:
    with pytest.raises(ReplyRefused, match="longer"):
        check_sums(GroupSums(np.int64([3]), np.float32([[9, 0, 0]])), 3)
    with pytest.raises(ReplyRefused, match="longer"):
        check_sums(GroupSums(np.int64([3]), np.float32([[np.nan, 0, 0]])), 3)


def test_prototypes_of_sums_over_sites_equal_prototypes_of_all_data() -> None:
    rows, classes = unit_rows(90, 4, 1), np.arange(90) % 3
    whole = stats.group_sums(rows, classes, group_count=4, count_min=1)
    parts = [
        stats.group_sums(rows[i::2], classes[i::2], group_count=4, count_min=1) for i in (0, 1)
    ]
    total = sum_groups(parts)
    assert total is not None
    assert stats.prototypes(total) == pytest.approx(stats.prototypes(whole), abs=1e-6)
    assert not stats.prototypes(whole)[3].any()


def test_a_code_book_spreads_over_clusters_within_a_few_rounds() -> None:
    rng = np.random.default_rng(2)
    centres = np.abs(unit_rows(8, 16, 3))
    rows = np.repeat(centres, 50, axis=0) + 0.02 * rng.standard_normal((400, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    book = stats.seeded_code_book(16, 16, seed=4)
    for _ in range(12):
        cells = stats.nearest_cells(rows, book)
        total = stats.group_sums(rows, cells, group_count=16, count_min=3)
        book = stats.next_code_book(book, total, rng)
    cells = stats.nearest_cells(rows, book)
    assert len(set(cells.tolist())) >= 8
    pure = [len(set((np.arange(400) // 50)[cells == c].tolist())) for c in set(cells.tolist())]
    assert max(pure) == 1
    assert np.linalg.norm(book, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_a_code_book_stays_where_nobody_reports() -> None:
    book = stats.seeded_code_book(5, 4, seed=1)
    nothing = GroupSums(np.zeros(5, np.int64), np.zeros((5, 4), np.float32))
    after = stats.next_code_book(book, nothing, np.random.default_rng(0))
    assert after == pytest.approx(book, abs=1e-6)


def test_scores_agree_with_a_known_library() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    actual, predicted = rng.integers(0, 6, 300), rng.integers(0, 6, 300)
    table = stats.class_table(predicted, actual, class_count=6)
    assert stats.accuracy(table) == pytest.approx(metrics.accuracy_score(actual, predicted))
    expected = metrics.f1_score(actual, predicted, average="macro")
    assert stats.macro_f1(table) == pytest.approx(expected)


def test_over_confident_scores_get_a_temperature_above_one() -> None:
    rng = np.random.default_rng(6)
    classes = rng.integers(0, 4, 4000)
    logits = rng.standard_normal((4000, 4)).astype(np.float32)
    logits[np.arange(4000), classes] += 1.0
    fits = np.arange(4000) % 2 == 0
    honest = stats.temperature_of(stats.calibration_sums(logits, classes, fits))
    loud = stats.temperature_of(stats.calibration_sums(4 * logits, classes, fits))
    assert loud[0] == pytest.approx(4 * honest[0], rel=0.2)
    assert loud[1] < 0.05


def test_too_few_examples_leave_the_temperature_at_one() -> None:
    found = stats.calibration_sums(
        np.zeros((4, 3), np.float32), np.int64([0, 1, 2, 0]), np.array([True, False, True, False])
    )
    assert stats.temperature_of(found) == (1.0, -1.0)


def test_a_site_without_test_examples_reports_zeros() -> None:
    nothing = stats.calibration_sums(
        np.zeros((0, 3), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    )
    assert nothing.loss_count == 0
    assert not nothing.bin_counts.any()
    assert stats.accuracy(np.zeros((3, 2), np.int64)) == 0.0


def judged(rows: int, loudness: float, seed: int) -> stats.Calibration:
    """Sums of a site whose logits are `loudness` times as large as they should be."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, (rows, 4))
    chances = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    classes = np.int64([rng.choice(4, p=p) for p in chances])
    fits = np.arange(rows) % 2 == 0
    return stats.calibration_sums((loudness * honest).astype(np.float32), classes, fits)


def test_a_site_is_drawn_from_the_shared_temperature_to_its_own_by_its_examples() -> None:
    found = [stats.site_temperature(judged(rows, 4.0, 7), 1.0) for rows in (20, 100, 4000)]
    assert found[0] == 1.0
    assert 1.0 < found[1] < found[2] == pytest.approx(4.0, rel=0.2)


def test_each_site_at_its_own_temperature_is_better_calibrated_than_all_at_one() -> None:
    sites = [judged(2000, 4.0, 8), judged(2000, 0.5, 9)]
    total = stats.Calibration(
        *(sum(getattr(site, f.name) for site in sites) for f in fields(stats.Calibration))
    )
    shared, _ = stats.temperature_of(total)
    own = [(site, stats.site_temperature(site, shared)) for site in sites]
    errors = [stats.calibration_error(site, temperature) for site, temperature in own]
    together = [stats.calibration_error(site, shared) for site in sites]
    assert max(errors) < 0.06 < min(together)
    assert stats.pooled_error(own) <= np.mean(errors) + 1e-9


def test_an_error_that_nobody_measured_is_unknown() -> None:
    nothing = judged(0, 1.0, 1)
    assert stats.calibration_error(nothing, 1.0) == -1.0
    assert stats.pooled_error([(nothing, 1.0)]) == -1.0
