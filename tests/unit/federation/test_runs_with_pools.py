"""Whole runs whose sites hold unlabelled samples: the better of two courses is signed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federation import central, checkpoint
from federation.central import Assessment, better
from federation.checkpoint import RoundState
from federation.courier import Replies
from federation.dataset import SiteData, unlabelled_examples
from federation.in_process import desk_for, simulate, transport_for
from federation.publish import publish
from federation.requests import TrainingRequest
from federation.round_loop import plain_plan, run_rounds
from model_bundle.manifest import unpack

pytestmark = pytest.mark.federation
MakeRequest = Callable[..., TrainingRequest]
QUICK = {"node_wait_seconds": 0, "local_epochs": 2, "batch_size": 32, "cell_count": 8}
POOL = {**QUICK, "unlabelled_weight": 1.0, "spread": "graph", "input_noise": 0.3}
SPOILT = {**POOL, "cohesion_floor": -1.0, "input_noise": 10.0}


@pytest.fixture(scope="module")
def rich(digits: dict[str, SiteData]) -> dict[str, SiteData]:
    """The sites' labels cut to a quarter; the rest of their images stay without one."""
    found = {}
    for site, data in digits.items():
        few = slice(0, max(8, len(data.train) // 4))
        train = dataclasses.replace(
            data.train,
            inputs={name: array[few] for name, array in data.train.inputs.items()},
            classes=data.train.classes[few],
            calibration=data.train.calibration[few],
        )
        pool = unlabelled_examples(data.train.inputs, len(data.train))
        found[site] = SiteData(train, data.test, pool)
    return found


def kept_and_measured(request: TrainingRequest) -> tuple[str, dict[str, float]]:
    facts = central.load_assessment(request.folder, request.digest()).facts
    return str(facts["kept"]), dict(facts["compared"])


def final_bytes(request: TrainingRequest, kept: str = "") -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in central.final_arrays(request, kept).items()}


def test_a_run_keeps_the_better_of_two_courses_and_signs_it(
    rich: dict[str, SiteData], make_request: MakeRequest
) -> None:
    request = make_request(settings={**POOL, "rounds": 6, "pretrain_rounds": 2})
    simulate(request, rich)
    kept, measured = kept_and_measured(request)
    assert measured[kept] == max(measured.values())
    publish(request)
    evaluation = json.loads((request.folder / "evaluation.json").read_text())
    assert evaluation["accuracy"] == measured[kept]
    told = unpack((request.folder / "bundle").read_bytes()).manifest.training
    assert told["kept"] == kept
    assert told["compared"] == measured


def test_a_pool_that_misleads_costs_nothing(
    rich: dict[str, SiteData], make_request: MakeRequest
) -> None:
    spoilt = make_request("spoilt", settings={**SPOILT, "rounds": 6})
    simulate(spoilt, rich)
    kept, measured = kept_and_measured(spoilt)
    assert kept == "plain"
    assert measured["pool"] < measured["plain"]
    plain = make_request("plain", settings={**QUICK, "rounds": 6})
    simulate(plain, rich)
    assert final_bytes(spoilt, kept) == final_bytes(plain)
    assert final_bytes(spoilt, "pool") != final_bytes(plain)


class Dying:
    """A transport that breaks after some exchanges, as if the central process were killed."""

    def __init__(self, sites: Mapping[str, SiteData], left: int) -> None:
        self._inner = transport_for({site: desk_for(data).handle for site, data in sites.items()})
        self._left = left

    def sites(self) -> list[str]:
        return self._inner.sites()

    def exchange(self, frame: bytes, sites: list[str], *, timeout_seconds: float) -> Replies:
        self._left -= 1
        if self._left < 0:
            raise ConnectionError
        return self._inner.exchange(frame, sites, timeout_seconds=timeout_seconds)


def test_a_run_that_died_in_its_second_course_ends_like_the_uninterrupted_one(
    rich: dict[str, SiteData], make_request: MakeRequest
) -> None:
    settings = {**POOL, "rounds": 2}
    whole, torn = make_request("whole", settings=settings), make_request("torn", settings=settings)
    simulate(whole, rich)
    with pytest.raises(ConnectionError):
        central.train_run(torn, Dying(rich, 4), pause=lambda _: None)
    assert checkpoint.round_folder(torn.folder / "plain", 1).exists()
    central.train_run(torn, Dying(rich, 99), pause=lambda _: None)
    assert kept_and_measured(torn) == kept_and_measured(whole)
    for kept in ("pool", "plain"):
        assert final_bytes(torn, kept) == final_bytes(whole, kept)


def test_the_teacher_is_the_running_mean_of_the_rounds(
    rich: dict[str, SiteData], make_request: MakeRequest
) -> None:
    request = make_request(settings={**POOL, "rounds": 3, "teacher_momentum": 0.75})
    states = [central.start_state(request)]

    def note(state: RoundState, facts: Mapping[str, Any]) -> RoundState:
        del facts
        states.append(state)
        return state

    plan, transport = central.plan_of(request), Dying(rich, 99)
    run_rounds(plan, transport, states[0], note)
    mean = states[0].arrays
    for state in states[1:]:
        mean = {n: 0.75 * mean[n] + 0.25 * a for n, a in state.arrays.items()}
        assert all(np.allclose(state.server.average[n], a, atol=1e-6) for n, a in mean.items())
    saved = checkpoint.save(request.folder, states[1], "digest", {})
    found = checkpoint.resume(request.folder, states[0], "digest").server.average
    assert all((found[n] == a).all() for n, a in saved.server.average.items())
    for other in (plain_plan(plan), replace(plan, rounds=replace(plan.rounds, teacher_momentum=0))):
        once = replace(other, rounds=replace(other.rounds, rounds=1))
        state = run_rounds(once, transport, states[0], lambda following, _: following)
        assert not state.server.average


def test_a_run_may_trust_its_pool_without_comparing(
    rich: dict[str, SiteData], make_request: MakeRequest
) -> None:
    request = make_request(settings={**POOL, "rounds": 1, "compare_plain": False})
    simulate(request, rich)
    assert "kept" not in central.load_assessment(request.folder, request.digest()).facts
    assert not (request.folder / "plain").exists()


@pytest.mark.parametrize(
    ("pool", "plain", "examples", "kept"),
    [(0.8, 0.7, 9, "pool"), (0.7, 0.8, 9, "plain"), (0.7, 0.7, 9, "pool"), (0.0, 0.0, 0, "plain")],
)
def test_without_evidence_plain_training_is_kept(
    pool: float, plain: float, examples: int, kept: str
) -> None:
    none = np.zeros((0, 2), dtype=np.float32)

    def measured(accuracy: float) -> Assessment:
        evaluation: dict[str, Any] = {"accuracy": accuracy, "example_count": examples}
        return Assessment(none, none, 1.0, -1.0, evaluation, {})

    found = better({"pool": measured(pool), "plain": measured(plain)})
    assert found.facts["kept"] == kept
