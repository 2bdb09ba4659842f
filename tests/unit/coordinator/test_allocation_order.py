"""Quick ways to sort and to find a level give what the plain ways give."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.allocation.keys import ranked
from coordinator.core.allocation.prune import level_reaching

WIDE = 2**40


@given(
    rows=st.integers(0, 300),
    codes=st.sampled_from((1, 5, 200, WIDE)),
    levels=st.sampled_from((1, 3, 64, 2**20)),
    chance=st.sampled_from((1, 4, 2**63)),
    seed=st.integers(0, 2**16),
)
def test_rows_are_ranked_by_code_then_utility_then_chance(rows, codes, levels, chance, seed):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, codes, rows)
    worth = (rng.integers(0, levels, rows) / levels).astype(np.float32)
    ties = rng.integers(0, chance, rows, dtype=np.uint64)
    assert ranked(code, worth, ties).tolist() == np.lexsort((ties, -worth, code)).tolist()


def test_a_million_alike_rows_are_ranked_by_chance_alone():
    ties = np.random.default_rng(0).integers(0, 2**64, 1_000_000, dtype=np.uint64)
    alike = np.zeros(len(ties), dtype=np.int64)
    found = ranked(alike, alike.astype(np.float32), ties)
    assert (np.diff(ties[found].astype(np.float64)) >= 0).all()


@given(
    levels=st.lists(st.integers(0, 255), max_size=60),
    count=st.integers(1, 70),
    left_out=st.integers(0, 60),
    sort=st.booleans(),
)
def test_the_level_is_the_highest_that_enough_rows_reach(levels, count, left_out, sort):
    column = np.array(sorted(levels) if sort else levels, dtype=np.uint8)
    without = column[:left_out]
    kept = np.sort(column[left_out:])[::-1]
    wanted = int(kept[count - 1]) if count <= len(kept) else 0
    assert level_reaching(column, count, without=without) == wanted


def test_the_level_of_a_column_that_its_sample_misleads():
    # Every row that a sample of the column sees is 0, all others are high.
    column = np.full(1 << 16, 200, dtype=np.uint8)
    column[::16] = 0
    assert level_reaching(column, 60_000) == 200
    column[1:6] = 255
    assert level_reaching(column, 5) == 255
    assert level_reaching(column, 6) == 200
