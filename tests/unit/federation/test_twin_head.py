"""Two heads on the same rows: one is served, the other learns from labels alone and asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.inference import Predictor
from federation import central, onnx_engine
from federation.dataset import SiteData, from_samples, no_examples, unlabelled_examples
from federation.errors import NetworkInvalid, RequestInvalid
from federation.feature_layer import FeatureTrainer, Trainer, encoded, make_trainer
from federation.in_process import desk_for, transport_for
from federation.layer_arrays import trained_arrays
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, head_spec, initial_arrays, parameter_layout
from federation.probes import probe_inputs
from federation.publish import check_parity, publish, run_onnx, run_torch
from federation.requests import TrainingRequest
from federation.statistics import GroupSums, seeded_code_book
from federation.torch_engine import choose_device
from federation.training import SiteTrainer, TrainTask
from federation.twin_head import TwinTrainer, plain_arrays, served_arrays
from model_bundle.features import ColumnSpec, FeatureSpec
from model_bundle.manifest import unpack

pytestmark = pytest.mark.federation
MakeRequest = Callable[..., TrainingRequest]
Sites = Mapping[str, SiteData]
COLUMNS = (ColumnSpec("x"), ColumnSpec("y"))
SIZES: dict[str, Any] = {"hidden_width": 16, "embedding_width": 8, "plain_head": True}
LAYER: dict[str, Any] = {**SIZES, "unsupervised_width": 12, "filter_count": 16}
RECORD = NetworkSpec("record", FeatureSpec("record", columns=COLUMNS), 3, **SIZES)
IMAGE = NetworkSpec("image", FeatureSpec("image", height=8, width=8), 10, **LAYER)
SPECS = {
    "record": RECORD,
    "image": IMAGE,
    "encoder": NetworkSpec("encoder", FeatureSpec("text"), 3, encoder_width=12, **SIZES),
    "series": NetworkSpec("series", FeatureSpec("series", steps=40, channels=3), 5, **LAYER),
    "text": NetworkSpec(
        "text", FeatureSpec("text", buckets=300), 4, **SIZES, unsupervised_width=12
    ),
}
PLAIN = LocalSettings(local_epochs=2)
TAUGHT = LocalSettings(local_epochs=2, unlabelled_weight=0.7, input_noise=0.4, cohesion_floor=-1.0)
LESSONS = {
    "plain": PLAIN,
    "taught": TAUGHT,
    "adam": replace(TAUGHT, optimizer="adam", learning_rate=0.01),
}


def same(left: Arrays, right: Arrays) -> bool:
    return {n: a.tobytes() for n, a in left.items()} == {n: a.tobytes() for n, a in right.items()}


def apart(spec: NetworkSpec) -> Arrays:
    """Parameters whose two heads differ."""
    arrays = initial_arrays(spec, seed=1)
    other = initial_arrays(spec, seed=2)
    return arrays | {n: a for n, a in other.items() if n.startswith("plain_")}


def equal_sums(left: GroupSums | None, right: GroupSums | None) -> bool:
    assert left is not None
    assert right is not None
    return left.sums.tobytes() == right.sums.tobytes() and (left.counts == right.counts).all()


def clusters(rows: int, seed: int) -> tuple[list[dict[str, float]], list[int]]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, rows)
    points = rng.normal(0, 0.7, (rows, 2)) + np.array([[0, 2], [2, 0], [-2, -1]])[classes]
    return [{"x": float(x), "y": float(y)} for x, y in points], classes.tolist()


def with_pool(data: SiteData) -> SiteData:
    """The same site, whose test samples lie in its pool as well."""
    return replace(data, unlabelled=unlabelled_examples(data.test.inputs, len(data.test)))


def site(family: str, digits: Sites) -> tuple[NetworkSpec, SiteData]:
    """A network with two heads and a site with a pool."""
    if family == "image":
        return IMAGE, with_pool(digits["north"])
    train, test, more = (from_samples(*clusters(40, s), RECORD.features) for s in (1, 2, 3))
    return RECORD, SiteData(train, test, unlabelled_examples(more.inputs, len(more)))


def one_headed(spec: NetworkSpec, arrays: Arrays, data: SiteData) -> tuple[SiteTrainer, SiteData]:
    """The trainer of either head alone, and the rows it sees."""
    one = replace(spec, plain_head=False)
    if spec.unsupervised_width:
        device, one = choose_device("cpu"), head_spec(one)
        splits = (data.train, data.test, data.unlabelled)
        data = SiteData(*(encoded(spec, arrays, split, device) for split in splits))
    return SiteTrainer(data, one, device="cpu"), data


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_exported_graph_has_both_heads_as_torch_has(spec: NetworkSpec) -> None:
    arrays = apart(spec)
    model = onnx_engine.build(spec, arrays)
    check_parity(spec, arrays, model)
    x = probe_inputs(spec, 7, seed=1)
    found = run_onnx(spec, model, x)
    assert set(found) == {"logits", "embedding", "acquisition_logits"}
    assert found["logits"].shape == found["acquisition_logits"].shape == (7, spec.class_count)
    assert same(onnx_engine.arrays_of(model, spec), arrays)

    one = replace(spec, plain_head=False)
    layer = {n: a for n, a in arrays.items() if n not in trained_arrays(arrays, spec)}
    served = run_torch(one, served_arrays(arrays), x)
    plain = run_torch(one, {**layer, **plain_arrays(arrays)}, x)
    np.testing.assert_allclose(found["logits"], served["logits"], atol=1e-4)
    np.testing.assert_allclose(found["acquisition_logits"], plain["logits"], atol=1e-4)
    np.testing.assert_allclose(found["embedding"], plain["embedding"], atol=1e-4)
    assert not np.allclose(served["embedding"], plain["embedding"], atol=1e-2)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_both_heads_start_as_the_only_head_would(spec: NetworkSpec) -> None:
    arrays = initial_arrays(spec, seed=5)
    alone = initial_arrays(replace(spec, plain_head=False), seed=5)
    assert same(served_arrays(arrays), alone)
    assert same(plain_arrays(arrays), trained_arrays(alone, spec))
    assert list(arrays) == list(parameter_layout(spec))


@pytest.mark.parametrize("local", LESSONS.values(), ids=LESSONS.keys())
@pytest.mark.parametrize("family", ["image", "record"])
def test_two_heads_learn_what_two_trainings_learn(
    digits: Sites, family: str, local: LocalSettings
) -> None:
    spec, data = site(family, digits)
    arrays, book = apart(spec), seeded_code_book(4, spec.embedding_width, seed=3)
    layer = {n: a for n, a in arrays.items() if n not in trained_arrays(arrays, spec)}
    teacher = {**initial_arrays(spec, seed=6), **layer}
    task = TrainTask(seed=5, code_book=book, teacher=teacher)
    twin = make_trainer(data, spec, device="cpu")
    found = twin.train(arrays, local, task)

    own = trained_arrays(served_arrays(arrays), spec)
    trainer, _ = one_headed(spec, arrays, data)
    taught = replace(task, teacher=trained_arrays(served_arrays(teacher), spec))
    served = trainer.train(own, local, taught)
    trainer, rows = one_headed(spec, arrays, data)
    quiet = replace(local, unlabelled_weight=0.0, input_noise=0.0)
    plain = trainer.train(plain_arrays(arrays), quiet, replace(task, teacher={}))

    assert same(trained_arrays(served_arrays(found.arrays), spec), served.arrays)
    assert same(plain_arrays(found.arrays), plain.arrays)
    assert list(found.arrays) == list(arrays)
    assert not same(plain.arrays, plain_arrays(arrays))
    assert (found.example_count, found.loss) == (len(data.train), served.loss)
    assert (found.table == served.table).all()
    assert equal_sums(found.cells, plain.cells)

    report = twin.assess(found.arrays, code_book=book, count_min=3)
    first = trainer.assess(served.arrays, code_book=book, count_min=3)
    second = trainer.assess(plain.arrays, code_book=book, count_min=3)
    assert (report.table == first.table).all()
    assert report.calibration.loss_sums.tobytes() == first.calibration.loss_sums.tobytes()
    assert equal_sums(report.classes, second.classes)
    assert equal_sums(report.cells, second.cells)
    outputs = twin.outputs(found.arrays, data.test)
    assert outputs.logits.tobytes() == trainer.predict(served.arrays, rows.test)[0].tobytes()
    asked, embedding = trainer.predict(plain.arrays, rows.test)
    assert outputs.acquisition_logits is not None
    assert outputs.acquisition_logits.tobytes() == asked.tobytes()
    assert outputs.embedding.tobytes() == embedding.tobytes()
    assert [part.tobytes() for part in twin.predict(found.arrays, data.test)] == [
        outputs.logits.tobytes(),
        embedding.tobytes(),
    ]


@pytest.mark.parametrize("family", ["image", "record"])
def test_guesses_change_the_served_head_alone(digits: Sites, family: str) -> None:
    spec, data = site(family, digits)
    arrays, trainer = initial_arrays(spec, seed=1), make_trainer(data, spec, device="cpu")
    plain, taught = (trainer.train(arrays, way, TrainTask(seed=2)) for way in (PLAIN, TAUGHT))
    assert same(plain_arrays(taught.arrays), plain_arrays(plain.arrays))
    assert not same(served_arrays(taught.arrays), served_arrays(plain.arrays))
    served = trained_arrays(served_arrays(plain.arrays), spec)
    assert same(served, plain_arrays(plain.arrays))
    assert not same(served, trained_arrays(served_arrays(arrays), spec))


def test_views_change_the_served_head_alone(digits: Sites) -> None:
    spec, data = site("record", digits)
    arrays, trainer = apart(spec), make_trainer(data, spec, device="cpu")
    book = seeded_code_book(4, spec.embedding_width, seed=3)
    task = TrainTask(seed=2, code_book=book)
    update = trainer.train(arrays, replace(PLAIN, objective="views"), task)
    assert same(plain_arrays(update.arrays), plain_arrays(arrays))
    assert not same(served_arrays(update.arrays), served_arrays(arrays))
    assert equal_sums(update.cells, trainer.train(arrays, PLAIN, task).cells)


def test_a_site_without_labels_answers_with_both_heads_as_they_came(digits: Sites) -> None:
    spec, data = site("record", digits)
    arrays, trainer = apart(spec), make_trainer(replace(data, train=no_examples()), spec)
    update = trainer.train(arrays, TAUGHT, TrainTask(seed=1))
    assert update.example_count == trainer.example_count == 0
    assert same(update.arrays, arrays)


def test_each_network_has_its_trainer(digits: Sites) -> None:
    def kind(spec: NetworkSpec, data: SiteData) -> type[Trainer]:
        return type(make_trainer(data, spec, device="cpu"))

    assert kind(*site("record", digits)) is TwinTrainer
    assert kind(*site("image", digits)) is FeatureTrainer
    spec, data = site("record", digits)
    one = replace(spec, plain_head=False)
    assert kind(one, data) is SiteTrainer
    outputs = make_trainer(data, one, device="cpu").outputs(initial_arrays(one, seed=1), data.test)
    assert outputs.acquisition_logits is None


def test_parameters_without_the_second_head_are_refused(digits: Sites) -> None:
    spec, data = site("record", digits)
    arrays = served_arrays(initial_arrays(spec, seed=1))
    trainer = make_trainer(data, spec, device="cpu")
    with pytest.raises(NetworkInvalid, match="plain_"):
        trainer.train(arrays, PLAIN, TrainTask(seed=1))
    with pytest.raises(NetworkInvalid, match="plain_"):
        trainer.assess(arrays, code_book=None, count_min=3)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"plain_head": 1}, "true or false"),
        ({"plain_head": "yes"}, "true or false"),
        ({"plain_head": None}, "true or false"),
        ({"committee_count": 2}, "set committee_count to 0"),
        ({"unsupervised_width": 0}, "set unsupervised_width, or plain_head to false"),
    ],
)
@pytest.mark.parametrize("family", ["image", "series", "text"])
def test_networks_that_cannot_have_two_heads_are_refused(
    family: str, changes: dict[str, object], text: str
) -> None:
    with pytest.raises(RequestInvalid, match=text):
        NetworkSpec.from_mapping(SPECS[family].to_mapping() | changes)
    assert NetworkSpec.from_mapping(SPECS[family].to_mapping()) == SPECS[family]


def test_guesses_cannot_follow_cells_of_the_other_head(
    digits: Sites, make_request: MakeRequest
) -> None:
    spread: dict[str, Any] = {"unlabelled_weight": 0.5, "spread": "cells"}
    with pytest.raises(RequestInvalid, match="set spread to graph or none"):
        make_request(network=LAYER, settings=spread)
    make_request(network=LAYER, settings={**spread, "unlabelled_weight": 0.0})
    make_request(network=LAYER | {"plain_head": False}, settings=spread)
    spec, data = site("record", digits)
    with pytest.raises(RequestInvalid, match="set spread to graph or none"):
        make_trainer(data, spec).train(apart(spec), LocalSettings(**spread), TrainTask(seed=1))


def finished(request: TrainingRequest, digits: Sites) -> Arrays:
    """Runs a request at sites whose pools hold their test samples."""
    handles = {name: desk_for(with_pool(data)).handle for name, data in digits.items()}
    central.train_run(request, transport_for(handles), pause=lambda _: None)
    return central.final_arrays(request)


def test_a_run_serves_one_head_and_its_device_reads_the_other(
    digits: Sites, make_request: MakeRequest
) -> None:
    quick = {"rounds": 4, "local_epochs": 1, "cell_count": 8, "node_wait_seconds": 0}
    guesses = {"unlabelled_weight": 1.0, "cohesion_floor": -1.0, "compare_plain": False}
    request = make_request(network=LAYER, settings=quick | guesses)
    spec, last = request.network, finished(request, digits)
    plainly = finished(make_request("plain", network=LAYER, settings=quick), digits)
    assert same(trained_arrays(served_arrays(plainly), spec), plain_arrays(plainly))
    assert same(plain_arrays(last), plain_arrays(plainly))
    assert not same(served_arrays(last), served_arrays(plainly))

    publish(request)
    predictor = Predictor(unpack((request.folder / "bundle").read_bytes()))
    images = list(np.random.default_rng(1).integers(0, 255, (5, 8, 8)).astype(np.uint8))
    found, expected = predictor.predict(images), run_torch(spec, last, pixels_of(images))
    assert found.acquisition_logits is not None
    np.testing.assert_allclose(found.logits, expected["logits"], atol=1e-3)
    np.testing.assert_allclose(found.embedding, expected["embedding"], atol=1e-3)
    np.testing.assert_allclose(found.acquisition_logits, expected["acquisition_logits"], atol=1e-3)
    child = make_request("child", parent_bundle="../run-1/bundle", version=3, run=2, network=LAYER)
    assert same(central.start_state(child).arrays, last)


def pixels_of(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return from_samples(images, [0] * len(images), IMAGE.features).inputs["pixels"]
