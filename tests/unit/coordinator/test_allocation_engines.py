"""The engines agree with their oracles, within the bound that they print."""

import doctest
import importlib
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from allocation_pools import ONE_PARTITION, make_budget, make_pool, reorder
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import coo_matrix, vstack

from coordinator.core.allocation import market
from coordinator.core.allocation.bound import bound_linear
from coordinator.core.allocation.fill import guided_fill
from coordinator.core.allocation.limits import Limits
from coordinator.core.allocation.policy import (
    Engine,
    Phase,
    Policy,
    Reason,
    Switches,
    UtilityWeights,
)
from coordinator.core.allocation.prices import LinearProblem
from coordinator.core.allocation.seam import allocate, certify
from coordinator.core.allocation.smoothed import DITHER, solve_relaxed
from coordinator.core.allocation.thin import lowest_per_key

WHOLE = Policy(switches=Switches(adapt=False, novelty=False, chance=False))
"""All parts at full weight, whatever the labels are, and nothing in the ranking by chance."""


def run(pool, budget, policy, seed=7):
    return allocate(pool, budget, policy, np.random.default_rng(seed))


def value(pool, budget, policy, result):
    return certify(pool, budget, policy, result).value


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 120),
    limit=st.integers(1, 60),
    seed=st.integers(0, 99),
    chance=st.booleans(),
)
def test_on_one_partition_the_vectorised_pass_equals_the_lazy_greedy(rows, limit, seed, chance):
    pool = make_pool(rows, seed=seed, cost_bands=np.zeros(rows, np.uint8))
    budget = make_budget(pool, limit)
    policy = Policy(switches=replace(ONE_PARTITION, chance=chance))
    exact = run(pool, budget, policy)
    oracle = run(pool, budget, replace(policy, engine=Engine.LAZY))
    assert exact.engine == "one partition" or rows <= limit
    assert value(pool, budget, policy, exact) == pytest.approx(
        value(pool, budget, policy, oracle), rel=1e-9
    )


@pytest.mark.parametrize("chance", [False, True])
def test_a_shortlist_changes_nothing_on_one_partition(monkeypatch, chance):
    pool = make_pool(5000, cells=40, cost_bands=np.zeros(5000, np.uint8))
    budget = make_budget(pool, 100)
    policy = Policy(switches=replace(ONE_PARTITION, chance=chance))
    whole = run(pool, budget, policy)
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 150)
    monkeypatch.setattr(market, "PICKS_MULTIPLE", 1)
    assert run(pool, budget, policy).digest() == whole.digest()


@pytest.mark.parametrize("apart", ["chance", "a second score"])
def test_rows_that_hardly_differ_are_not_taken_for_alike(monkeypatch, apart):
    rows = 4000
    cells = (np.arange(rows) % 2).astype(np.uint16)
    margins = np.where(cells == 0, 40, 38).astype(np.uint8)
    parts = {"cells": 2, "cell_ids": cells, "margins": margins}
    pool = make_pool(rows, sites=1, cost_bands=np.zeros(rows, np.uint8), **parts)
    budget = make_budget(pool, 40)
    # So cold, or so light a score, that all rows of a margin lie within a thousandth.
    both = UtilityWeights(margin=1.0, entropy=0.0004)
    policy = Policy(
        coldness=10_000.0,
        weights=Policy().weights if apart == "chance" else dict.fromkeys(Phase, both),
        switches=replace(ONE_PARTITION, chance=apart == "chance"),
    )
    oracle = run(pool, budget, replace(policy, engine=Engine.LAZY))
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 150)
    monkeypatch.setattr(market, "PICKS_MULTIPLE", 1)
    found = run(pool, budget, policy)
    assert found.engine == "one partition"
    best = value(pool, budget, policy, oracle)
    assert value(pool, budget, policy, found) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(
    ("bands", "seed", "chance"),
    [(8, 0, False), (8, 1, True), (8, 2, False), (1, 0, True), (1, 1, False), (1, 2, True)],
)
def test_the_threshold_engine_comes_close_to_the_oracle_and_to_the_bound(bands, seed, chance):
    dear = np.random.default_rng(seed).integers(0, bands, 3000).astype(np.uint8)
    pool = make_pool(3000, cells=60, sites=6, seed=seed, cost_bands=dear)
    budget = make_budget(pool, 400)
    switches = replace(WHOLE.switches, chance=chance)
    fast = replace(WHOLE, engine=Engine.THRESHOLD, switches=switches)
    slow = replace(fast, engine=Engine.LAZY)
    first, second = run(pool, budget, fast), run(pool, budget, slow)
    certificate = certify(pool, budget, fast, first)
    assert certificate.ratio >= 0.98
    assert certificate.value >= 0.985 * value(pool, budget, slow, second)
    assert value(pool, budget, slow, second) <= certificate.bound * (1 + 1e-9)


@pytest.mark.parametrize("chance", [False, True])
def test_a_shortlist_costs_the_threshold_engine_next_to_nothing(monkeypatch, chance):
    pool = make_pool(6000, cells=60)
    budget = make_budget(pool, 200)
    switches = replace(WHOLE.switches, chance=chance)
    policy = replace(WHOLE, engine=Engine.THRESHOLD, switches=switches)
    whole = value(pool, budget, policy, run(pool, budget, policy))
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 300)
    monkeypatch.setattr(market, "PICKS_MULTIPLE", 1)
    assert value(pool, budget, policy, run(pool, budget, policy)) >= 0.99 * whole


@pytest.mark.parametrize("engine", [Engine.LAZY, Engine.THRESHOLD])
def test_floors_are_met_or_reported(engine):
    pool = make_pool(1500, seed=3)
    floors = np.array([45, 20, 0, 60, 20])
    budget = make_budget(pool, 500, class_floors=floors)
    result = run(pool, budget, replace(WHOLE, engine=engine, explore_ratio=0.0))
    bought = np.bincount(pool.prototype_classes[result.rows], minlength=5)
    assert (bought >= floors - 20).all()
    assert not [s for s in result.shortfalls if s.what.startswith("class")]
    assert (result.reasons == Reason.CLASS_FLOOR).sum() == 65


def test_a_floor_that_nobody_can_meet_is_reported_with_its_numbers():
    pool = make_pool(300, seed=3)
    missing = pool.prototype_classes.copy()
    missing[missing == 4] = 0
    pool = replace(pool, prototype_classes=missing, runner_up_classes=missing)
    budget = make_budget(pool, 200, class_floors=np.array([0, 0, 0, 0, 30]))
    result = run(pool, budget, WHOLE)
    short = [s for s in result.shortfalls if s.what == "class 4"]
    assert [(s.wanted, s.got) for s in short] == [(10, 0)]


def test_runner_up_classes_help_a_floor_that_prototypes_cannot_meet():
    pool = make_pool(300, seed=3)
    main = np.where(pool.prototype_classes == 4, 0, pool.prototype_classes).astype(np.uint16)
    pool = replace(pool, prototype_classes=main)
    budget = make_budget(pool, 400, class_floors=np.array([0, 0, 0, 0, 30]))
    result = run(pool, budget, WHOLE)
    bought = result.rows[result.reasons == Reason.CLASS_FLOOR]
    assert len(bought) == 10
    assert (pool.runner_up_classes[bought] == 4).all()


def linear_problem(rows, picks, seed=0, sites=20, classes=10):
    rng = np.random.default_rng(seed)
    shares = rng.pareto(1, sites) + 0.2
    weights = np.geomspace(0.4, 0.01, classes)
    members = rng.choice(classes, rows, p=weights / weights.sum())
    costs = rng.integers(1, 6, rows)
    limit = int(picks * costs.mean())
    caps = np.full(sites, max(1, int(picks * 0.1)))
    floors = np.minimum(int(picks * 0.05), np.bincount(members, minlength=classes) // 2)
    return LinearProblem(
        worth=rng.random(rows) ** 2,
        costs=costs,
        sites=rng.choice(sites, rows, p=shares / shares.sum()),
        classes=members,
        limits=Limits(caps, np.full(sites, limit), limit),
        floors=floors,
    )


def relaxed_optimum(problem):
    rows = np.arange(len(problem.worth))
    parts = [
        coo_matrix((problem.costs, (0 * rows, rows))),
        coo_matrix((np.ones(len(rows)), (problem.sites, rows)), shape=(20, len(rows))),
        coo_matrix((-np.ones(len(rows)), (problem.classes, rows)), shape=(10, len(rows))),
    ]
    limits = problem.limits
    most = np.concatenate([[limits.cost_limit], limits.site_labels, -problem.floors])
    solved = linprog(-problem.worth, A_ub=vstack(parts), b_ub=most, bounds=(0, 1), method="highs")
    assert solved.success, solved.message
    return -solved.fun


@pytest.mark.parametrize(
    ("rows", "picks", "levels", "least"),
    [(1000, 100, 0, 0.99), (10_000, 1000, 0, 0.999), (10_000, 1000, 63, 0.999)],
)
def test_prices_come_close_to_the_linear_programme_and_the_fill_to_both(rows, picks, levels, least):
    problem = linear_problem(rows, picks)
    if levels:  # as devices send them, so that many rows tie
        problem = replace(problem, worth=np.rint(problem.worth * levels) / levels)
    bound, _, _ = bound_linear(problem)
    optimum = relaxed_optimum(problem)
    assert optimum <= bound * (1 + 1e-9)
    assert optimum >= 0.9995 * bound
    chosen, unmet = guided_fill(problem, solve_relaxed(problem, dither=DITHER))
    assert not unmet.any()
    assert problem.worth[chosen].sum() >= least * bound
    assert problem.costs[chosen].sum() <= problem.limits.cost_limit
    assert (np.bincount(problem.sites[chosen], minlength=20) <= problem.limits.site_labels).all()


def test_a_floor_beyond_reach_leaves_the_prices_finite_and_the_fill_within_its_limits():
    problem = replace(linear_problem(500, 50), floors=np.full(10, 400))
    relaxed = solve_relaxed(problem, dither=DITHER)
    assert np.isfinite(relaxed.prices.floors).all()
    chosen, unmet = guided_fill(problem, relaxed)
    assert unmet.any()
    assert 0 < problem.costs[chosen].sum() <= problem.limits.cost_limit


def test_rows_that_fit_no_limit_are_neither_shared_out_nor_counted_in_the_bound():
    problem = linear_problem(400, 40)
    caps = problem.limits.site_labels.copy()
    caps[problem.sites[0]] = 0
    closed = replace(problem, limits=replace(problem.limits, site_labels=caps), floors=np.zeros(10))
    shut = closed.sites == problem.sites[0]
    assert solve_relaxed(closed).shares[shut].max() == 0.0
    without = closed.part(np.flatnonzero(~shut))
    assert bound_linear(closed)[0] == pytest.approx(bound_linear(without)[0], rel=1e-6)


def test_costs_caps_and_floors_are_filled_alike_in_any_row_order():
    pool = make_pool(3000, sites=6, seed=5)
    moved = reorder(pool, np.random.default_rng(1).permutation(3000))
    floors = np.full(5, 60)
    found = [
        run(p, make_budget(p, 400, class_floors=floors, site_capacity=np.full(6, 30)), Policy())
        for p in (pool, moved)
    ]
    assert found[0].prices is not None
    assert found[0].digest() == found[1].digest()


def test_prices_name_the_site_whose_cap_binds():
    pool = make_pool(2000, sites=4, cost_bands=np.zeros(2000, np.uint8))
    margins = np.where(pool.site_index == 2, 63, pool.margins // 4).astype(np.uint8)
    pool = replace(pool, margins=margins)
    budget = make_budget(pool, 200, site_capacity=np.array([200, 200, 30, 200]))
    result = run(pool, budget, WHOLE)
    assert result.prices is not None
    assert max(result.prices.sites, key=result.prices.sites.get) == "site-2"


def test_equal_scores_everywhere_are_no_special_case():
    pool = make_pool(60_000, margins=np.full(60_000, 40, np.uint8))
    budget = make_budget(pool, 300)
    policy = replace(WHOLE, engine=Engine.THRESHOLD)
    result = run(pool, budget, policy)
    assert result.cost >= 298
    assert certify(pool, budget, policy, result).ratio >= 0.98


def test_an_explored_candidate_is_not_looked_for_again_by_the_optimal_engine():
    pool = make_pool(300, cost_bands=np.zeros(300, np.uint8))
    off = Switches(cells=False, pairs=False, novelty=False, classes=False, share_cap=False)
    result = run(pool, make_budget(pool, 60), Policy(switches=off))
    assert (result.reasons == Reason.EXPLORE).sum() == 6
    assert len(set(result.rows.tolist())) == 60


def test_equal_scores_on_one_partition_still_reach_the_optimum(monkeypatch):
    pool = make_pool(
        4000, margins=np.full(4000, 40, np.uint8), cells=30, cost_bands=np.zeros(4000, np.uint8)
    )
    budget = make_budget(pool, 120)
    oracle = run(pool, budget, Policy(switches=ONE_PARTITION, engine=Engine.LAZY))
    monkeypatch.setattr(market, "SMALLEST_SHORTLIST", 150)
    monkeypatch.setattr(market, "PICKS_MULTIPLE", 1)
    found = run(pool, budget, Policy(switches=ONE_PARTITION))
    best = value(pool, budget, Policy(switches=ONE_PARTITION), oracle)
    assert value(pool, budget, Policy(switches=ONE_PARTITION), found) == pytest.approx(best)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 400), keys=st.integers(1, 50), most=st.integers(1, 9))
def test_thinning_keeps_the_lowest_ties_of_every_key(rows, keys, most):
    rng = np.random.default_rng(rows)
    key = rng.integers(0, keys, rows) * 10**12
    ties = rng.integers(0, 2**64, rows, dtype=np.uint64)
    kept = lowest_per_key(key, ties, most)
    wanted = [np.flatnonzero(key == k)[np.argsort(ties[key == k])[:most]] for k in np.unique(key)]
    assert kept.tolist() == sorted(np.concatenate(wanted).tolist())


def test_a_liar_gets_no_more_than_the_share_cap_and_less_once_its_trust_is_gone():
    pool = make_pool(4000, sites=20, cost_bands=np.zeros(4000, np.uint8))
    pool = replace(pool, margins=np.where(pool.site_index == 7, 63, 30).astype(np.uint8))
    budget = make_budget(pool, 400)
    share = (run(pool, budget, WHOLE).site_index == 7).mean()
    assert 0.05 < share <= 0.1
    trust = np.ones(20)
    trust[7] = 0.05
    wary = replace(pool, progress=replace(pool.progress, site_trust=trust))
    assert (run(wary, budget, WHOLE).site_index == 7).mean() <= 0.02


@pytest.mark.parametrize(
    "module", ["prune", "chance", "explore", "phases", "objective", "prices", "keys", "thin"]
)
def test_the_examples_in_the_docstrings_hold(module):
    loaded = importlib.import_module(f"coordinator.core.allocation.{module}")
    result = doctest.testmod(loaded)
    assert result.attempted > 0
    assert result.failed == 0
