"""Histogram mode: noise with an account, the same seam, one quota per site."""

import doctest
from dataclasses import replace

import numpy as np
import pytest

from coordinator.core.allocation import histograms, noise
from coordinator.core.allocation.errors import AllocationError
from coordinator.core.allocation.histograms import (
    HistogramShape,
    count_histogram,
    denoised,
    histogram_policy,
    histogram_pool,
    noised_histogram,
    pick_at_site,
    quotas_of,
)
from coordinator.core.allocation.noise import PrivacyAccount, geometric_noise
from coordinator.core.allocation.policy import Budget, Policy
from coordinator.core.allocation.pool import Progress
from coordinator.core.allocation.seam import allocate

SHAPE = HistogramShape(cells=6, classes=3, bins=16)


def sites(count=4, rows=400, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for site in range(count):
        cells = rng.integers(0, 6, rows)
        classes = rng.integers(0, 3, rows)
        margins = (rng.random(rows) ** 2 * 63).astype(np.uint8)
        made[f"site-{site}"] = (cells, classes, margins)
    return made


def pool_of(made, epsilon=None, seed=1):
    rng = np.random.default_rng(seed)
    counts = {name: count_histogram(*columns, SHAPE) for name, columns in made.items()}
    if epsilon:
        noised = {n: noised_histogram(c, epsilon=epsilon, rng=rng) for n, c in counts.items()}
        counts = {n: denoised(c, epsilon=epsilon) for n, c in noised.items()}
    progress = Progress(np.full(3, 10), np.full(len(made), 10), np.zeros(6, np.int64))
    return histogram_pool(counts, SHAPE, progress)


def run(pool, limit=60):
    budget = Budget(limit, np.full(pool.site_count, 1000), np.zeros(3, np.int64))
    policy = histogram_policy(Policy(explore_ratio=0.0))
    return allocate(pool, budget, policy, np.random.default_rng(0))


def test_counts_of_an_untrained_model_give_every_site_the_same_quota():
    pool = pool_of(sites())
    pool = replace(pool, progress=replace(pool.progress, model_trained=False))
    quotas = [quota.labels for quota in quotas_of(pool, run(pool), SHAPE)]
    assert sum(quotas) == 60
    assert max(quotas) - min(quotas) <= 1


def test_chance_does_not_blur_what_histograms_tell():
    pool = pool_of(sites())
    budget = Budget(60, np.full(4, 1000), np.zeros(3, np.int64))
    blurred = Policy(explore_ratio=0.0, coldness=1.0)
    plain = replace(blurred, switches=replace(blurred.switches, chance=False))
    one, other = (
        allocate(pool, budget, histogram_policy(policy), np.random.default_rng(0))
        for policy in (blurred, plain)
    )
    assert one.digest() == other.digest()


def test_the_noise_has_the_likelihood_ratio_that_epsilon_promises():
    epsilon = 0.5
    draws = geometric_noise((400_000,), epsilon=epsilon, rng=np.random.default_rng(0))
    counts = {value: (draws == value).mean() for value in range(-4, 5)}
    for value in range(-4, 4):
        ratio = counts[value] / counts[value + 1]
        assert np.exp(-epsilon) * 0.93 < ratio < np.exp(epsilon) * 1.07


def test_the_account_adds_up_and_refuses_what_passes_its_limit():
    account = PrivacyAccount(limit=2.0)
    for _ in range(4):
        account = account.charge(0.5)
    assert account.left == 0
    assert account.charge(0.1) is None
    assert PrivacyAccount(limit=1.0).charge(0.0) is None


def test_the_pool_holds_one_row_per_count_with_distinct_ids():
    made = sites()
    pool = pool_of(made)
    assert len(pool) == 1600
    assert len({row.tobytes() for row in pool.candidate_ids}) == 1600


def test_each_site_gets_one_quota_and_all_of_them_spend_the_budget():
    made = sites()
    pool = pool_of(made)
    found = run(pool)
    answers = quotas_of(pool, found, SHAPE)
    assert [answer.site_id for answer in answers] == list(made)
    assert sum(answer.labels for answer in answers) == found.cost == 60
    for answer, (cells, classes, margins) in zip(answers, made.values(), strict=True):
        picked = pick_at_site(cells * 3 + classes, margins, answer, SHAPE)
        assert len(picked) == answer.labels


def test_without_noise_the_loss_is_bounded_by_the_width_of_a_bin():
    made = sites()
    pool = pool_of(made)
    answers = quotas_of(pool, run(pool), SHAPE)
    got = 0
    for answer, (cells, classes, margins) in zip(answers, made.values(), strict=True):
        got += margins[pick_at_site(cells * 3 + classes, margins, answer, SHAPE)].sum()
    best = np.sort(np.concatenate([m for _, _, m in made.values()]))[-60:].sum()
    assert got >= 0.85 * best


def test_noise_costs_little_at_epsilon_one_and_empty_keys_draw_no_budget():
    made = sites(rows=4000)
    values = []
    for epsilon in (None, 1.0):
        pool = pool_of(made, epsilon)
        answers = quotas_of(pool, run(pool), SHAPE)
        got = 0
        for answer, (cells, classes, margins) in zip(answers, made.values(), strict=True):
            got += margins[pick_at_site(cells * 3 + classes, margins, answer, SHAPE)].sum()
        values.append(got)
    assert values[1] >= 0.9 * values[0]
    empty = np.zeros(SHAPE.counts, np.int64)
    left = denoised(noised_histogram(empty, epsilon=1.0, rng=np.random.default_rng(0)), epsilon=1.0)
    assert left.sum() <= 30


def test_the_same_histograms_give_the_same_bytes():
    assert run(pool_of(sites())).digest() == run(pool_of(sites())).digest()


def test_a_wrong_shape_and_an_impossible_count_are_refused_by_site():
    progress = Progress(np.zeros(3, np.int64), np.zeros(1, np.int64))
    with pytest.raises(AllocationError, match="north"):
        histogram_pool({"north": np.zeros((2, 3, 16), np.int64)}, SHAPE, progress)
    with pytest.raises(AllocationError, match="north"):
        histogram_pool({"north": np.full(SHAPE.counts, -1)}, SHAPE, progress)


@pytest.mark.parametrize("module", [histograms, noise])
def test_the_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
