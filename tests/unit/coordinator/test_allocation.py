"""The allocation seam keeps every limit, forgets the row order and replays byte for byte."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from allocation_pools import make_budget, make_pool, reorder
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.allocations import policy_of
from coordinator.core.allocation.chance import draw_key
from coordinator.core.allocation.errors import AllocationError
from coordinator.core.allocation.phases import adapted, phase_of
from coordinator.core.allocation.policy import Engine, Phase, Policy, Reason, Switches
from coordinator.core.allocation.pool import Progress
from coordinator.core.allocation.result import digest_inputs
from coordinator.core.allocation.seam import METHOD, allocate, certify
from coordinator.core.allocation.setting import explore, make_setting
from coordinator.core.allocation.utility import novelty_share, utilities
from coordinator.core.campaign import Campaign

KEY = np.array([3, 5], dtype=np.uint64)


def run(pool, budget, policy=None, seed=7):
    return allocate(pool, budget, policy or Policy(), np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 200),
    limit=st.integers(0, 300),
    capacity=st.integers(0, 40),
    explore=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    floor=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_no_limit_is_ever_passed(rows, limit, capacity, explore, floor, seed):
    pool = make_pool(rows, seed=seed)
    budget = make_budget(
        pool, limit, site_capacity=np.full(4, capacity), class_floors=np.full(5, floor)
    )
    policy = Policy(explore_ratio=explore, overlap_ratio=0.1)
    result = run(pool, budget, policy, seed)
    assert result.cost <= limit
    assert (np.bincount(result.site_index, minlength=4) <= capacity).all()
    spent = np.bincount(result.site_index, weights=result.costs, minlength=4)
    assert (spent <= limit * policy.share_cap_multiple / 4 + 1e-9).all() or limit < 4
    picks = result.rows[result.reasons != Reason.OVERLAP]
    assert len(set(picks.tolist())) == len(picks)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 150), limit=st.integers(1, 200), seed=st.integers(0, 99))
def test_the_row_order_has_no_influence(rows, limit, seed):
    pool = make_pool(rows, seed=seed)
    moved = reorder(pool, np.random.default_rng(seed + 1).permutation(rows))
    first, second = (run(p, make_budget(p, limit)) for p in (pool, moved))
    assert first.digest() == second.digest()
    assert first.candidate_ids.tolist() == second.candidate_ids.tolist()
    budget = make_budget(pool, limit)
    assert digest_inputs(pool, budget, Policy()) == digest_inputs(moved, budget, Policy())


def test_a_replay_gives_the_same_bytes_and_another_seed_does_not():
    pool = make_pool(500)
    budget = make_budget(pool, 100)
    assert run(pool, budget, seed=3).digest() == run(pool, budget, seed=3).digest()
    assert run(pool, budget, seed=3).digest() != run(pool, budget, seed=4).digest()


def test_a_changed_score_changes_the_digest_of_the_inputs():
    pool = make_pool(50)
    margins = pool.margins.copy()
    margins[3] ^= 1
    changed = replace(pool, margins=margins)
    budget = make_budget(pool, 10)
    assert digest_inputs(pool, budget, Policy()) != digest_inputs(changed, budget, Policy())


def test_explore_picks_carry_a_probability_and_others_carry_none():
    pool = make_pool(400, cost_bands=np.zeros(400, np.uint8))
    result = run(pool, make_budget(pool, 100))
    explored = result.reasons == Reason.EXPLORE
    assert explored.sum() == 10
    assert ((result.inclusion_probabilities > 0) == explored).all()
    assert result.frame.counts.sum() == 400
    assert result.frame.targets.sum() == pytest.approx(10)


def test_a_candidate_is_explored_as_often_as_its_logged_probability_says():
    pool = make_pool(60, sites=3)
    budget = make_budget(pool, 60)
    policy = Policy(explore_ratio=0.4)
    hits, logged = np.zeros(60), np.zeros(60)
    for seed in range(2000):
        setting = make_setting(pool, budget, policy, draw_key(np.random.default_rng(seed)))
        draw = explore(setting)
        hits[draw.rows] += 1
        logged[draw.rows] = draw.inclusion_probabilities
    assert logged.min() > 0
    assert np.abs(hits / 2000 - logged).max() < 0.045


def test_unsure_candidates_are_explored_more_often_and_sure_ones_never_hardly():
    pool = make_pool(3000, cost_bands=np.zeros(3000, np.uint8))
    levels = np.where(np.arange(3000) % 10 == 0, 33, 63).astype(np.uint8)
    pool = replace(pool, top_probabilities=levels)
    policy = Policy(explore_ratio=0.5)
    setting = make_setting(pool, make_budget(pool, 200), policy, draw_key(np.random.default_rng(0)))
    draw = explore(setting)
    blind = draw.frame.targets / draw.frame.counts.sum(axis=1)
    ratio = draw.inclusion_probabilities / blind[pool.site_index[draw.rows]]
    unsure = levels[draw.rows] == 33
    assert len(draw.rows) == 100
    assert ratio[unsure].min() > 1.5
    assert ratio[~unsure].min() >= 1.0 - policy.explore_doubt - 1e-9
    wished = replace(policy, switches=Switches(doubt=False))
    even = explore(replace(setting, policy=wished))
    assert even.inclusion_probabilities == pytest.approx(blind[pool.site_index[even.rows]])


def test_every_site_with_candidates_is_explored_when_the_share_allows():
    pool = make_pool(4000, sites=4, cost_bands=np.zeros(4000, np.uint8))
    result = run(pool, make_budget(pool, 200))
    explored = result.site_index[result.reasons == Reason.EXPLORE]
    assert set(explored.tolist()) == {0, 1, 2, 3}


def test_without_terms_the_most_uncertain_are_bought():
    pool = make_pool(300, cost_bands=np.zeros(300, np.uint8))
    off = Switches(
        cells=False,
        pairs=False,
        chance=False,
        novelty=False,
        classes=False,
        sites=False,
        explore=False,
        share_cap=False,
    )
    result = run(pool, make_budget(pool, 40), Policy(switches=off))
    bought = pool.margins[result.rows]
    assert len(result) == 40
    assert bought.min() >= np.sort(pool.margins)[-40]


def test_balance_and_novelty_count_as_far_as_labels_are_uneven_over_the_classes():
    pool = make_pool(300)
    even = replace(pool.progress, class_labels=np.full(5, 9))
    by_chance = replace(pool.progress, class_labels=np.array([6, 9, 7, 11, 7]))
    skewed = replace(pool.progress, class_labels=np.array([90, 1, 1, 1, 1]))
    between = replace(pool.progress, class_labels=np.array([40, 20, 20, 10, 10]))
    names = ("novelty_weight", "cell_weight", "pair_weight", "class_weight")

    def strengths(progress):
        return [getattr(adapted(Policy(), progress), n) / getattr(Policy(), n) for n in names]

    assert strengths(even) == strengths(by_chance) == [0.0] * 4
    assert strengths(skewed) == [1.0] * 4
    assert 0.3 < strengths(between)[0] < 0.9
    fixed = Policy(switches=Switches(adapt=False))
    assert adapted(fixed, even) == fixed


def test_what_lies_far_from_every_label_is_worth_more_once_the_model_can_tell():
    pool = make_pool(300)
    assert novelty_share(pool, Policy(), Phase.COLD) == 0.0
    assert novelty_share(pool, Policy(), Phase.WARM) == Policy().novelty_weight
    policy = Policy(switches=Switches(chance=False))
    worth = utilities(make_setting(pool, make_budget(pool, 9), policy, KEY))
    same_margin = pool.margins == np.bincount(pool.margins).argmax()
    far, near = pool.density_bands[same_margin].argmin(), pool.density_bands[same_margin].argmax()
    assert worth[same_margin][far] > worth[same_margin][near]


def cold_pool(rows, **changes):
    """A pool that a model scored which no label taught; its classes and cells say nothing."""
    pool = make_pool(rows, cost_bands=np.zeros(rows, np.uint8), **changes)
    return replace(pool, progress=replace(pool.progress, model_trained=False))


@pytest.mark.parametrize("engine", list(Engine))
def test_a_cold_cycle_buys_the_densest_of_each_cell_and_nothing_by_chance_or_by_class(engine):
    pool = cold_pool(400)
    budget = make_budget(pool, 40, class_floors=np.full(5, 90))
    policy = Policy(engine=engine, explore_ratio=0.5, share_cap_multiple=4.0)
    result = run(pool, budget, policy)
    assert result.phase is Phase.COLD
    assert set(result.reasons.tolist()) == {Reason.USEFUL}
    left = np.setdiff1d(np.arange(400), result.rows)
    places = pool.cell_ids.astype(np.int64) * pool.site_count + pool.site_index
    for place in np.unique(places[result.rows]):
        bought, passed = (rows[places[rows] == place] for rows in (result.rows, left))
        assert pool.density_bands[bought].min() >= pool.density_bands[passed].max(initial=0)
    assert result.frame.counts.sum() == result.frame.targets.sum() == 0
    assert result.shortfalls == ()
    assert certify(pool, budget, policy, result).ratio > 0.99


def test_a_cold_cycle_does_not_look_at_what_an_untrained_model_says():
    pool = cold_pool(300)
    rng = np.random.default_rng(1)
    blind = replace(
        pool,
        **{
            name: rng.permutation(getattr(pool, name))
            for name in ("margins", "entropies", "top_probabilities", "divergences",
                         "predicted_classes", "runner_up_classes", "prototype_classes")
        },
    )  # fmt: skip
    budget = make_budget(pool, 50)
    assert run(pool, budget).digest() == run(blind, budget).digest()
    warm, other = (
        replace(p, progress=replace(p.progress, model_trained=True)) for p in (pool, blind)
    )
    assert run(warm, budget).digest() != run(other, budget).digest()


def test_a_cold_allocation_replays_byte_for_byte_in_any_row_order():
    pool = cold_pool(300)
    moved = reorder(pool, np.random.default_rng(5).permutation(300))
    first, second = (run(p, make_budget(p, 60), seed=3) for p in (pool, moved))
    assert first.digest() == second.digest()
    assert first.digest() != run(pool, make_budget(pool, 60), seed=4).digest()
    budget = make_budget(pool, 60)
    trained = replace(pool, progress=replace(pool.progress, model_trained=True))
    assert digest_inputs(pool, budget, Policy()) == digest_inputs(moved, budget, Policy())
    assert digest_inputs(pool, budget, Policy()) != digest_inputs(trained, budget, Policy())


def test_a_cold_cycle_spends_its_whole_budget_on_a_pool_of_equal_samples_at_all_sites_alike():
    pool = cold_pool(400, density_bands=np.zeros(400, np.uint8))
    result = run(pool, make_budget(pool, 40))
    assert np.bincount(result.site_index).tolist() == [10] * 4


@pytest.mark.parametrize(
    ("labels", "trained", "phase"),
    [(0, None, "cold"), (1, None, "hot"), (0, True, "hot"), (900, False, "cold")],
)
def test_cold_is_before_labels_taught_the_model_however_many_exist(labels, trained, phase):
    progress = Progress(
        class_labels=np.array([labels, 0]),
        site_labels=np.array([labels]),
        calibration_error=0.01,
        model_trained=trained,
    )
    assert phase_of(progress, Policy()).value == phase
    assert phase_of(progress, Policy(switches=Switches(phases=False))) is Phase.HOT


def test_one_confusion_does_not_take_the_whole_cycle():
    rows = 400
    guess = np.repeat([0, 1], rows // 2).astype(np.uint16)
    pool = make_pool(
        rows,
        predicted_classes=guess,
        runner_up_classes=(guess + 1).astype(np.uint16),
        margins=np.where(guess == 0, 60, 50).astype(np.uint8),
        cost_bands=np.zeros(rows, np.uint8),
    )
    off = Switches(cells=False, novelty=False, classes=False, sites=False, explore=False)
    off = replace(off, adapt=False, chance=False)
    policy = Policy(cell_weight=0.0, pair_weight=1.0, switches=off)
    mixed = run(pool, make_budget(pool, 40), policy)
    greedy = run(pool, make_budget(pool, 40), replace(policy, switches=replace(off, pairs=False)))
    assert (guess[greedy.rows] == 1).sum() < 5 < 10 < (guess[mixed.rows] == 1).sum()


def test_a_campaign_that_sets_no_cap_gives_no_site_more_than_twice_an_equal_share():
    campaign = Campaign(
        name="caps",
        kind="record",
        classes=("a", "b"),
        sites=tuple(f"s{i}" for i in range(20)),
        budget_labels=1000,
        cycle_budget_labels=100,
        cycles=10,
    )
    pool = make_pool(2000, sites=20)
    assert policy_of(campaign, pool).share_cap_multiple == pytest.approx(2.0)
    half = replace(pool, site_index=pool.site_index // 2)
    assert policy_of(campaign, half).share_cap_multiple == pytest.approx(4.0)
    capped = replace(campaign, site_share_cap=0.05)
    assert policy_of(capped, half).share_cap_multiple == pytest.approx(1.0)


def test_a_site_without_experts_gets_nothing():
    pool = make_pool(300)
    budget = make_budget(pool, 100, site_capacity=np.array([0, 50, 50, 50]))
    assert 0 not in run(pool, budget).site_index


def test_an_empty_pool_spends_nothing():
    pool = make_pool(0)
    assert len(run(pool, make_budget(pool, 100))) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"margins": np.full(10, 64, np.uint8)}, "margins"),
        ({"site_index": np.full(10, 9, np.int32)}, "site_index"),
        ({"cell_ids": np.zeros(3, np.uint16)}, "cell_ids"),
        ({"prototype_classes": np.full(10, 5, np.uint16)}, "prototype_classes"),
    ],
)
def test_a_malformed_pool_is_refused_by_name(change, words):
    with pytest.raises(AllocationError, match=words):
        make_pool(10, **change)
    with pytest.raises(AllocationError, match=words):
        replace(make_pool(10), **change)


def test_a_malformed_budget_or_policy_is_refused_by_name():
    pool = make_pool(10)
    with pytest.raises(AllocationError, match="cost_limit"):
        run(pool, make_budget(pool, -1))
    with pytest.raises(AllocationError, match="site_capacity"):
        run(pool, make_budget(pool, 1, site_capacity=np.array([1])))
    with pytest.raises(AllocationError, match="explore_ratio"):
        run(pool, make_budget(pool, 1), Policy(explore_ratio=2.0))


def test_a_new_default_of_the_policy_comes_with_a_new_number_of_the_method():
    """Otherwise verifying a ledger from before would take every allocation for a forgery."""
    defaults = hashlib.sha256(repr(Policy()).encode()).hexdigest()[:16]
    assert (METHOD, defaults) == (2, "56237f1dc19013e5")
