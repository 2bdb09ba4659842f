"""Where many rows are alike, a few stand for all of them, and little is lost by it."""

from dataclasses import replace

import allocation_pools as pools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.allocation import market, seam
from coordinator.core.allocation.chance import quick_numbers
from coordinator.core.allocation.crowd import find_crowd
from coordinator.core.allocation.kind_bound import bound_of_kinds
from coordinator.core.allocation.policy import Engine, Policy, Reason, Switches
from coordinator.core.allocation.seam import allocate, certify
from coordinator.core.allocation.terms import build_terms

make_budget = pools.make_budget

FEW_KINDS = Switches(
    pairs=False, chance=False, novelty=False, adapt=False, runner_up=False, share_cap=False
)
POLICY = Policy(
    class_weight=0.5,
    site_weight=0.5,
    explore_ratio=0.0,
    engine=Engine.THRESHOLD,
    switches=FEW_KINDS,
)
KEY = np.array([3, 5], dtype=np.uint64)


def crowded_pool(rows, **changes):
    """Rows of four sites, 40 cells and five classes, of very different sizes."""
    rng = np.random.default_rng(1)
    shares = np.arange(1, 41) ** 2.0
    parts = {
        "margins": np.full(rows, 40, np.uint8),
        "cell_ids": rng.choice(40, rows, p=shares / shares.sum()).astype(np.uint16),
        "cost_bands": np.zeros(rows, np.uint8),
    }
    return pools.make_pool(rows, cells=40, **(parts | changes))


@pytest.fixture
def short(monkeypatch):
    """Shortlists so short that small pools are crowds."""
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 600)
    monkeypatch.setattr(market, "PICKS_MULTIPLE", 1)


def run(pool, budget, policy=POLICY):
    return allocate(pool, budget, policy, np.random.default_rng(7))


def value(pool, budget, policy, result):
    return certify(pool, budget, policy, result).value


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(1, 12))
def test_the_rows_that_chance_puts_first_stand_for_their_kind(seed, most):
    rng = np.random.default_rng(seed)
    pool = crowded_pool(3000, margins=rng.choice(np.uint8([20, 40]), 3000))
    terms = build_terms(pool, make_budget(pool, 9), POLICY, label_mass=0.5)[1]
    crowd = find_crowd(pool, pool.margins, np.array([40]), terms)
    wanted = rng.integers(0, most + 1, len(crowd.kinds))
    ties = quick_numbers(pool.candidate_ids, np.arange(3000), KEY)
    kinds = pool.site_index * 1000 + pool.cell_ids * 10 + pool.prototype_classes
    best = []
    for head, count in zip(crowd.heads, wanted, strict=True):
        members = np.flatnonzero((kinds == kinds[head]) & (pool.margins == 40))
        best += members[np.argsort(ties[members])[:count]].tolist()
    assert crowd.counts.sum() == (pool.margins == 40).sum()
    assert crowd.lowest(wanted, pool, KEY).tolist() == sorted(best)


@pytest.mark.parametrize("levels", [(40, 40, 40), (20, 40, 60), (0, 10, 63)])
def test_a_crowd_is_worth_nearly_as_much_as_all_its_rows(short, monkeypatch, levels):
    margins = np.random.default_rng(2).choice(np.uint8(levels), 20_000)
    pool = crowded_pool(20_000, margins=margins)
    budget = make_budget(pool, 300)
    found = run(pool, budget)
    certificate = certify(pool, budget, POLICY, found)
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 20_000)
    whole = run(pool, budget)
    assert certificate.ratio >= 0.995
    assert certificate.value >= 0.998 * value(pool, budget, POLICY, whole)
    assert value(pool, budget, POLICY, whole) <= certificate.bound * (1 + 1e-9)


@pytest.mark.parametrize("site_level", [40, 63])
def test_one_site_with_equal_scores_beside_spread_ones_costs_no_value(
    short, monkeypatch, site_level
):
    spread = np.random.default_rng(2).integers(0, 64, 20_000)
    pool = crowded_pool(20_000)
    margins = np.where(pool.site_index == 2, site_level, spread).astype(np.uint8)
    pool = replace(pool, margins=margins)
    budget = make_budget(pool, 300)
    found = run(pool, budget)
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 20_000)
    whole = run(pool, budget)
    assert value(pool, budget, POLICY, found) >= 0.998 * value(pool, budget, POLICY, whole)


def test_a_class_that_only_one_kind_has_is_bought_as_often_as_from_the_whole_pool(
    short, monkeypatch
):
    pool = crowded_pool(20_000)
    classes = (pool.prototype_classes % 4).astype(np.uint16)
    classes[(pool.site_index == 1) & (pool.cell_ids == 39)] = 4
    pool = replace(pool, prototype_classes=classes)
    budget = make_budget(pool, 300)
    found = run(pool, budget)
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 20_000)
    whole = run(pool, budget)
    bought, best = ((classes[made.rows] == 4).sum() for made in (found, whole))
    assert best > 20  # far more than a shortlist has of one kind
    assert abs(int(bought) - int(best)) <= 3


def test_both_engines_agree_on_a_crowd_within_the_printed_bound(short):
    pool = crowded_pool(20_000)
    budget = make_budget(pool, 300)
    lazy = replace(POLICY, engine=Engine.LAZY)
    first, second = run(pool, budget), run(pool, budget, lazy)
    certificate = certify(pool, budget, POLICY, first)
    other = value(pool, budget, lazy, second)
    assert first.engine != second.engine
    assert certificate.ratio * certificate.bound <= other * (1 + 1e-9) + 0.005 * other
    assert other <= certificate.bound * (1 + 1e-9)


def test_which_rows_of_a_crowd_are_bought_depends_on_chance_and_not_on_their_order(short):
    pool = crowded_pool(20_000)
    budget = make_budget(pool, 300)
    moved = pools.reorder(pool, np.random.default_rng(1).permutation(20_000))
    assert run(pool, budget).digest() == run(moved, budget).digest()
    other = allocate(pool, budget, POLICY, np.random.default_rng(8))
    assert other.digest() != run(pool, budget).digest()


def test_explored_rows_of_a_crowd_are_not_bought_again(short):
    pool = crowded_pool(20_000)
    policy = replace(POLICY, explore_ratio=0.5)
    result = run(pool, make_budget(pool, 300), policy)
    assert (result.reasons == Reason.EXPLORE).sum() == 150
    assert len(set(result.rows.tolist())) == 300


def test_the_bound_by_kind_holds_for_all_choices_and_is_closer_than_the_one_by_row(
    short, monkeypatch
):
    pool = crowded_pool(20_000, margins=np.random.default_rng(2).choice(np.uint8([20, 40]), 20_000))
    budget = make_budget(pool, 300)
    result = run(pool, budget)
    by_kind = certify(pool, budget, POLICY, result).bound
    monkeypatch.setattr(seam, "market_kinds", lambda *_: None)
    by_row = certify(pool, budget, POLICY, result).bound
    best = value(pool, budget, POLICY, run(pool, budget, replace(POLICY, engine=Engine.LAZY)))
    assert best <= by_kind <= by_row * 1.0005


def test_any_starting_masses_give_a_bound_and_good_ones_are_not_needed(monkeypatch):
    pool = crowded_pool(5000)
    budget = make_budget(pool, 200)
    result = run(pool, budget)
    sound = certify(pool, budget, POLICY, result)
    seen = []

    def from_nothing(kinds, start, *, enough):
        seen.append(bound_of_kinds(kinds, [np.zeros_like(mass) for mass in start], enough=0.0))
        return seen[0]

    monkeypatch.setattr(seam, "bound_of_kinds", from_nothing)
    certify(pool, budget, POLICY, result)
    assert sound.value <= seen[0] <= sound.value * 1.01


def test_a_site_limit_that_matters_leaves_the_bound_to_single_rows():
    pool = crowded_pool(3000)
    free = make_budget(pool, 200)
    tight = make_budget(pool, 200, site_capacity=np.array([5, 5, 5, 200]))
    result = run(pool, tight)
    certificate = certify(pool, tight, POLICY, result)
    assert certificate.ratio >= 0.98
    assert certificate.bound < 0.99 * certify(pool, free, POLICY, run(pool, free)).bound
