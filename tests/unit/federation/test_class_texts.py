"""What a campaign calls its classes teaches at every site, and is counted nowhere."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from edge_agent.inference import Predictor
from federation import class_texts as module
from federation import frames, messages, run_files
from federation.central import plan_of
from federation.class_texts import class_texts, named_examples
from federation.dataset import (
    Examples,
    SiteData,
    from_samples,
    no_examples,
    unlabelled_examples,
)
from federation.errors import RequestInvalid
from federation.feature_layer import encoded, make_trainer
from federation.in_process import simulate
from federation.layer_arrays import trained_arrays
from federation.local_settings import CLASS_TEXT_MAX, LocalSettings
from federation.networks import INPUT_NAMES, Arrays, NetworkSpec, head_spec, initial_arrays
from federation.publish import publish
from federation.requests import TrainingRequest, TrainingSettings
from federation.training import TrainTask
from model_bundle.features import FeatureSpec
from model_bundle.manifest import unpack

pytestmark = pytest.mark.federation
CPU = torch.device("cpu")
NAMES = ("lost_card", "exchange_rate", "topUp", "7")
TEXTS = tuple(class_texts(NAMES))
SPEC = NetworkSpec(
    "text",
    FeatureSpec("text", buckets=400),
    len(NAMES),
    hidden_width=32,
    embedding_width=16,
    unsupervised_width=24,
)
LOCAL = LocalSettings(local_epochs=2, class_texts=TEXTS)
MakeRequest = Callable[..., TrainingRequest]


def site() -> SiteData:
    """A site that knows texts of the first two classes only."""
    rng = np.random.default_rng(2)
    about = (["lost", "gone", "stolen", "card"], ["exchange", "rate", "euro", "price"])
    classes = [i % 2 for i in range(24)]
    texts = [" ".join(rng.choice(about[c], 3)) for c in classes]
    train = from_samples(texts, classes, SPEC.features)
    return SiteData(train, train)


def joined(first: Examples, second: Examples) -> Examples:
    name = INPUT_NAMES["encoder"]
    return Examples(
        {name: np.concatenate([first.inputs[name], second.inputs[name]])},
        np.concatenate([first.classes, second.classes]),
        np.concatenate([first.calibration, second.calibration]),
    )


def after(
    data: SiteData, local: LocalSettings, spec: NetworkSpec = SPEC, rounds: int = 1
) -> Arrays:
    trainer, arrays = make_trainer(data, spec, device="cpu"), initial_arrays(spec, seed=1)
    for seed in range(rounds):
        arrays = trainer.train(arrays, local, TrainTask(seed)).arrays
    return arrays


def same(left: Arrays, right: Arrays) -> bool:
    return {n: a.tobytes() for n, a in left.items()} == {n: a.tobytes() for n, a in right.items()}


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 2
    assert result.failed == 0


def test_names_become_words_and_what_is_no_word_nothing() -> None:
    assert TEXTS == ("lost card", "exchange rate", "top up", "")
    assert class_texts(["reverted_card_payment?", "GPS", "Größe", "x"]) == [
        "reverted card payment",
        "gps",
        "größe",
        "",
    ]
    assert class_texts(["word " * 400])[0] == ("word " * 400)[:CLASS_TEXT_MAX]
    assert len(named_examples(["", ""], SPEC.features)) == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"], ids=["written out", "torch"])
@pytest.mark.parametrize("size", [1, 3], ids=["one head", "an ensemble"])
def test_names_teach_as_so_many_labelled_examples_would(optimizer: str, size: int) -> None:
    local, spec = replace(LOCAL, optimizer=optimizer), replace(SPEC, ensemble_size=size)
    data, arrays = site(), initial_arrays(spec, seed=1)
    found = make_trainer(data, spec, device="cpu").train(arrays, local, TrainTask(5))
    rows = encoded(spec, arrays, data.train, CPU)
    named = encoded(spec, arrays, named_examples(TEXTS, spec.features), CPU)
    labelled = SiteData(joined(rows, named), no_examples())
    alone = make_trainer(labelled, head_spec(spec), device="cpu")
    expected = alone.train(trained_arrays(arrays, spec), local, TrainTask(5))
    assert same(trained_arrays(found.arrays, spec), expected.arrays)
    assert found.loss == expected.loss
    assert (found.example_count, expected.example_count) == (24, 27)
    without = after(data, replace(local, class_texts=()), spec)
    assert not same(found.arrays, without)


def test_names_count_in_nothing_that_a_site_reports() -> None:
    data, arrays = site(), after(site(), LOCAL)
    book = np.eye(4, SPEC.embedding_width, dtype=np.float32)
    taught, plain = (make_trainer(data, SPEC, device="cpu") for _ in range(2))
    task = TrainTask(5, code_book=book)
    found = taught.train(arrays, replace(LOCAL, group_count_min=1), task)
    expected = plain.train(arrays, LocalSettings(local_epochs=2, group_count_min=1), task)
    assert found.cells is not None
    assert expected.cells is not None
    assert found.cells.sums.tobytes() == expected.cells.sums.tobytes()
    assert found.example_count == expected.example_count == taught.example_count == 24
    assert (found.table == expected.table).all()
    first, second = (t.assess(arrays, code_book=book, count_min=1) for t in (taught, plain))
    assert first.classes.counts.tolist() == second.classes.counts.tolist() == [12, 12, 0, 0]
    assert first.classes.sums.tobytes() == second.classes.sums.tobytes()
    assert first.example_count == second.example_count == 24


def test_a_class_that_a_site_has_never_met_is_known_by_its_name() -> None:
    asked = from_samples(["please top up now", "my top up failed"], [2, 2], SPEC.features)
    right = {}
    for texts in (TEXTS, ()):
        arrays = after(site(), replace(LOCAL, class_texts=texts), rounds=30)
        logits, _ = make_trainer(site(), SPEC, device="cpu").predict(arrays, asked)
        right[texts] = int((logits.argmax(axis=1) == 2).sum())
    assert right == {TEXTS: 2, (): 0}


def test_a_site_without_labels_learns_from_names_nothing() -> None:
    empty = SiteData(no_examples(), no_examples())
    assert same(after(empty, LOCAL), initial_arrays(SPEC, seed=1))


def test_a_plain_head_learns_from_labels_alone() -> None:
    spec = replace(SPEC, plain_head=True)
    with_names = after(site(), LOCAL, spec)
    without = after(site(), replace(LOCAL, class_texts=()), spec)
    differ = {n for n in with_names if with_names[n].tobytes() != without[n].tobytes()}
    assert differ
    assert not any(name.startswith("plain_") for name in differ)


def test_a_trainer_learns_the_names_of_the_round_and_forgets_those_of_the_last() -> None:
    trainer, arrays = make_trainer(site(), SPEC, device="cpu"), initial_arrays(SPEC, seed=1)
    plain = replace(LOCAL, class_texts=())
    trainer.train(arrays, LOCAL, TrainTask(5))
    found = trainer.train(arrays, plain, TrainTask(5))
    alone = make_trainer(site(), SPEC, device="cpu").train(arrays, plain, TrainTask(5))
    assert same(found.arrays, alone.arrays)


def test_names_travel_with_the_round_and_older_trainers_understand_one_without() -> None:
    assert "class_texts" not in LocalSettings().to_mapping()
    book = np.zeros((0, SPEC.embedding_width), np.float32)
    arrays = initial_arrays(SPEC, seed=1)
    sent = messages.Command(messages.TRAIN, "ab" * 16, "run", SPEC, LOCAL, 7, arrays, book)
    read = messages.read_command(frames.decode(frames.encode(messages.command_frame(sent))))
    assert read.local == LOCAL
    assert read.local.class_texts == TEXTS


def text_run(make_request: MakeRequest, **changes: Any) -> TrainingRequest:
    parts = {
        "family": "text",
        "features": SPEC.features.to_mapping(),
        "label_schema": {"classes": list(NAMES), "version": 1},
        "network": {"unsupervised_width": 24},
        "settings": {"label_names": True},
    }
    return make_request(**(parts | changes))


def test_a_run_that_asks_for_names_sends_those_of_its_label_schema(
    make_request: MakeRequest,
) -> None:
    wanted, unwanted = text_run(make_request), text_run(make_request, settings={})
    assert plan_of(wanted).local.class_texts == TEXTS
    assert plan_of(unwanted).local.class_texts == ()
    assert wanted.digest() != unwanted.digest()
    renamed = {"classes": ["gone_card", *NAMES[1:]], "version": 1}
    assert text_run(make_request, label_schema=renamed).digest() != wanted.digest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": {}}, "label_names needs unsupervised_width"),
        ({"settings": {"label_names": 1}}, "label_names is out of range"),
        ({"settings": {"class_texts": ["a"]}}, "unknown setting 'class_texts'"),
        (
            {"family": "image", "features": FeatureSpec("image").to_mapping()},
            "set it to false for the family image",
        ),
    ],
)
def test_names_where_they_cannot_teach_are_refused(
    make_request: MakeRequest, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestInvalid, match=words):
        text_run(make_request, **changes)


@pytest.mark.parametrize("texts", ["word", ["x" * (CLASS_TEXT_MAX + 1)], [3], {"a": "b"}, None])
def test_class_texts_that_are_none_are_refused(texts: object) -> None:
    with pytest.raises(RequestInvalid, match="class_texts"):
        LocalSettings.from_mapping({"class_texts": texts})


def test_a_trainer_refuses_names_of_other_classes_and_of_no_texts() -> None:
    with pytest.raises(RequestInvalid, match="2 texts for 4 classes"):
        after(site(), replace(LOCAL, class_texts=("one", "two")))
    image = NetworkSpec(
        "image", FeatureSpec("image", height=8, width=8), 4, unsupervised_width=8, filter_count=8
    )
    pixels = from_samples([np.zeros((8, 8), np.uint8)] * 4, [0, 1, 2, 3], image.features)
    with pytest.raises(RequestInvalid, match="label_names reads texts"):
        after(SiteData(pixels, pixels), LOCAL, image)
    assert TrainingSettings.from_mapping({"label_names": True}).rounds.label_names


def test_a_run_of_sites_that_never_met_a_class_publishes_a_model_that_knows_its_name(
    make_request: MakeRequest,
) -> None:
    """The whole way: request, rounds, trainers behind their desks, bundle, device."""
    rng = np.random.default_rng(5)
    about = (["lost", "gone", "stolen", "card"], ["exchange", "rate", "euro"], ["top", "up", "add"])
    sites = {}
    for site in ("north", "south"):
        free = [" ".join(rng.choice(about[i % 3], 4)) for i in range(90)]
        unlabelled = from_samples(free, [0] * len(free), SPEC.features)
        known = [" ".join(rng.choice(about[i % 2], 3)) for i in range(20)]
        train = from_samples(known, [i % 2 for i in range(20)], SPEC.features)
        pool = unlabelled_examples(unlabelled.inputs, len(free))
        sites[site] = SiteData(train, train, pool)
    said = {}
    for wanted in (True, False):
        settings = {"rounds": 12, "node_wait_seconds": 0, "label_names": wanted}
        settings |= {"optimizer": "sgd", "learning_rate": 0.05}
        network = {"unsupervised_width": 24, "hidden_width": 32, "embedding_width": 16}
        request = text_run(make_request, folder=f"run-{wanted}", settings=settings, network=network)
        simulate(request, sites)
        publish(request)
        bundle = unpack((request.folder / run_files.BUNDLE_NAME).read_bytes())
        logits = Predictor(bundle).predict(["please top up", "add a top up"]).logits
        said[wanted] = (logits.argmax(axis=1) == 2).tolist()
        tested = json.loads((request.folder / run_files.EVALUATION_NAME).read_text())
        assert tested["accuracy"] > 0.9
    assert said == {True: [True, True], False: [False, False]}
