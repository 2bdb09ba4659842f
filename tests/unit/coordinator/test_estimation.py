"""The live accuracy estimate is unbiased and its interval keeps its promise."""

import doctest
from dataclasses import replace

import allocation_pools
import numpy as np
import pytest

from coordinator import advice
from coordinator.advice import stop_advice
from coordinator.core import estimation, stability, stopping, trust
from coordinator.core.allocation.chance import draw_key
from coordinator.core.allocation.explore import draw_explore
from coordinator.core.allocation.pool import SCORE_LEVELS
from coordinator.core.estimation import ExploreLabels, confidence_sequence, report_accuracy
from coordinator.core.stability import ChangedLabels, compare_predictions, gain_interval
from coordinator.core.stopping import CycleRecord, StopRule, advise
from coordinator.core.trust import site_trust

SITES, CLASSES = 4, 3


class Population:
    """A fully labelled pool, a predictor for it, and the product's own explore draw."""

    def __init__(self, seed=0, *, badly_calibrated=False):
        rng = np.random.default_rng(seed)
        self.sizes = np.array([900, 600, 300, 1200])
        self.sites = np.repeat(np.arange(SITES), self.sizes)
        self.classes = rng.integers(0, CLASSES, len(self.sites))
        chance = np.clip(0.55 + 0.12 * self.sites - 0.1 * self.classes, 0.05, 0.95)
        chance = np.clip(chance + rng.normal(0, 0.2, len(chance)), 0.02, 0.98)
        self.correct = (rng.random(len(chance)) < chance).astype(np.int64)
        claimed = np.full(len(chance), 0.97) if badly_calibrated else chance
        if badly_calibrated:
            claimed = np.where(self.sites == 1, 0.2, claimed)
        levels = np.rint(claimed * SCORE_LEVELS).astype(np.uint8)
        self.confidence = levels / SCORE_LEVELS
        self.pool = allocation_pools.make_pool(
            len(levels),
            sites=SITES,
            classes=CLASSES,
            site_index=self.sites.astype(np.int32),
            predicted_classes=self.classes.astype(np.uint16),
            top_probabilities=levels,
        )

    def draw(self, labels, rng, doubt_share=0.0):
        draw = draw_explore(
            self.pool,
            label_target=float(labels),
            site_limits=self.sizes,
            key=draw_key(rng),
            doubt_share=doubt_share,
        )
        order = rng.permutation(len(draw.rows))
        rows = draw.rows[order]
        made = ExploreLabels(
            site_index=self.sites[rows],
            predicted_classes=self.classes[rows],
            confidences=self.confidence[rows],
            inclusion_probabilities=draw.inclusion_probabilities[order],
            correct=self.correct[rows],
        )
        return draw.frame, made


@pytest.mark.parametrize("doubt_share", [0.0, 0.5])
@pytest.mark.parametrize("badly_calibrated", [False, True])
def test_over_a_thousand_draws_the_estimate_is_unbiased_and_the_interval_covers(
    badly_calibrated, doubt_share
):
    population = Population(badly_calibrated=badly_calibrated)
    truth = population.correct.mean()
    by_site = [population.correct[population.sites == s].mean() for s in range(SITES)]
    by_class = [population.correct[population.classes == c].mean() for c in range(CLASSES)]
    rng = np.random.default_rng(1)
    values, errors, site_values, covered = [], [], [], np.zeros(1 + SITES + CLASSES)
    for _ in range(1000):
        report = report_accuracy(*population.draw(60, rng, doubt_share))
        values.append(report.overall.value)
        errors.append(report.overall.standard_error)
        site_values.append([report.by_site[s].value for s in range(SITES)])
        pairs = [(report.overall, truth)]
        pairs += [(report.by_site[s], by_site[s]) for s in range(SITES)]
        pairs += [(report.by_class[c], by_class[c]) for c in range(CLASSES)]
        covered += [found.low <= true <= found.high for found, true in pairs]
    noise = np.std(values) / np.sqrt(1000)
    assert abs(np.mean(values) - truth) < 3.3 * noise
    site_noise = np.std(site_values, axis=0) / np.sqrt(1000)
    assert (np.abs(np.mean(site_values, axis=0) - by_site) < 3.3 * site_noise).all()
    assert (covered / 1000 >= 0.95).all(), covered
    assert np.mean(errors) >= 0.95 * np.std(values)


def test_the_interval_holds_at_every_time_at_once():
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(150):
        values = (rng.random(150) < 0.85).astype(float)
        low, high = confidence_sequence(values, lowest=0.0, highest=1.0)
        missed += bool(((low > 0.85) | (high < 0.85)).any())
    assert missed <= 0.05 * 150


def test_the_interval_never_widens():
    values = np.random.default_rng(0).random(80)
    low, high = confidence_sequence(values, lowest=0.0, highest=1.0)
    assert (np.diff(low) >= -1e-12).all()
    assert (np.diff(high) <= 1e-12).all()
    assert high[-1] - low[-1] < 0.4


def test_a_good_predictor_narrows_the_estimate():
    rng = np.random.default_rng(0)
    spread = []
    for badly in (False, True):
        population = Population(badly_calibrated=badly)
        values = [report_accuracy(*population.draw(60, rng)).overall.value for _ in range(200)]
        spread.append(np.std(values))
    assert spread[0] < spread[1]


def test_asking_where_the_model_is_unsure_narrows_the_estimate_and_finds_more_mistakes():
    population = Population()
    population.confidence = np.where(np.arange(3000) % 5 < 4, 62, 33) / SCORE_LEVELS
    population.correct = (np.arange(3000) % 5 < 4) | (np.arange(3000) % 2 == 0)
    levels = np.rint(population.confidence * SCORE_LEVELS).astype(np.uint8)
    population.pool = replace(population.pool, top_probabilities=levels)
    rng = np.random.default_rng(0)
    spread, right = [], []
    for doubt_share in (0.0, 0.5):
        draws = [population.draw(20, rng, doubt_share) for _ in range(200)]
        spread.append(np.std([report_accuracy(*draw).overall.value for draw in draws]))
        right.append(np.mean([labels.correct.mean() for _, labels in draws]))
    assert spread[1] < 0.8 * spread[0]
    assert right[1] < 0.95 * right[0]


def test_missing_labels_are_reported_and_do_not_shift_the_estimate():
    population = Population()
    rng = np.random.default_rng(5)
    values, responses = [], []
    for _ in range(250):
        frame, labels = population.draw(80, rng)
        labels.correct[rng.random(len(labels.correct)) < 0.3] = -1
        report = report_accuracy(frame, labels)
        values.append(report.overall.value)
        responses.append(report.overall.response_ratio)
    assert np.mean(responses) == pytest.approx(0.7, abs=0.02)
    assert abs(np.mean(values) - population.correct.mean()) < 0.015


def test_without_labels_nothing_is_claimed():
    population = Population()
    frame, labels = population.draw(20, np.random.default_rng(0))
    labels.correct[:] = -1
    overall = report_accuracy(frame, labels).overall
    assert (overall.low, overall.high, overall.label_count) == (0.0, 1.0, 0)


def test_a_site_whose_claims_do_not_come_true_loses_weight_and_the_others_keep_theirs():
    rng = np.random.default_rng(2)
    sites = np.repeat(np.arange(5), 15)
    confidence = np.where(sites == 3, 0.15, 0.8)
    right = rng.random(len(sites)) < np.where(sites == 3, 0.95, confidence)
    labels = ExploreLabels(sites, 0 * sites, confidence, np.ones(75), right.astype(np.int64))
    weights = site_trust(labels, sites=6)
    assert weights[3] < 0.3
    assert (weights[[0, 1, 2, 4, 5]] >= 0.8).all()


def test_honest_sites_keep_their_weight():
    rng = np.random.default_rng(2)
    kept = []
    for _ in range(200):
        confidence = rng.uniform(0.3, 1.0, 60)
        right = (rng.random(60) < confidence).astype(np.int64)
        sites = np.repeat(np.arange(6), 10)
        kept.append(
            site_trust(ExploreLabels(sites, 0 * sites, confidence, np.ones(60), right), sites=6)
        )
    assert np.mean(np.array(kept) >= 0.7) > 0.95


def test_a_model_that_is_right_everywhere_costs_no_site_its_weight():
    sites = np.repeat(np.arange(4), 20)
    always = np.ones(80, dtype=np.int64)
    labels = ExploreLabels(sites, 0 * sites, np.full(80, 0.6), np.ones(80), always)
    assert site_trust(labels, sites=4).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_stopping_is_advised_on_price_stability_and_plateau_only():
    rising = [CycleRecord(0.5 + 0.05 * i, 0.45 + 0.05 * i, 0.55 + 0.05 * i, 100) for i in range(4)]
    assert not advise(rising, StopRule(), floors_met=True).stop
    assert advise(rising, StopRule(least_gain_per_cost=0.01), floors_met=False).stop
    stable = [CycleRecord(0.5 + 0.05 * i, 0.4, 0.8, 100, agreement=0.995) for i in range(4)]
    assert advise(stable, StopRule(), floors_met=True).stop
    assert not advise(stable, StopRule(), floors_met=False).stop


def test_a_plateau_is_not_claimed_while_the_gain_may_be_more_than_a_point():
    sure = [CycleRecord(0.9, 0.8, 1.0, 100, gain_high=0.009)] * 3
    assert advise(sure, StopRule(), floors_met=True).stop
    for last in (0.011, None):
        unsure = [*sure[:2], CycleRecord(0.9, 0.8, 1.0, 100, gain_high=last)]
        assert not advise(unsure, StopRule(), floors_met=True).stop


def cycle(accuracy=None, *, live=None, labels=50, gain=None, held_out=5000):
    return {
        "accuracy": accuracy,
        "held_out_count": held_out,
        "live_accuracy": live,
        "live_interval": None if live is None else [live - 0.01, live + 0.01],
        "gain_interval": None if gain is None else [-gain, gain],
        "agreement": None,
        "labels": labels,
    }


def test_a_campaign_that_gains_nothing_is_told_so_once_its_class_floors_are_met():
    flat = [cycle(live=0.9), cycle(live=0.8, gain=0.004), cycle(live=0.95, gain=0.003)]
    (reason,) = stop_advice(flat, floors_met=True).reasons
    assert "2 cycles" in reason
    assert not stop_advice(flat, floors_met=False).stop
    # Few labels that look flat are no plateau.
    assert not stop_advice([cycle(live=0.9)] * 4, floors_met=True).stop


def test_held_out_examples_advise_only_where_they_are_many_enough_to_exclude_a_gain():
    values = (0.979, 0.98, 0.98)
    assert stop_advice([cycle(v, held_out=5000) for v in values], floors_met=True).stop
    assert not stop_advice([cycle(v, held_out=300) for v in values], floors_met=True).stop
    assert not stop_advice([cycle(0.7), cycle(0.8), cycle(0.9)], floors_met=True).stop


def test_the_price_reads_the_upper_end_of_what_the_labels_can_have_gained():
    rising = [cycle(live=value) for value in (0.5, 0.52, 0.54, 0.56)]
    assert not stop_advice(rising, floors_met=True).stop
    (reason,) = stop_advice(rising, floors_met=True, least_gain_per_cost=0.01).reasons
    assert "100 cost units" in reason
    assert not stop_advice([cycle()] * 4, floors_met=True, least_gain_per_cost=0.01).stop
    wide = [cycle(live=value, gain=0.02) for value in (0.5, 0.6, 0.9, 0.95)]
    assert stop_advice(wide, floors_met=True, least_gain_per_cost=0.001).stop
    assert not stop_advice(wide, floors_met=True, least_gain_per_cost=0.0003).stop


def test_the_interval_of_a_gain_holds_the_truth_and_needs_no_label_where_little_changed():
    rng = np.random.default_rng(5)
    missed, widths = 0, []
    for _ in range(200):
        truth = rng.integers(0, 4, 3000)
        before = np.where(rng.random(3000) < 0.7, truth, rng.integers(0, 4, 3000))
        mended = (before != truth) & (rng.random(3000) < 0.3)
        after = np.where(mended, truth, np.where(rng.random(3000) < 0.03, (truth + 1) % 4, before))
        stability = compare_predictions(before, after, class_count=4)
        chance = np.where(np.arange(3000) < 1000, 0.1, 0.02)
        drawn = np.flatnonzero((rng.random(3000) < chance) & (before != after))
        rng.shuffle(drawn)
        right = [(part[drawn] == truth[drawn]).astype(np.int64) for part in (before, after)]
        low, high = gain_interval(stability, ChangedLabels(chance[drawn], *right))
        gain = (after == truth).mean() - (before == truth).mean()
        missed += not low <= gain <= high
        widths.append(high - low)
        assert -stability.changed_ratio <= low <= high <= stability.changed_ratio
    assert missed / 200 <= 0.05
    assert np.mean(widths) < 2 * 0.11


def test_predictions_of_one_class_alone_agree_on_nothing():
    one = np.zeros(50, dtype=np.int64)
    assert compare_predictions(one, one, class_count=3).agreement is None


@pytest.mark.parametrize("module", [advice, estimation, stability, stopping, trust])
def test_the_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
