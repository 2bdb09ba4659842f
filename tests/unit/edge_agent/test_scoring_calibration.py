"""The pre-filter loses nothing that could be bought."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import prefilter
from edge_agent.prefilter import keep_buyable
from edge_agent.scoring import CandidateColumns


def columns(rows, seed=0, cells=3):
    rng = np.random.default_rng(seed)

    def small(high):
        return rng.integers(0, high, rows)

    return CandidateColumns(
        margins=small(64).astype(np.uint8),
        top_probabilities=small(64).astype(np.uint8),
        entropies=small(64).astype(np.uint8),
        divergence_risk=small(256).astype(np.uint8),
        predicted_classes=small(2).astype(np.uint16),
        runner_up_classes=small(2).astype(np.uint16),
        prototype_classes=small(2).astype(np.uint16),
        cell_ids=small(cells).astype(np.uint16),
        density_cost=small(16).astype(np.uint8),
    )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 150),
    limit=st.integers(0, 12),
    seed=st.integers(0, 50),
    weights=st.tuples(*[st.floats(0, 1)] * 3).filter(lambda w: sum(w) > 0.01),
)
def test_whatever_the_weights_the_best_of_each_key_are_sent(rows, limit, seed, weights):
    made = columns(rows, seed)
    kept = keep_buyable(made, limit=limit)
    assert len(kept.rows) + kept.left_out == rows
    scores = prefilter._scores(made).astype(np.float64) @ np.array(weights)
    keys = prefilter._keys(made)
    sent = np.zeros(rows, dtype=bool)
    sent[kept.rows] = True
    for key in np.unique(keys):
        members = np.flatnonzero(keys == key)
        best = np.sort(scores[members])[::-1][:limit].sum()
        offered = np.sort(scores[members[sent[members]]])[::-1][:limit].sum()
        assert offered == pytest.approx(best)


def test_the_filter_saves_most_of_a_large_pool_with_one_score():
    made = columns(4000, cells=1)
    one = CandidateColumns(
        **{
            name: getattr(made, name) if name == "margins" else np.zeros_like(getattr(made, name))
            for name in made.__slots__
        }
    )
    kept = keep_buyable(one, limit=20)
    assert len(kept.rows) < 200
    assert one.margins[kept.rows].min() >= np.sort(one.margins)[-20]


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(prefilter)
    assert result.attempted > 0
    assert result.failed == 0
