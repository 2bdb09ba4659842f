"""Whole runs whose first layer learns without labels: surveyed once, resumed, handed on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from edge_agent.inference import Predictor
from federation import central, frames, messages, run_files
from federation.client_app import Handle
from federation.dataset import SiteData, from_samples, no_examples, unlabelled_examples
from federation.errors import QuorumMissed
from federation.fixed_columns import is_fitted
from federation.in_process import desk_for, simulate, transport_for
from federation.networks import feature_names, initial_arrays
from federation.publish import publish
from federation.requests import TrainingRequest
from federation.trainer_desk import DeskLimits
from model_bundle.features import FeatureSpec
from model_bundle.manifest import unpack

pytestmark = pytest.mark.federation
MakeRequest = Callable[..., TrainingRequest]
QUICK = {"node_wait_seconds": 0, "local_epochs": 2, "batch_size": 16, "cell_count": 8}
NETWORK = {
    "unsupervised_width": 32,
    "filter_count": 32,
    "hidden_width": 32,
    "embedding_width": 16,
}
STAGES = 14
Sites = Mapping[str, SiteData]


@pytest.fixture(scope="module")
def rich(digits: dict[str, SiteData]) -> dict[str, SiteData]:
    """Sites with 20 labels each; the rest of their images stay without one."""
    found = {}
    for site, data in digits.items():
        few = dataclasses.replace(
            data.train,
            inputs={name: array[:20] for name, array in data.train.inputs.items()},
            classes=data.train.classes[:20],
            calibration=data.train.calibration[:20],
        )
        free = {name: array[20:] for name, array in data.train.inputs.items()}
        pool = unlabelled_examples(free, len(data.train) - 20)
        found[site] = SiteData(few, data.test, pool)
    return found


@pytest.fixture
def make(make_request: MakeRequest) -> MakeRequest:
    def made(folder: str = "run-1", **changes: object) -> TrainingRequest:
        values = {"network": NETWORK, "settings": {**QUICK, "rounds": 4}}
        return make_request(folder, **(values | changes))

    return made


class Counting:
    """A site that counts the commands that it gets, and dies at one of them."""

    def __init__(self, data: SiteData, dies_at: int = 0) -> None:
        self._handle, self._dies_at = desk_for(data).handle, dies_at
        self.kinds: list[str] = []

    def __call__(self, raw: bytes) -> bytes:
        self.kinds.append(frames.decode(raw).kind)
        if len(self.kinds) == self._dies_at:
            raise KeyboardInterrupt
        return self._handle(raw)

    def count(self, kind: str) -> int:
        return self.kinds.count(kind)


def handles(sites: Sites, **changed: Handle) -> dict[str, Handle]:
    return {site: desk_for(data).handle for site, data in sites.items()} | changed


def train(request: TrainingRequest, sites: Mapping[str, Handle]) -> None:
    central.train_run(request, transport_for(sites), pause=lambda _: None)


def facts_of(request: TrainingRequest) -> dict[str, object]:
    return dict(json.loads((request.folder / run_files.SURVEY_NAME).read_text()))


def layer_of(request: TrainingRequest, kept: str = "") -> dict[str, bytes]:
    arrays = central.final_arrays(request, kept)
    return {name: arrays[name].tobytes() for name in feature_names(request.network)}


def final_bytes(request: TrainingRequest, kept: str = "") -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in central.final_arrays(request, kept).items()}


def changing(handle: Handle, change: Callable[[frames.Frame], frames.Frame | None]) -> Handle:
    """A site that changes its answers to surveys; None stands for no answer."""

    def changed(raw: bytes) -> bytes:
        frame = frames.decode(handle(raw))
        if frame.kind != messages.SUMS:
            return frames.encode(frame)
        told = change(frame)
        if told is None:
            raise TimeoutError
        return frames.encode(told)

    return changed


def test_a_run_surveys_trains_publishes_and_its_child_does_not_survey(
    rich: Sites, make: MakeRequest
) -> None:
    """60 labels and 210 more images at three sites that hold different classes, 8 rounds.

    Right: .878 of 450 test images, .676 on the seeded layer, .809 with convolutions that learn from
    the labels alone (.842 and .856 after 20 and 40 rounds).
    """
    layer = {"unsupervised_width": 32, "filter_count": 32}
    first = make(network=layer, settings={**QUICK, "rounds": 8})
    north = Counting(rich["north"])
    train(first, handles(rich, north=north))
    assert north.count(messages.SURVEY) == STAGES
    facts = facts_of(first)
    assert facts["fitted"]
    assert facts["stages"] == STAGES
    assert set(facts["samples"]) == set(rich)
    arrays = central.final_arrays(first)
    assert is_fitted(arrays, first.network)
    seeded = initial_arrays(first.network, seed=first.seed)
    assert not np.array_equal(arrays["head.weight"], seeded["head.weight"])
    publish(first)
    evaluation = json.loads((first.folder / run_files.EVALUATION_NAME).read_text())
    assert evaluation["accuracy"] > 0.84
    bundle = unpack((first.folder / run_files.BUNDLE_NAME).read_bytes())
    assert not Predictor(bundle).is_untrained
    child = make("child", network=layer, parent_bundle="../run-1/bundle", version=3, run=2)
    north = Counting(rich["north"])
    train(child, handles(rich, north=north))
    assert not north.count(messages.SURVEY)
    assert not (child.folder / run_files.SURVEY_NAME).exists()
    assert layer_of(child) == layer_of(first)


def test_a_run_that_was_killed_surveys_again_only_before_its_first_round(
    rich: Sites, make: MakeRequest
) -> None:
    whole, early, late = make("whole"), make("early"), make("late")
    simulate(whole, rich)
    for request, dies_at, again in ((early, 5, STAGES), (late, STAGES + 3, 0)):
        with pytest.raises(KeyboardInterrupt):
            train(request, handles(rich, north=Counting(rich["north"], dies_at)))
        north = Counting(rich["north"])
        train(request, handles(rich, north=north))
        assert north.count(messages.SURVEY) == again
        assert final_bytes(request) == final_bytes(whole)


def test_both_courses_of_a_run_share_one_survey_even_after_a_kill(
    rich: Sites, make: MakeRequest
) -> None:
    settings = {**QUICK, "rounds": 2, "unlabelled_weight": 1.0}
    whole, torn = make("whole", settings=settings), make("torn", settings=settings)
    north = Counting(rich["north"])
    train(whole, handles(rich, north=north))
    assert north.count(messages.SURVEY) == STAGES
    assert layer_of(whole, "pool") == layer_of(whole, "plain")
    # Both rounds and the assessment of the first course are done, none of the second.
    with pytest.raises(KeyboardInterrupt):
        train(torn, handles(rich, north=Counting(rich["north"], STAGES + 4)))
    assert not (torn.folder / central.PLAIN).exists()
    north = Counting(rich["north"])
    train(torn, handles(rich, north=north))
    assert not north.count(messages.SURVEY)
    for kept in ("pool", "plain"):
        assert final_bytes(torn, kept) == final_bytes(whole, kept)


@pytest.mark.parametrize("fault", ["nan", "shape", "silent", "late", "count"])
def test_a_site_that_answers_wrongly_or_not_at_all_is_left_out(
    rich: Sites, make: MakeRequest, fault: str
) -> None:
    calls = 0

    def change(frame: frames.Frame) -> frames.Frame | None:
        nonlocal calls
        calls += 1
        arrays = dict(frame.arrays)
        if fault == "silent" or (fault == "late" and calls > 2):
            return None
        if fault == "nan":
            arrays["sums"] = arrays["sums"] * np.float32(np.nan)
        if fault == "shape":
            arrays["sums"] = arrays["sums"][:, :-1]
        if fault == "count":
            arrays["counts"] = arrays["counts"] * 100
        return dataclasses.replace(frame, arrays=arrays)

    request, without = make("with"), make("without")
    bad = changing(desk_for(rich["east"]).handle, change)
    train(request, handles(rich, east=bad))
    facts = facts_of(request)
    assert "east" in {**facts["refused"], **facts["silent"]}
    assert facts["fitted"]
    if fault != "late":
        assert set(facts["samples"]) == {"north", "south"}
        poor = SiteData(no_examples(), rich["east"].test)
        simulate(without, {**rich, "east": poor})
        assert layer_of(request) == layer_of(without)


def test_a_survey_without_a_quorum_ends_the_run(rich: Sites, make: MakeRequest) -> None:
    silent = changing(desk_for(rich["east"]).handle, lambda _: None)
    with pytest.raises(QuorumMissed, match="survey had no quorum"):
        train(make(), handles(rich, north=silent, south=silent))


def test_sites_with_too_few_samples_keep_the_seeded_layer_and_train_on_it(
    rich: Sites, make: MakeRequest
) -> None:
    request = make()
    poor = {site: SiteData(data.train, data.test) for site, data in rich.items()}
    simulate(request, poor)
    facts = facts_of(request)
    assert not facts["fitted"]
    assert not facts["samples"]
    seeded = initial_arrays(request.network, seed=request.seed)
    arrays = central.final_arrays(request)
    for name in feature_names(request.network):
        assert np.array_equal(arrays[name], seeded[name])
    lonely = make("lonely", settings={**QUICK, "rounds": 1, "quorum_count": 3})
    simulate(lonely, {**poor, "north": rich["north"], "south": rich["south"]})
    assert not facts_of(lonely)["fitted"]


def test_a_head_that_learned_on_the_seeded_layer_starts_anew_with_the_fitted_one(
    rich: Sites, make: MakeRequest
) -> None:
    parent = make(settings={**QUICK, "rounds": 1})
    simulate(parent, {s: SiteData(data.train, data.test) for s, data in rich.items()})
    publish(parent)
    settings = {**QUICK, "rounds": 1, "learning_rate": 1e-9}
    child = make("child", parent_bundle="../run-1/bundle", version=3, run=2, settings=settings)
    simulate(child, rich)
    arrays, seeded = central.final_arrays(child), initial_arrays(child.network, seed=child.seed)
    assert facts_of(child)["fitted"]
    assert np.allclose(arrays["head.weight"], seeded["head.weight"], atol=1e-4)
    trained = central.final_arrays(parent)["head.weight"]
    assert not np.allclose(trained, seeded["head.weight"], atol=1e-3)


def test_the_greater_of_both_limits_guards_a_sum(rich: Sites, make: MakeRequest) -> None:
    request, asked = make(settings={**QUICK, "rounds": 1}), []
    careful = desk_for(rich["north"], DeskLimits(group_count_min=1000)).handle

    def change(frame: frames.Frame) -> frames.Frame:
        asked.append(frame.fields["sample_count"])
        return frame

    train(request, handles(rich, north=changing(careful, change)))
    assert asked == [0] * STAGES
    assert set(facts_of(request)["samples"]) == {"east", "south"}


@pytest.mark.parametrize("least", [0, 31])
def test_a_site_may_stay_out_of_surveys_and_still_train(
    rich: Sites, make: MakeRequest, least: int
) -> None:
    few = unlabelled_examples({"pixels": rich["north"].unlabelled.inputs["pixels"][:10]}, 10)
    north = SiteData(rich["north"].train, rich["north"].test, few)
    request = make(settings={**QUICK, "rounds": 1})
    shy = desk_for(north, DeskLimits(survey_samples_min=least)).handle
    train(request, handles(rich, north=shy))
    assert set(facts_of(request)["samples"]) == {"east", "south"}
    told = json.loads((request.folder / "round-00001" / "round.json").read_text())["facts"]
    assert set(told["sites"]) == set(rich)
    bold = make("bold", settings={**QUICK, "rounds": 1})
    train(bold, handles({**rich, "north": north}))
    assert set(facts_of(bold)["samples"]) == set(rich)


def test_a_run_on_texts_surveys_and_learns(make: MakeRequest) -> None:
    features = FeatureSpec("text", buckets=512, word_ngrams=1, char_ngrams=())
    rng, sites = np.random.default_rng(0), {}
    for site in ("east", "north", "south"):
        classes = rng.integers(0, 2, 160)
        own = rng.random((160, 8)) < 0.5
        topic = 40 * classes[:, None] + rng.integers(0, 40, (160, 8))
        words = np.where(own, topic, rng.integers(0, 80, (160, 8)))
        texts = [" ".join(f"w{word}" for word in row) for row in words]
        parts = [
            from_samples(texts[rows], classes[rows].tolist(), features)
            for rows in (slice(0, 8), slice(8, 60), slice(60, 160))
        ]
        sites[site] = SiteData(parts[0], parts[1], unlabelled_examples(parts[2].inputs, 100))
    request = make(
        family="text",
        features=features.to_mapping(),
        label_schema={"classes": ["a", "b"], "version": 1},
        network={"unsupervised_width": 4, "hidden_width": 16, "embedding_width": 8},
        settings={**QUICK, "rounds": 6},
    )
    simulate(request, sites)
    facts = facts_of(request)
    assert facts["fitted"]
    assert facts["stages"] == 6
    assert facts["samples"] == dict.fromkeys(sites, 108)
    publish(request)
    evaluation = json.loads((request.folder / run_files.EVALUATION_NAME).read_text())
    assert evaluation["accuracy"] > 0.8


def test_no_site_alone_fits_the_layer(rich: Sites, make: MakeRequest) -> None:
    def boast(frame: frames.Frame) -> frames.Frame:
        arrays = {name: array * np.int64(50) for name, array in frame.arrays.items()}
        arrays |= {n: (frame.arrays[n] * np.float32(50)) for n in ("sums", "moments")}
        fields = {"sample_count": frame.fields["sample_count"] * 50}
        return frames.Frame(frame.kind, fields, arrays)

    request, capped = make(), make("capped", settings={**QUICK, "rounds": 4, "norm_ratio_max": 1})
    for one in (request, capped):
        train(one, handles(rich, east=changing(desk_for(rich["east"]).handle, boast)))
    honest = make("honest")
    simulate(honest, rich)
    gaps = [
        np.abs(
            central.final_arrays(one)["dictionary.bias"]
            - central.final_arrays(honest)["dictionary.bias"]
        ).max()
        for one in (capped, request)
    ]
    assert gaps[0] < gaps[1]
