"""Chance in the ranking: how it counts, where it counts, and what it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
from allocation_pools import make_budget, make_pool, reorder

from coordinator.core.allocation.chance import draw_key
from coordinator.core.allocation.errors import AllocationError
from coordinator.core.allocation.policy import LEAST_COLDNESS, Policy, Switches
from coordinator.core.allocation.seam import allocate
from coordinator.core.allocation.setting import explore, make_setting
from coordinator.core.allocation.utility import utilities

BARE = Switches(
    cells=False,
    pairs=False,
    novelty=False,
    classes=False,
    sites=False,
    explore=False,
    share_cap=False,
)
"""Nothing but the scores, and chance in them."""


def run(pool, budget, policy, seed=7):
    return allocate(pool, budget, policy, np.random.default_rng(seed))


def bare_pool(margins, **changes):
    rows = len(margins)
    margins = np.asarray(margins, dtype=np.uint8)
    return make_pool(rows, margins=margins, cost_bands=np.zeros(rows, np.uint8), **changes)


def test_with_even_labels_a_candidate_is_ranked_first_by_a_power_of_its_score():
    margins = np.array([60, 60, 45, 45, 30, 30, 0])
    pool = bare_pool(margins, sites=2)
    policy, budget = Policy(coldness=2.0, switches=BARE), make_budget(pool, 1)
    first = []
    for seed in range(3000):
        key = draw_key(np.random.default_rng(seed))
        worth = utilities(make_setting(pool, budget, policy, key))
        assert worth.max() <= 1.0
        first.append(worth.argmax())
        if seed < 30:
            assert run(pool, budget, policy, seed).rows.tolist() == [first[-1]]
    found = np.bincount(first, minlength=len(margins)) / len(first)
    assert found == pytest.approx(margins**2.0 / (margins**2.0).sum(), abs=0.03)


def test_chance_is_of_the_key_and_the_candidate_and_of_nothing_else():
    pool = bare_pool(np.arange(64))
    policy, budget = Policy(switches=BARE), make_budget(pool, 20)
    moved = reorder(pool, np.random.default_rng(3).permutation(64))
    picks = [run(pool, budget, policy, seed) for seed in (1, 1, 2)]
    assert picks[0].digest() == picks[1].digest() == run(moved, budget, policy, 1).digest()
    assert set(picks[0].rows.tolist()) != set(picks[2].rows.tolist())
    plain = replace(policy, switches=replace(BARE, chance=False))
    assert set(run(pool, budget, plain, 2).rows.tolist()) == set(range(44, 64))


def test_chance_counts_as_far_as_labels_are_even_over_the_classes():
    pool = make_pool(300)
    budget, plain = make_budget(pool, 60), Policy(switches=Switches(chance=False))

    def moved_by_chance(*class_labels):
        progress = replace(pool.progress, class_labels=np.array(class_labels))
        known = replace(pool, progress=progress)
        moved = 0
        for seed in range(20):
            one, other = (run(known, budget, policy, seed) for policy in (Policy(), plain))
            moved += len(np.setdiff1d(one.rows, other.rows))
        return moved

    skewed, between, even = (
        moved_by_chance(90, 1, 1, 1, 1),
        moved_by_chance(40, 20, 20, 10, 10),
        moved_by_chance(20, 20, 20, 20, 20),
    )
    assert skewed == 0 < between < even


def test_the_explore_draw_is_blind_to_the_chance_in_the_ranking():
    pool = bare_pool(np.full(400, 40))
    budget = make_budget(pool, 100)
    policy = Policy(explore_ratio=0.5, switches=replace(BARE, explore=True))
    plain = replace(policy, switches=replace(policy.switches, chance=False))
    lead = []
    for seed in range(100):
        setting = make_setting(pool, budget, policy, draw_key(np.random.default_rng(seed)))
        drawn, worth = explore(setting), utilities(setting)
        assert drawn.rows.tolist() == explore(replace(setting, policy=plain)).rows.tolist()
        lead.append((worth[drawn.rows].mean() - worth.mean()) / worth.std())
    # The mean of 50 of 400 deviates by 0.13 standard deviations, that of 100 such means by 0.013.
    assert abs(np.mean(lead)) < 0.05


def test_a_cold_cycle_leaves_nothing_of_its_ranking_to_chance():
    pool = bare_pool(np.arange(300) % 64)
    pool = replace(pool, progress=replace(pool.progress, model_trained=False))
    budget = make_budget(pool, 40)
    blurred, plain = Policy(coldness=1.0), Policy(switches=Switches(chance=False))
    assert run(pool, budget, blurred).digest() == run(pool, budget, plain).digest()
    trained = replace(pool, progress=replace(pool.progress, model_trained=True))
    assert run(trained, budget, blurred).digest() != run(trained, budget, plain).digest()


@pytest.mark.parametrize("coldness", [0.0, -1.0, LEAST_COLDNESS / 2, np.nan])
def test_a_coldness_that_is_too_low_or_no_number_is_refused_by_name(coldness):
    pool = make_pool(10)
    with pytest.raises(AllocationError, match="coldness"):
        run(pool, make_budget(pool, 1), Policy(coldness=coldness))


def test_the_least_coldness_that_is_taken_still_spends_the_whole_budget():
    pool = bare_pool(np.full(60, 1))
    policy = Policy(coldness=LEAST_COLDNESS, switches=BARE)
    assert len(run(pool, make_budget(pool, 60), policy)) == 60
