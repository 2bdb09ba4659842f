"""A campaign's first version: its layer is fitted from samples at the sites, or stays seeded."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from fake_control import FakeControl

from edge_agent.inference import Predictor
from federation import central, first_layer, first_survey, frames, messages, onnx_engine, run_files
from federation.__main__ import main
from federation.client_app import Handle
from federation.dataset import SiteData, from_samples, no_examples, unlabelled_examples
from federation.errors import CheckpointInvalid, ControlFailed
from federation.feature_fit import exchange_count
from federation.fixed_columns import fixed_width, is_fitted
from federation.in_process import desk_for, simulate, transport_for
from federation.networks import Arrays, feature_names, initial_arrays
from federation.publish import publish_untrained, run_onnx
from federation.requests import TrainingRequest
from federation.server_app import SURVEY
from federation.statistics import seeded_code_book
from federation.survey import site_samples, unit_columns
from federation.train_command import CONTROL_PATIENCE_SECONDS, START_SECONDS, Pace
from model_bundle.features import ColumnSpec, FeatureSpec
from model_bundle.manifest import PART_MODEL, Bundle, unpack

pytestmark = pytest.mark.federation
MakeRequest = Callable[..., TrainingRequest]
QUICK = {"node_wait_seconds": 5, "local_epochs": 1, "batch_size": 16, "cell_count": 8, "rounds": 1}
NETWORK = {
    "unsupervised_width": 16,
    "filter_count": 16,
    "hidden_width": 16,
    "embedding_width": 16,
}
FIRST = {"run": 0, "version": 1, "parent_version": 0, "superlink": "127.0.0.1:1"}
Sites = Mapping[str, SiteData]


class Site:
    """A site that counts surveys, and dies at one of them."""

    def __init__(self, data: SiteData, dies_at: int = 0) -> None:
        self._handle, self._dies_at, self.asked = desk_for(data).handle, dies_at, 0

    def __call__(self, raw: bytes) -> bytes:
        self.asked += frames.decode(raw).kind == messages.SURVEY
        if self._dies_at and self.asked == self._dies_at:
            raise KeyboardInterrupt
        return self._handle(raw)


class Clock:
    """Time that only passes where somebody looks at it or waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.1
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def pace(self) -> Pace:
        return Pace(self, self.pause)


@pytest.fixture(scope="module")
def pools(digits: Sites) -> dict[str, SiteData]:
    """Sites whose samples wait for their first label."""
    return {
        site: SiteData(
            no_examples(),
            no_examples(),
            unlabelled_examples(data.train.inputs, len(data.train)),
        )
        for site, data in digits.items()
    }


@pytest.fixture
def make(make_request: MakeRequest, digits: Sites) -> MakeRequest:
    def made(folder: str = "run-0", **changes: object) -> TrainingRequest:
        counts = dict.fromkeys(digits, 0)
        values = {"network": NETWORK, "settings": QUICK, "label_counts": counts, **FIRST}
        request = make_request(folder, **(values | changes))
        request.folder.mkdir(parents=True, exist_ok=True)
        return request

    return made


def survey(request: TrainingRequest, sites: Mapping[str, Handle]) -> float:
    """Surveys as the server app does; returns the seconds that it waited."""
    clock = Clock()
    first_layer.survey_first(request, transport_for(sites), clock=clock, pause=clock.pause)
    return clock.now


def desks(sites: Sites, **changed: Handle) -> dict[str, Handle]:
    return {site: desk_for(data).handle for site, data in sites.items()} | changed


def superlink(
    monkeypatch: pytest.MonkeyPatch, script: list[str], work: Callable[[], object]
) -> FakeControl:
    control = FakeControl(script, work)
    monkeypatch.setattr(first_survey, "Control", lambda *_: control)
    return control


def published(request: TrainingRequest, clock: Clock | None = None) -> Bundle:
    pace = (clock or Clock()).pace()
    publish_untrained(request, first_survey.first_fit_of(request, pace))
    assert run_files.read_state(request.folder)["state"] == "candidate"
    return unpack((request.folder / run_files.BUNDLE_NAME).read_bytes())


def arrays_of(bundle: Bundle, request: TrainingRequest) -> Arrays:
    return dict(onnx_engine.arrays_of(bundle.parts[PART_MODEL], request.network))


def facts_of(request: TrainingRequest) -> dict[str, object]:
    return dict(json.loads((request.folder / run_files.SURVEY_NAME).read_text()))


def assert_seeded(bundle: Bundle, request: TrainingRequest) -> None:
    expected = initial_arrays(request.network, seed=request.seed)
    found = arrays_of(bundle, request)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert not bundle.manifest.training["fitted"]
    assert not facts_of(request)["fitted"]


def test_a_first_version_has_a_fitted_layer_that_later_runs_take_over(
    pools: Sites, digits: Sites, make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = []
    for folder in ("run-0", "again"):
        request = make(folder)
        site = Site(pools["north"])
        work = lambda r=request, s=site: survey(r, desks(pools, north=s))  # noqa: E731
        control = superlink(monkeypatch, ["completes"], work)
        bundles.append(published(request))
        assert site.asked == first_layer.first_exchange_count(request)
        assert [run["task"] for run in control.runs] == [SURVEY]
    first, request = bundles[0], make("run-0")
    assert first.parts == bundles[1].parts
    told = {"rounds": 0, "rule": "untrained", "fitted": True, "fitted_cells": True}
    assert first.manifest.training == told
    assert set(facts_of(request)["samples"]) == set(pools)  # type: ignore[call-overload]
    assert Predictor(first).is_untrained
    arrays, seeded = arrays_of(first, request), initial_arrays(request.network, seed=request.seed)
    assert is_fitted(arrays, request.network)
    fixed = feature_names(request.network)
    assert all(np.array_equal(arrays[n], seeded[n]) for n in seeded if n not in fixed)
    child = make("child", run=1, version=2, parent_version=1, parent_bundle="../run-0/bundle")
    site = Site(digits["north"])
    central.train_run(child, transport_for(desks(digits, north=site)), pause=lambda _: None)
    assert not site.asked
    trained = central.final_arrays(child)
    assert all(np.array_equal(trained[name], arrays[name]) for name in fixed)


def test_first_cells_are_as_many_as_first_labels_and_lie_among_the_columns_of_the_layer(
    pools: Sites, make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make(first_label_count=20)
    superlink(monkeypatch, ["completes"], lambda: survey(request, desks(pools)))
    bundle = published(request)
    predictor, layer = Predictor(bundle), arrays_of(bundle, request)
    assert predictor.code_book.shape == (20, NETWORK["unsupervised_width"])
    assert np.allclose(np.linalg.norm(predictor.code_book, axis=1), 1, atol=1e-5)
    samples = site_samples(pools["north"], request.network)
    found = run_onnx(request.network, bundle.parts[PART_MODEL], samples)["embedding"]
    columns = unit_columns(request.network, layer, samples)
    assert np.allclose(found, columns, atol=1e-4)
    # The cells are the pools': most samples lie nearer to a centre than to one drawn by chance.
    drawn = np.random.default_rng(0).standard_normal(predictor.code_book.shape)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    nearness = [(columns @ np.float32(book).T).max(axis=1) for book in (predictor.code_book, drawn)]
    assert (nearness[0] > nearness[1]).mean() > 0.9
    assert not predictor.needs_coverage(alone=False)
    assert predictor.needs_coverage(alone=True)


def test_training_does_not_begin_with_the_cells_of_the_columns(
    pools: Sites, make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they have the shape of its own: they lie in another space."""
    request = make()
    superlink(monkeypatch, ["completes"], lambda: survey(request, desks(pools)))
    cells = Predictor(published(request)).code_book
    child = make("child", run=1, version=2, parent_version=1, parent_bundle="../run-0/bundle")
    begun = central.start_state(child).code_book
    assert begun.shape == cells.shape == (8, 16)
    assert np.array_equal(begun, seeded_code_book(8, 16, seed=child.seed))


def test_cells_that_find_no_quorum_cost_no_layer(
    pools: Sites, make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make()
    layer_stages = exchange_count(request.network)

    def fades(data: SiteData) -> Handle:
        site = Site(data)

        def handle(raw: bytes) -> bytes:
            answer = site(raw)
            if site.asked > layer_stages:
                raise TimeoutError
            return answer

        return handle

    gone = {site: fades(pools[site]) for site in ("east", "north")}
    superlink(monkeypatch, ["completes"], lambda: survey(request, desks(pools, **gone)))
    bundle, facts = published(request), facts_of(request)
    assert bundle.manifest.training == {"rounds": 0, "rule": "untrained", "fitted": True}
    assert is_fitted(arrays_of(bundle, request), request.network)
    assert (facts["fitted"], facts["cells"]) == (True, 0)
    assert "quorum" in str(facts["error"])
    assert Predictor(bundle).needs_coverage(alone=False)


def test_columns_that_are_given_get_cells_where_a_campaign_asks_for_them(
    make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = FeatureSpec("record", columns=(ColumnSpec("x"), ColumnSpec("y")))
    heaps = np.random.default_rng(3).normal(0, 0.1, (90, 2)) + np.repeat(np.eye(2), 45, axis=0)
    rows = [{"x": float(x), "y": float(y)} for x, y in heaps]
    free = unlabelled_examples(from_samples(rows, [0] * 90, features).inputs, 90)
    data = SiteData(no_examples(), no_examples(), free)
    sizes = {"hidden_width": 8, "embedding_width": 8}
    changes = {"network": sizes, "family": "record", "features": features.to_mapping()}
    assert not make(**changes).surveys_first
    request = make(**changes, settings={**QUICK, "first_cells": True})
    assert request.surveys_first
    sites = {site: desk_for(data).handle for site in request.label_counts}
    superlink(monkeypatch, ["completes"], lambda: survey(request, sites))
    predictor = Predictor(published(request))
    assert predictor.code_book.shape == (8, fixed_width(request.network))
    assert facts_of(request)["fitted"]
    assert not predictor.needs_coverage(alone=False)
    cells = predictor.predict(rows).embedding @ predictor.code_book.T
    assert not set(cells[:45].argmax(axis=1)) & set(cells[45:].argmax(axis=1))


def test_a_survey_that_was_killed_is_asked_again_and_one_that_is_over_is_not(
    pools: Sites, make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, whole = make(), make("whole")
    survey(whole, desks(pools))
    with pytest.raises(KeyboardInterrupt):
        survey(request, desks(pools, north=Site(pools["north"], dies_at=5)))
    with pytest.raises(CheckpointInvalid):
        first_layer.load(request)
    # The command goes on watching: the first attempt is dead, the second one finds all.
    control = superlink(monkeypatch, ["fails", "completes"], lambda: survey(request, desks(pools)))
    found = first_survey.first_fit_of(request, Clock().pace())
    assert len(control.runs) == 2
    expected = first_layer.load(whole)
    assert {n: a.tobytes() for n, a in found.layer.items()} == {
        n: a.tobytes() for n, a in expected.layer.items()
    }
    assert found.cells is not None
    assert expected.cells is not None
    assert found.cells.tobytes() == expected.cells.tobytes()
    # The command was killed between survey and export: nobody is asked, the SuperLink neither.
    silent = superlink(monkeypatch, [], lambda: None)
    site = Site(pools["north"])
    survey(request, desks(pools, north=site))
    assert is_fitted(arrays_of(published(request), request), request.network)
    assert not site.asked
    assert not silent.runs


def test_a_damaged_layer_or_one_of_another_request_does_not_count(
    pools: Sites, make: MakeRequest
) -> None:
    request = make()
    survey(request, desks(pools))
    assert first_layer.is_settled(request)
    other = dataclasses.replace(request, seed=request.seed + 1)
    assert not first_layer.is_settled(other)
    path = request.folder / first_layer.LAYER_NAME
    path.write_bytes(path.read_bytes()[:-1])
    assert not first_layer.is_settled(request)


@pytest.mark.parametrize("missing", ["samples", "samples of most sites", "sites", "answers"])
def test_without_samples_or_sites_the_seeded_version_comes_within_the_wait(
    pools: Sites, make: MakeRequest, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    empty = SiteData(no_examples(), no_examples())

    def silent(_: bytes) -> bytes:
        raise TimeoutError

    sites = {
        "samples": desks(dict.fromkeys(pools, empty)),
        "samples of most sites": desks({**dict.fromkeys(pools, empty), "north": pools["north"]}),
        "sites": {},
        "answers": desks(pools, east=silent, north=silent),
    }[missing]
    request, waits = make(), []
    superlink(monkeypatch, ["completes"], lambda: waits.append(survey(request, sites)))
    assert_seeded(published(request), request)
    # Where every site is there nobody waits; where some are away, for `node_wait_seconds`.
    longest = request.settings.rounds.node_wait_seconds + 1 if missing == "sites" else 1
    assert len(waits) == 1
    assert waits[0] <= longest
    assert ("error" in facts_of(request)) is (missing in {"sites", "answers"})


def test_a_first_version_waits_for_all_sites_and_goes_on_without_the_one_that_stays_away(
    pools: Sites, make: MakeRequest
) -> None:
    request = make()
    wait = request.settings.rounds.node_wait_seconds
    present = {site: data for site, data in pools.items() if site != "south"}
    assert survey(request, desks(present)) >= wait
    assert facts_of(request)["fitted"]
    assert set(facts_of(request)["samples"]) == {"east", "north"}  # type: ignore[call-overload]


def test_a_site_that_is_silent_once_is_not_waited_for_again(
    pools: Sites, make: MakeRequest
) -> None:
    calls = []

    def silent(raw: bytes) -> bytes:
        calls.append(frames.decode(raw).kind)
        raise TimeoutError

    request = make()
    survey(request, desks(pools, east=silent))
    assert calls == [messages.SURVEY]
    assert facts_of(request)["fitted"]
    assert set(facts_of(request)["silent"]) == {"east"}  # type: ignore[call-overload]


def test_an_operator_sees_how_far_a_survey_is(pools: Sites, make: MakeRequest) -> None:
    request, seen = make(), []
    handle = desk_for(pools["north"]).handle

    def look(raw: bytes) -> bytes:
        state = run_files.read_state(request.folder)
        seen.append((state["state"], state["round"], state["rounds"]))
        return handle(raw)

    survey(request, desks(pools, north=look))
    total = first_layer.first_exchange_count(request)
    assert seen == [("training", stage, total) for stage in range(total)]


def test_a_dead_superlink_costs_the_layer_and_not_the_version(
    make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead(FakeControl):
        def find_runs(self, key: str, value: str) -> list[object]:  # type: ignore[override]
            raise ControlFailed("the SuperLink does not answer", retry=True)

    request, clock = make(), Clock()
    monkeypatch.setattr(first_survey, "Control", lambda *_: Dead([], lambda: None))
    assert_seeded(published(request, clock), request)
    assert clock.now < request.settings.rounds.node_wait_seconds + 1
    assert "does not answer" in str(facts_of(request)["error"])
    # And nothing is asked again by a second command.
    monkeypatch.setattr(first_survey, "Control", None)
    assert_seeded(published(request), request)


def test_a_survey_that_never_begins_is_given_up_and_stopped(
    make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, clock = make(), Clock()
    control = superlink(monkeypatch, ["hangs"] * 9, lambda: None)
    assert_seeded(published(request, clock), request)
    wait = request.settings.rounds.node_wait_seconds
    assert clock.now < wait + START_SECONDS + CONTROL_PATIENCE_SECONDS
    assert set(control.stopped) == set(range(len(control.runs)))


def test_a_survey_that_fails_in_all_attempts_is_told_with_its_reason(
    make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make()
    control = superlink(monkeypatch, ["fails"] * 9, lambda: None)
    assert_seeded(published(request), request)
    assert len(control.runs) == 3
    assert "heartbeat lost" in str(facts_of(request)["error"])


def test_a_run_after_a_seeded_first_version_surveys(
    pools: Sites, digits: Sites, make: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make()
    superlink(monkeypatch, ["completes"], lambda: survey(request, {}))
    published(request)
    child = make("child", run=1, version=2, parent_version=1, parent_bundle="../run-0/bundle")
    simulate(child, digits)
    assert facts_of(child)["fitted"]


def order(request: TrainingRequest, tmp_path: Path, **changes: object) -> Path:
    values = {
        "campaign_id": request.campaign_id,
        "family": "image",
        "features": request.network.features.to_mapping(),
        "label_schema": {"classes": list(request.label_schema.classes), "version": 1},
        "seed": request.seed,
        "created_at": request.created_at,
        "expires_at": request.expires_at,
        "release_key": str(request.release_key),
        "settings": QUICK,
        **FIRST,
    }
    path = tmp_path / "order" / "request.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values | changes))
    return path


def test_the_command_writes_a_seeded_version_where_no_superlink_listens(
    make: MakeRequest, tmp_path: Path
) -> None:
    path = order(make(), tmp_path, network=NETWORK, settings={**QUICK, "node_wait_seconds": 0})
    assert main(["init-model", str(path)]) == 0
    facts = json.loads((path.parent / run_files.SURVEY_NAME).read_text())
    assert not facts["fitted"]
    bundle = unpack((path.parent / run_files.BUNDLE_NAME).read_bytes())
    assert bundle.manifest.training == {"rounds": 0, "rule": "untrained", "fitted": False}


def test_a_campaign_without_such_a_layer_asks_nobody(make: MakeRequest, tmp_path: Path) -> None:
    """It does not even import what talks to the SuperLink."""
    path = order(make(), tmp_path)
    script = (
        "import sys; from federation.__main__ import main\n"
        f"assert main(['init-model', {str(path)!r}]) == 0\n"
        "print('flwr' in sys.modules, 'httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.split()[-2:] == [b"False", b"False"]
    names = {found.name for found in path.parent.iterdir()}
    assert names == {"request.json", run_files.BUNDLE_NAME, run_files.STATE_NAME}
    bundle = unpack((path.parent / run_files.BUNDLE_NAME).read_bytes())
    assert bundle.manifest.training == {"rounds": 0, "rule": "untrained"}
