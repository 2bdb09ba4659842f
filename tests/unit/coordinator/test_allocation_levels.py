"""Counting rows by group and level buys what ranking all of them buys, to the last bit."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from allocation_pools import ONE_PARTITION, make_budget, make_pool, reorder
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.allocation import choose, market, prune
from coordinator.core.allocation.levels import rows_of_levels
from coordinator.core.allocation.policy import Phase, Policy, Reason, UtilityWeights
from coordinator.core.allocation.seam import allocate

CELLS = 40
OFF = replace(ONE_PARTITION, cells=False, runner_up=False)
ON_CELLS = Policy(switches=replace(OFF, cells=True))


def run(pool, budget, policy):
    return allocate(pool, budget, policy, np.random.default_rng(7))


def both_ways(pool, budget, policy):
    """An allocation, the same from ranking all rows, and whether counting gave the first one."""
    counted = []

    def watched(*inputs):
        counted.append(rows_of_levels(*inputs) is not None)
        return rows_of_levels(*inputs)

    with patch.object(choose, "rows_of_levels", watched):
        found = run(pool, budget, policy)
    with (
        patch.object(choose, "rows_of_levels", lambda *inputs: None),
        patch.object(market, "SMALLEST_SHORTLIST", 10**9),
    ):
        return found, run(pool, budget, policy), any(counted)


def same(found, oracle):
    return (found.digest(), found.gains.tobytes()) == (oracle.digest(), oracle.gains.tobytes())


def skewed_pool(rows, *, seed, levels=64, skew=3.0, labels=1, **parts):
    """Few cells hold most rows; scores take a few values; a cell has less than ``labels``."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, levels, rows) * (63 // max(levels - 1, 1))
    changes = {
        "margins": steps.astype(np.uint8),
        "cell_ids": (rng.random(rows) ** skew * CELLS).astype(np.uint16),
        "cost_bands": np.zeros(rows, np.uint8),
    }
    pool = make_pool(rows, seed=seed, cells=CELLS, **(changes | parts))
    cell_labels = rng.integers(0, labels, CELLS)
    return replace(pool, progress=replace(pool.progress, cell_labels=cell_labels))


@settings(max_examples=150, deadline=None)
@given(
    pool=st.builds(
        skewed_pool,
        st.integers(1, 700),
        seed=st.integers(0, 2**16),
        levels=st.sampled_from((1, 2, 5, 64)),
        skew=st.sampled_from((1.0, 3.0, 12.0)),
        labels=st.sampled_from((1, 9)),
    ),
    term=st.sampled_from(("cells", "pairs", "classes", "sites")),
    power=st.sampled_from((0.0, 0.3, 0.5, 1.0, 2.0)),
    limit=st.integers(1, 200),
    explore=st.booleans(),
    trained=st.booleans(),
    block=st.sampled_from((16, 100, 1 << 18)),
    sample=st.sampled_from((2, 64, 4096)),
)
def test_counting_buys_the_same_rows_in_the_same_order_for_the_same_gains(
    pool, term, power, limit, explore, trained, block, sample
):
    pool = replace(pool, progress=replace(pool.progress, model_trained=trained))
    switches = replace(OFF, explore=explore, **{term: True})
    policy = Policy(class_weight=1.0, site_weight=1.0, cell_power=power, switches=switches)
    with patch.object(prune, "_BLOCK", block), patch.object(prune, "_SAMPLE", sample):
        found, oracle, counted = both_ways(pool, make_budget(pool, limit), policy)
    assert same(found, oracle)
    useful = bool((oracle.reasons == Reason.USEFUL).any())
    assert counted == (useful and oracle.engine == "one partition")
    # Before a model is trained, only cells count.
    assert (oracle.engine == "one partition") == (
        useful and (trained or term in ("cells", "sites"))
    )


@pytest.mark.parametrize("skew", [1.0, 12.0])
def test_cells_of_each_site_are_counted_apart(skew):
    rows = 20_000
    sites = (np.arange(rows) % 4).astype(np.int32)
    apart = (sites * 10 + np.random.default_rng(1).random(rows) ** skew * 10).astype(np.uint16)
    pool = skewed_pool(rows, seed=1, cell_ids=apart, site_index=sites)
    policy = Policy(switches=replace(OFF, cells=True, overlap=True))
    found, oracle, counted = both_ways(pool, make_budget(pool, 500), policy)
    assert counted
    assert same(found, oracle)


def test_rare_cells_get_rows_far_below_the_level_that_the_budget_reaches():
    rows = 30_000
    cells = np.zeros(rows, np.uint16)
    cells[:8] = np.arange(8) + 1
    margins = np.full(rows, 63, np.uint8)
    margins[:8] = np.arange(8) * 8  # the first of these is worth nothing
    pool = skewed_pool(rows, seed=0, cell_ids=cells, margins=margins)
    policy = replace(ON_CELLS, cell_weight=1.0, pair_weight=0.0)
    found, oracle, counted = both_ways(pool, make_budget(pool, 600), policy)
    assert counted
    assert same(found, oracle)
    assert set(range(1, 8)) <= set(found.rows.tolist())


def test_row_order_does_not_matter():
    pool = skewed_pool(5000, seed=3, levels=5)
    order = np.random.default_rng(0).permutation(5000)
    mixed = reorder(pool, order)
    one, two = (run(p, make_budget(p, 90), ON_CELLS) for p in (pool, mixed))
    assert same(one, two)
    assert (order[two.rows] == one.rows).all()


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("two terms", {"switches": replace(OFF, cells=True, pairs=True)}),
        ("no term", {"switches": OFF}),
        ("chance", {"switches": replace(OFF, cells=True, chance=True)}),
        ("two scores", {"weights": dict.fromkeys(Phase, UtilityWeights(margin=1, entropy=1))}),
        ("a floor", {"switches": replace(OFF, cells=True, floors=True)}),
        ("costs", {}),
        ("a site's limit", {}),
    ],
)
def test_counting_leaves_everything_else_to_the_other_engines(why, change):
    costs = np.arange(3000) % 2 if why == "costs" else np.zeros(3000)
    pool = skewed_pool(3000, seed=2, cost_bands=costs.astype(np.uint8))
    capacity = np.full(4, 10 if why == "a site's limit" else 10**9)
    floors = np.full(5, 30 if why == "a floor" else 0)
    budget = make_budget(pool, 100, site_capacity=capacity, class_floors=floors)
    found, _, counted = both_ways(pool, budget, replace(ON_CELLS, **change))
    assert not counted
    assert int(found.costs.sum()) in (40, 99, 100)
    assert (found.engine == "one partition") == (why in ("chance", "two scores"))


def test_a_pool_of_equal_scores_is_left_to_the_way_that_counts_kinds():
    with patch.object(market, "ROWS_A_PICK", 4), patch.object(market, "SMALLEST_SHORTLIST", 150):
        pool = skewed_pool(6000, seed=4, levels=1)
        found, oracle, counted = both_ways(pool, make_budget(pool, 100), ON_CELLS)
    assert not counted
    assert found.gains.sum() == pytest.approx(oracle.gains.sum(), rel=1e-9)


def test_a_crowd_below_the_level_that_the_budget_reaches_is_left_too():
    # A cell without a row at the top has thousands that could be worth buying.
    cells = np.repeat([0, 1], [2000, 6000]).astype(np.uint16)
    margins = np.repeat([63, 60], [2000, 6000]).astype(np.uint8)
    pool = skewed_pool(8000, seed=5, cell_ids=cells, margins=margins)
    with patch.object(market, "ROWS_A_PICK", 1), patch.object(market, "SMALLEST_SHORTLIST", 3000):
        found, oracle, counted = both_ways(pool, make_budget(pool, 100), ON_CELLS)
    assert not counted
    assert found.gains.sum() == pytest.approx(oracle.gains.sum(), rel=1e-9)
    assert both_ways(pool, make_budget(pool, 100), ON_CELLS)[2]
