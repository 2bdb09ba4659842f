"""Rules of aggregation, against hand-made numbers and lying sites."""

from __future__ import annotations

import numpy as np
import pytest

from federation.aggregation import (
    RULES,
    AggregationSettings,
    ServerState,
    Update,
    aggregate,
    krum_scores,
)
from federation.errors import RequestInvalid

START = {"w": np.zeros(3, np.float32)}


def sites(*values: float, weight: float = 1.0) -> list[Update]:
    return [Update(f"s{i}", {"w": np.full(3, v, np.float32)}, weight) for i, v in enumerate(values)]


def step(rule: str, updates: list[Update], **settings: float) -> float:
    chosen = AggregationSettings(rule, **settings)  # type: ignore[arg-type]
    return float(aggregate(START, updates, ServerState(), chosen)[0]["w"][0])


@pytest.mark.parametrize("rule", RULES)
def test_the_result_does_not_depend_on_who_answered_first(rule: str) -> None:
    updates = sites(1.0, 2.0, 3.5, 4.0)
    settings = AggregationSettings(rule)
    one = aggregate(START, updates, ServerState(), settings)[0]["w"].tobytes()
    two = aggregate(START, updates[::-1], ServerState(), settings)[0]["w"].tobytes()
    assert one == two


@pytest.mark.parametrize("rule", RULES)
def test_inputs_are_never_changed(rule: str) -> None:
    updates = sites(1.0, 2.0, 3.0)
    before = [u.arrays["w"].tobytes() for u in updates], START["w"].tobytes()
    aggregate(START, updates, ServerState(), AggregationSettings(rule))
    assert ([u.arrays["w"].tobytes() for u in updates], START["w"].tobytes()) == before


def test_momentum_carries_a_direction_on() -> None:
    settings = AggregationSettings("fedavgm", server_momentum=0.5)
    arrays, state = aggregate(START, sites(1.0), ServerState(), settings)
    assert arrays["w"][0] == 1.0
    still = [Update("s0", {"w": arrays["w"]}, 1)]
    arrays, state = aggregate(arrays, still, state, settings)
    assert arrays["w"][0] == 1.5
    assert state.step == 2


def test_a_mean_is_weighted_by_examples() -> None:
    updates = [Update("a", {"w": np.full(3, 1, np.float32)}, 30)]
    updates += [Update("b", {"w": np.full(3, 5, np.float32)}, 10), *sites(100.0, weight=0)]
    assert step("fedavg", updates) == pytest.approx(2.0)


@pytest.mark.parametrize("rule", ["trimmed_mean", "median", "krum", "multi_krum"])
def test_robust_rules_withstand_one_lying_site(rule: str) -> None:
    assert step(rule, sites(1.0, 1.1, 0.9, 1.0, -500.0)) == pytest.approx(1.0, abs=0.11)


def test_a_plain_mean_does_not_withstand_it() -> None:
    assert step("fedavg", sites(1.0, 1.1, 0.9, 1.0, -500.0)) < -90


def test_adam_moves_by_its_rate_whatever_the_scale() -> None:
    one = step("fedadam", sites(1.0), server_momentum=0.0, server_learning_rate=0.1)
    two = step("fedadam", sites(50.0), server_momentum=0.0, server_learning_rate=0.1)
    assert one == pytest.approx(two, rel=0.02)


def test_the_most_central_update_has_the_lowest_krum_score() -> None:
    flat = np.float32([[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [9.0, 9.0]])
    scores = krum_scores(flat, byzantine_count=1)
    assert scores.argmax() == 3


def test_no_update_changes_nothing() -> None:
    state = ServerState()
    assert aggregate(START, [], state, AggregationSettings()) == (START, state)


@pytest.mark.parametrize(
    "values", [{"rule": "mean"}, {"trimmed_ratio": 0.5}, {"server_momentum": 1}]
)
def test_settings_out_of_range_are_named(values: dict[str, object]) -> None:
    with pytest.raises(RequestInvalid, match=next(iter(values))):
        AggregationSettings(**values)  # type: ignore[arg-type]
