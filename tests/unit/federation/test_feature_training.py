"""Training on top of a layer that stays as it is: at the site, at the centre, and on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_agent.inference import Predictor
from federation import central, checkpoint, frames, messages, torch_engine
from federation.aggregation import AggregationSettings, ServerState, Update
from federation.checkpoint import RoundState
from federation.client_app import Handle
from federation.dataset import Examples, SiteData, from_samples, no_examples, unlabelled_examples
from federation.errors import NetworkInvalid, RequestInvalid
from federation.feature_layer import FeatureTrainer, encoded, make_trainer
from federation.in_process import desk_for, transport_for
from federation.layer_arrays import trained_arrays
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, feature_names, head_spec, initial_arrays
from federation.publish import publish, publish_untrained, run_torch
from federation.requests import RoundSettings, TrainingRequest
from federation.round_loop import RunPlan, next_state
from federation.screening import Screening, UpdateVerdict, screen_updates
from federation.statistics import GroupSums, seeded_code_book
from federation.training import SiteTrainer, TrainTask
from model_bundle.features import FeatureSpec
from model_bundle.manifest import unpack

pytestmark = pytest.mark.federation
CPU = torch.device("cpu")
MakeRequest = Callable[..., TrainingRequest]
Sites = Mapping[str, SiteData]
SIZES = {"hidden_width": 16, "embedding_width": 8}
LAYER = {**SIZES, "unsupervised_width": 12, "filter_count": 8}
SPEC = NetworkSpec("image", FeatureSpec("image", height=8, width=8), 10, **LAYER)
TEXT = NetworkSpec("text", FeatureSpec("text", buckets=300), 2, **SIZES, unsupervised_width=12)
PLAIN = LocalSettings(local_epochs=2)
TAUGHT = LocalSettings(local_epochs=2, unlabelled_weight=0.7, input_noise=0.4, cohesion_floor=-1.0)
ADAM = LocalSettings(local_epochs=2, optimizer="adam", learning_rate=0.01)


def with_pool(data: SiteData) -> SiteData:
    """The same site, whose test samples lie in its pool as well."""
    return replace(data, unlabelled=unlabelled_examples(data.test.inputs, len(data.test)))


def letters() -> SiteData:
    words = np.array(["red", "green", "blue", "cyan", "pink", "grey", "black", "white"])
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(words, rng.integers(2, 7))) for _ in range(60)]
    classes = ["red" in text for text in texts]
    train, test = (
        from_samples(texts[a:b], [int(c) for c in classes[a:b]], TEXT.features)
        for a, b in ((0, 20), (20, 30))
    )
    pool = from_samples(texts[30:], [0] * 30, TEXT.features)
    return SiteData(train, test, unlabelled_examples(pool.inputs, 30))


def same(left: Arrays, right: Arrays) -> bool:
    return {n: a.tobytes() for n, a in left.items()} == {n: a.tobytes() for n, a in right.items()}


def fixed(arrays: Arrays, spec: NetworkSpec = SPEC) -> Arrays:
    return {name: arrays[name] for name in feature_names(spec)}


@pytest.mark.parametrize("local", [PLAIN, TAUGHT, ADAM], ids=["plain", "taught", "adam"])
@pytest.mark.parametrize("family", ["image", "text"])
def test_a_head_learns_as_it_would_from_frozen_features(
    digits: Sites, family: str, local: LocalSettings
) -> None:
    spec = SPEC if family == "image" else TEXT
    data = with_pool(digits["north"]) if family == "image" else letters()
    arrays, teacher = initial_arrays(spec, seed=1), initial_arrays(spec, seed=1)
    teacher |= trained_arrays(initial_arrays(spec, seed=2), spec)
    book = seeded_code_book(4, spec.embedding_width, seed=3)
    task = TrainTask(seed=5, code_book=book, teacher=teacher)
    found = make_trainer(data, spec, device="cpu").train(arrays, local, task)

    splits = (data.train, data.test, data.unlabelled)
    rows = SiteData(*(encoded(spec, arrays, split, CPU) for split in splits))
    alone = SiteTrainer(rows, head_spec(spec), device="cpu")
    head = trained_arrays(arrays, spec)
    own = replace(task, teacher=trained_arrays(teacher, spec))
    expected = alone.train(head, local, own)

    assert same(trained_arrays(found.arrays, spec), expected.arrays)
    assert not same(head, expected.arrays)
    assert same(fixed(found.arrays, spec), fixed(arrays, spec))
    assert list(found.arrays) == list(arrays)
    assert (found.example_count, found.loss) == (expected.example_count, expected.loss)
    assert (found.table == expected.table).all()
    assert found.cells is not None
    assert expected.cells is not None
    assert found.cells.sums.tobytes() == expected.cells.sums.tobytes()


def test_measuring_through_the_layer_is_measuring_the_whole_network(digits: Sites) -> None:
    data, arrays = digits["north"], initial_arrays(SPEC, seed=1)
    trainer = make_trainer(data, SPEC, device="cpu")
    logits, embedding = trainer.predict(arrays, data.test)
    whole = run_torch(SPEC, arrays, data.test.inputs["pixels"])
    np.testing.assert_allclose(logits, whole["logits"], atol=1e-4)
    np.testing.assert_allclose(embedding, whole["embedding"], atol=1e-4)
    report = trainer.assess(arrays, code_book=None, count_min=3)
    right = (whole["logits"].argmax(axis=1) == data.test.classes).sum()
    assert report.table[0].sum() == right
    assert report.example_count == trainer.example_count == len(data.train)
    empty = trainer.predict(arrays, no_examples())
    assert [part.shape for part in empty] == [(0, 10), (0, 8)]


def test_a_site_without_labels_answers_with_what_came() -> None:
    few = from_samples([np.full((8, 8), 9, np.uint8)], [0], SPEC.features)
    arrays = initial_arrays(SPEC, seed=1)
    trainer = make_trainer(SiteData(no_examples(), few), SPEC, device="cpu")
    update = trainer.train(arrays, PLAIN, TrainTask(seed=1))
    assert update.example_count == 0
    assert same(update.arrays, arrays)


def test_features_are_computed_once_for_a_layer(
    digits: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = torch_engine.features

    def counted(spec: NetworkSpec, parameters: Any, x: Any) -> Any:
        computed.append(len(x))
        return compute(spec, parameters, x)

    monkeypatch.setattr(torch_engine, "features", counted)
    data = with_pool(digits["north"])
    trainer = make_trainer(data, SPEC, device="cpu")
    arrays = initial_arrays(SPEC, seed=1)
    for number in range(3):
        arrays = trainer.train(arrays, PLAIN, TrainTask(seed=number)).arrays
    trainer.assess(arrays, code_book=None, count_min=3)
    once = [len(data.train), len(data.test), len(data.unlabelled)]
    assert computed == once
    other = {**arrays, **fixed(initial_arrays(SPEC, seed=2))}
    moved = trainer.train(other, PLAIN, TrainTask(seed=1))
    assert computed == once * 2
    fresh = make_trainer(data, SPEC, device="cpu").train(other, PLAIN, TrainTask(seed=1))
    assert same(moved.arrays, fresh.arrays)


def test_networks_without_the_layer_keep_their_trainer(digits: Sites) -> None:
    plain = replace(SPEC, unsupervised_width=0, channels=4)
    assert isinstance(make_trainer(digits["north"], plain, device="cpu"), SiteTrainer)
    assert isinstance(make_trainer(digits["north"], SPEC, device="cpu"), FeatureTrainer)


def test_an_ensemble_has_no_rounds_that_would_teach_one_member_alone(
    make_request: MakeRequest,
) -> None:
    network = {"encoder_width": 12, "ensemble_size": 3}
    made = make_request(family="encoder", network=network)
    assert made.network.ensemble_size == 3
    with pytest.raises(RequestInvalid, match=r"first member.*ensemble_size to 1"):
        make_request(family="encoder", network=network, settings={"pretrain_rounds": 1})


def test_views_and_a_fixed_layer_exclude_each_other(
    digits: Sites, make_request: MakeRequest
) -> None:
    settings = {"rounds": 4, "pretrain_rounds": 1}
    with pytest.raises(RequestInvalid, match=r"pretrain_rounds.*unsupervised_width.*to 0"):
        make_request(network=LAYER, settings=settings)
    make_request(settings=settings)
    trainer, views = (
        make_trainer(digits["north"], SPEC, device="cpu"),
        replace(PLAIN, objective="views"),
    )
    with pytest.raises(RequestInvalid, match="set pretrain_rounds or unsupervised_width to 0"):
        trainer.train(initial_arrays(SPEC, seed=1), views, TrainTask(seed=1))


def test_parameters_of_another_network_are_refused_before_features_are_computed(
    digits: Sites,
) -> None:
    arrays = initial_arrays(SPEC, seed=1)
    del arrays["projection.bias"]
    with pytest.raises(NetworkInvalid, match=r"projection\.bias"):
        make_trainer(digits["north"], SPEC, device="cpu").train(arrays, PLAIN, TrainTask(seed=1))


def plan(*, rule: str = "fedavgm", **rounds: Any) -> RunPlan:
    return RunPlan(
        "ab" * 16,
        "run",
        SPEC,
        RoundSettings(rounds=3, cell_count=0, **rounds),
        replace(PLAIN, unlabelled_weight=0.5),
        AggregationSettings(rule),
        {},
        seed=3,
    )


def moved(arrays: Arrays, seed: int) -> Arrays:
    """A site's head after training; its fixed parameters as they came."""
    rng = np.random.default_rng(seed)
    return {
        name: array
        if name in feature_names(SPEC)
        else (array + rng.normal(0, 0.1, array.shape)).astype(np.float32)
        for name, array in arrays.items()
    }


def lying(arrays: Arrays) -> Arrays:
    """The same head above another layer."""
    return {**arrays, **{name: array + np.float32(0.3) for name, array in fixed(arrays).items()}}


def rounds_of(plan: RunPlan, change: Callable[[Arrays], Arrays], start: Arrays) -> RoundState:
    """Three rounds of three sites with unequal weights, of which the last one changes its reply."""
    state = RoundState(0, start, ServerState(), np.zeros((0, 8), np.float32))
    none = GroupSums(np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    for number in range(plan.rounds.rounds):
        replies = {
            site: messages.UpdateReply(
                moved(state.arrays, 10 * number + place),
                7 * place,
                0.5,
                none,
                np.zeros((3, 10), np.int64),
            )
            for place, site in enumerate(("east", "north", "south"), start=1)
        }
        replies["south"] = replace(replies["south"], arrays=change(replies["south"].arrays))
        updates = tuple(Update(s, r.arrays, float(r.example_count)) for s, r in replies.items())
        state, _ = next_state(plan, state, UpdateVerdict(updates, replies, {}))
    return state


@pytest.mark.parametrize(
    "wanted",
    [
        plan(weight_power=0.5),
        plan(update_clip_norm=0.5, noise_multiplier=1.0),
        *(
            plan(rule=rule)
            for rule in ("fedavg", "fedadam", "median", "trimmed_mean", "multi_krum")
        ),
    ],
    ids=["weights", "noise", "fedavg", "fedadam", "median", "trimmed_mean", "multi_krum"],
)
def test_the_centre_keeps_the_layer_whatever_sites_say_of_it(wanted: RunPlan) -> None:
    start = initial_arrays(SPEC, seed=1)
    start |= {"projection.bias": np.linspace(0.1, 0.7, 12, dtype=np.float32)}
    honest, hostile = rounds_of(wanted, dict, start), rounds_of(wanted, lying, start)
    assert same(fixed(honest.arrays), fixed(start))
    assert same(fixed(honest.server.average), fixed(start))
    assert same(hostile.arrays, honest.arrays)
    assert same(hostile.server.average, honest.server.average)
    assert same(hostile.server.momentum, honest.server.momentum)
    assert list(honest.arrays) == list(honest.server.average) == list(start)
    assert not same(trained_arrays(honest.arrays, SPEC), trained_arrays(start, SPEC))


def test_a_head_that_leaps_is_refused_however_large_the_layer_is() -> None:
    start = initial_arrays(SPEC, seed=1)
    start |= {"projection.weight": start["projection.weight"] * np.float32(1e4)}
    replies = {site: moved(start, place) for place, site in enumerate("abc")}
    replies["c"] |= {"head.bias": replies["c"]["head.bias"] + np.float32(40)}
    none = GroupSums(np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    raw = {
        site: frames.encode(
            messages.update_frame(
                messages.UpdateReply(arrays, 5, 0.5, none, np.zeros((3, 10), np.int64)), SPEC
            )
        )
        for site, arrays in replies.items()
    }
    verdict = screen_updates(start, raw, Screening(SPEC, 0, 3, 10.0, {}))
    assert set(verdict.refused) == {"c"}
    assert "above the round's limit" in verdict.refused["c"]


def finished(request: TrainingRequest, sites: Mapping[str, Handle]) -> list[Arrays]:
    """Runs a request; the parameters after each of its rounds."""
    central.train_run(request, transport_for(sites), pause=lambda _: None)
    numbers = range(1, request.settings.rounds.rounds + 1)
    return [checkpoint._load(request.folder, number, "").arrays for number in numbers]


def test_a_run_trains_the_head_and_the_device_scores_with_all_of_it(
    digits: Sites, make_request: MakeRequest
) -> None:
    request = make_request(network=LAYER)
    handles = {site: desk_for(data).handle for site, data in digits.items()}
    rounds = finished(request, handles)
    spec, last = request.network, central.final_arrays(request)
    assert same(fixed(rounds[0]), fixed(last))
    assert not same(trained_arrays(rounds[0], spec), trained_arrays(last, spec))
    publish(request)
    predictor = Predictor(unpack((request.folder / "bundle").read_bytes()))
    images = list(np.random.default_rng(1).integers(0, 255, (5, 8, 8)).astype(np.uint8))
    images.append(np.zeros((8, 8), np.uint8))
    outputs = predictor.predict(images)
    expected = run_torch(spec, last, pixels_of(images))
    np.testing.assert_allclose(outputs.logits, expected["logits"], atol=1e-3)
    np.testing.assert_allclose(outputs.embedding, expected["embedding"], atol=1e-3)
    child = make_request("child", parent_bundle="../run-1/bundle", version=3, run=2, network=LAYER)
    assert same(central.start_state(child).arrays, last)

    def lie(raw: bytes) -> bytes:
        frame = frames.decode(handles["east"](raw))
        if frame.kind != messages.UPDATE:
            return frames.encode(frame)
        assert not any(messages.PARAMETER + name in frame.arrays for name in feature_names(spec))
        changed = {
            messages.PARAMETER + name: last[name] + np.float32(0.3) for name in feature_names(spec)
        }
        return frames.encode(dataclasses.replace(frame, arrays={**frame.arrays, **changed}))

    hostile = make_request("hostile", network=LAYER)
    assert same(finished(hostile, handles | {"east": lie})[-1], last)


def pixels_of(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    rows: Examples = from_samples(images, [0] * len(images), SPEC.features)
    return np.asarray(rows.inputs["pixels"])


def test_the_first_version_has_a_seeded_layer(make_request: MakeRequest) -> None:
    request = make_request(run=0, version=1, parent_version=0, network=LAYER)
    publish_untrained(request)
    predictor = Predictor(unpack((request.folder / "bundle").read_bytes()))
    assert predictor.is_untrained
    images = list(np.random.default_rng(1).integers(0, 255, (40, 8, 8)).astype(np.uint8))
    embedding = predictor.predict(images).embedding
    assert np.linalg.norm(embedding, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert (embedding @ embedding.T).min() < 0.95
