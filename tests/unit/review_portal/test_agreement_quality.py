"""Gold items, self-consistency, alerts and calibration."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from review_portal.core.agreement_intervals import wilson
from review_portal.core.agreement_quality import (
    AlertKind,
    AlertRules,
    CheckedAnswer,
    accuracy,
    accuracy_by_class,
    accuracy_by_expert,
    quality_alerts,
)
from review_portal.core.calibration import (
    SettledSuggestion,
    _binomial_tail,
    expected_calibration_error,
    reliability_bins,
    supported_threshold,
)


def answers(expert: str, right: int, wrong: int) -> list[CheckedAnswer]:
    return [CheckedAnswer(expert, 1, 1)] * right + [CheckedAnswer(expert, 1, 0)] * wrong


def test_gold_accuracy_is_counted_for_each_expert_and_each_class():
    seen = [*answers("bob", 3, 1), *answers("ann", 4, 0), CheckedAnswer("ann", 2, 1)]
    assert list(accuracy_by_expert(seen)) == ["ann", "bob"]
    assert accuracy_by_expert(seen)["bob"].value == 0.75
    assert accuracy_by_class(seen)[2].value == 0.0
    assert accuracy(seen) == wilson(7, 9)


def test_no_answer_means_no_rate_and_no_alert():
    empty = accuracy([])
    assert empty.value is None
    assert not quality_alerts(alpha={}, gold={"ann": empty}, consistency={})


def test_each_threshold_raises_its_own_alert_worst_first():
    found = quality_alerts(
        alpha={"campaign": wilson(60, 100)},
        gold={"ann": wilson(10, 40), "bob": wilson(39, 40)},
        consistency={"ann": wilson(85, 100)},
    )
    assert [(a.kind, a.subject) for a in found] == [
        (AlertKind.GOLD, "ann"),
        (AlertKind.AGREEMENT, "campaign"),
        (AlertKind.CONSISTENCY, "ann"),
    ]
    assert found[0].is_certain
    assert not found[1].is_certain
    assert [a.threshold for a in found] == [0.8, 0.667, 0.9]


def test_a_value_on_the_threshold_raises_nothing():
    assert not quality_alerts(alpha={}, gold={"ann": wilson(32, 40)}, consistency={})


def test_small_counts_raise_nothing_unless_the_rules_say_so():
    few = {"ann": wilson(1, 19)}
    assert not quality_alerts(alpha={}, gold=few, consistency={})
    rules = AlertRules(unit_count_min=1)
    assert quality_alerts(alpha={}, gold=few, consistency={}, rules=rules)


confidences = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


@given(confidences, st.integers(1, 20))
def test_every_suggestion_falls_into_exactly_one_bin(pairs, bin_count):
    bins = reliability_bins([SettledSuggestion(c, r) for c, r in pairs], bin_count)
    assert len(bins) == bin_count
    assert sum(bar.accuracy.unit_count for bar in bins) == len(pairs)
    for bar in bins:
        if bar.mean_confidence is not None:
            assert bar.low - 1e-9 <= bar.mean_confidence <= bar.high + 1e-9


@given(confidences)
def test_the_calibration_error_equals_a_direct_computation(pairs):
    ours = expected_calibration_error(reliability_bins([SettledSuggestion(c, r) for c, r in pairs]))
    edges = np.clip(np.ceil(np.round(np.array([c for c, _ in pairs]) * 10, 9)) - 1, 0, 9)
    conf, right = np.array([c for c, _ in pairs]), np.array([float(r) for _, r in pairs])
    direct = sum(
        abs(conf[edges == b].mean() - right[edges == b].mean()) * (edges == b).mean()
        for b in range(10)
        if (edges == b).any()
    )
    assert ours.value == pytest.approx(direct, abs=1e-9)


def test_an_overconfident_model_shows_a_positive_gap():
    bins = reliability_bins([SettledSuggestion(0.95, k % 2 == 0) for k in range(100)])
    assert bins[9].gap == pytest.approx(0.45)
    assert bins[0].gap == 0.0
    assert not expected_calibration_error(reliability_bins([])).is_defined


def test_a_confidence_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"1\.2"):
        SettledSuggestion(1.2, True)
    with pytest.raises(ValueError, match="bins"):
        reliability_bins([], 0)


def test_auto_labels_need_evidence_and_a_calibrated_model_gives_it():
    chance = random.Random(2)
    drawn = [chance.uniform(0, 1) for _ in range(6000)]
    calibrated = [SettledSuggestion(c, chance.uniform(0, 1) < c) for c in drawn]
    threshold = supported_threshold(calibrated, accuracy_min=0.9)
    # Mean accuracy above t is (1 + t) / 2, so the true threshold is 0.8.
    assert 0.8 <= threshold <= 0.88
    assert supported_threshold(calibrated[:8], accuracy_min=0.9) is None
    blind = [SettledSuggestion(0.99, k % 2 == 0) for k in range(500)]
    assert supported_threshold(blind, accuracy_min=0.9) is None


def test_the_risk_of_a_threshold_that_is_too_low_stays_under_its_bound():
    chance, runs, wrong = random.Random(6), 200, 0
    for _ in range(runs):
        seen = [SettledSuggestion(0.9, chance.uniform(0, 1) < 0.88) for _ in range(300)]
        wrong += supported_threshold(seen, accuracy_min=0.9) is not None
    assert wrong / runs <= 0.05


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.01, 0.99))
def test_the_exact_binomial_tail_equals_scipys(successes, trials, probability):
    successes = min(successes, trials)
    reference = stats.binom.sf(successes - 1, trials, probability)
    assert _binomial_tail(successes, trials, probability) == pytest.approx(reference, abs=1e-9)


def test_the_binomial_tail_holds_for_large_counts():
    assert _binomial_tail(18_000, 20_001, 0.9) == pytest.approx(
        stats.binom.sf(17_999, 20_001, 0.9), abs=1e-9
    )
    assert _binomial_tail(10, 90_000, 0.9) == 1.0
    assert _binomial_tail(89_999, 90_000, 0.5) == 0.0
