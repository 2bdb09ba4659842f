"""A linear map of the columns beside the hidden layers: in all engines, and what it is good for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from federation import onnx_engine
from federation.dataset import Examples, SiteData, no_examples
from federation.errors import RequestInvalid
from federation.feature_layer import encoded, make_trainer
from federation.layer_arrays import trained_arrays
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, head_spec, initial_arrays, parameter_layout
from federation.probes import probe_inputs
from federation.publish import check_parity, run_onnx, run_torch
from federation.torch_engine import choose_device
from federation.training import SiteTrainer, TrainTask
from model_bundle.features import ColumnSpec, FeatureSpec

pytestmark = pytest.mark.federation
LAYER = {"unsupervised_width": 12, "filter_count": 8, "hidden_width": 16, "embedding_width": 8}
TEXT = FeatureSpec("text", buckets=300)
SPECS = {
    "record": NetworkSpec(
        "record", FeatureSpec("record", columns=(ColumnSpec("age"),)), 3, linear_skip=True
    ),
    "encoder": NetworkSpec("encoder", TEXT, 3, encoder_width=12, linear_skip=True),
    "image": NetworkSpec(
        "image", FeatureSpec("image", height=8, width=8), 10, **LAYER, linear_skip=True
    ),
    "text": NetworkSpec("text", TEXT, 4, **LAYER, linear_skip=True, committee_count=2),
    "two heads": NetworkSpec("text", TEXT, 4, **LAYER, linear_skip=True, plain_head=True),
}
ENCODED = NetworkSpec("encoder", TEXT, 4, encoder_width=20, linear_skip=True)


def learned(spec: NetworkSpec) -> Arrays:
    """Parameters whose linear maps have learned something."""
    rng = np.random.default_rng(2)
    return {
        name: rng.standard_normal(a.shape).astype(np.float32) if "skip." in name else a
        for name, a in initial_arrays(spec, seed=3).items()
    }


def linear_task(rows: int, seed: int, *, width: int = 20) -> Examples:
    """Four classes that a linear map tells apart."""
    truth = np.random.default_rng(7).standard_normal((width, 4))
    x = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return Examples({"encoded": x}, (x @ truth).argmax(axis=1), np.zeros(rows, dtype=np.bool_))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_exported_graph_adds_the_linear_map_as_torch_does(spec: NetworkSpec) -> None:
    arrays = learned(spec)
    model = onnx_engine.build(spec, arrays)
    check_parity(spec, arrays, model)
    x = probe_inputs(spec, 7, seed=1)
    found = run_onnx(spec, model, x)
    silent = run_torch(spec, initial_arrays(spec, seed=3), x)
    assert np.abs(found["logits"] - silent["logits"]).max() > 0.1
    assert found["embedding"] == pytest.approx(silent["embedding"], abs=1e-5)
    again = onnx_engine.arrays_of(model, spec)
    assert {n: a.tobytes() for n, a in again.items()} == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_before_anything_is_learned_the_hidden_layers_alone_speak(spec: NetworkSpec) -> None:
    x, plain = probe_inputs(spec, 5, seed=1), replace(spec, linear_skip=False)
    found = run_torch(spec, initial_arrays(spec, seed=3), x)
    expected = run_torch(plain, initial_arrays(plain, seed=3), x)
    assert all((found[name] == values).all() for name, values in expected.items())
    more = {n for n in parameter_layout(spec) if n not in parameter_layout(plain)}
    both = {"skip.weight", "skip.bias", "plain_skip.weight", "plain_skip.bias"}
    assert more == {n for n in both if spec.plain_head or not n.startswith("plain_")}


def test_two_heads_each_learn_a_linear_map_of_their_own() -> None:
    spec, data = replace(ENCODED, plain_head=True), SiteData(linear_task(40, 1), no_examples())
    local = LocalSettings(local_epochs=2, input_noise=0.5)
    found = make_trainer(data, spec).train(initial_arrays(spec, seed=1), local, TrainTask(3)).arrays
    one = SiteTrainer(data, ENCODED, device="cpu")
    served = one.train(initial_arrays(ENCODED, seed=1), local, TrainTask(3)).arrays
    quiet = replace(local, input_noise=0.0)
    plain = one.train(initial_arrays(ENCODED, seed=1), quiet, TrainTask(3)).arrays
    for name, array in served.items():
        assert (found[name] == array).all()
        assert (found[f"plain_{name}"] == plain[name]).all()
    assert not (found["skip.weight"] == found["plain_skip.weight"]).all()


def test_on_a_layer_that_stays_the_map_reads_its_columns() -> None:
    spec = replace(SPECS["text"], committee_count=0)
    rng = np.random.default_rng(5)
    tokens = rng.integers(1, 300, (30, 9))
    examples = Examples({"token_ids": tokens}, rng.integers(0, 4, 30), np.zeros(30, np.bool_))
    arrays, local = initial_arrays(spec, seed=1), LocalSettings()
    found = make_trainer(SiteData(examples, no_examples()), spec).train(arrays, local, TrainTask(3))
    rows = encoded(spec, arrays, examples, choose_device("cpu"))
    head = SiteTrainer(SiteData(rows, no_examples()), head_spec(spec), device="cpu")
    expected = head.train(trained_arrays(arrays, spec), local, TrainTask(3)).arrays
    assert all((found.arrays[name] == array).all() for name, array in expected.items())
    assert found.arrays["skip.weight"].any()


def test_few_labels_of_a_linear_task_teach_more_with_the_map() -> None:
    right = {True: 0.0, False: 0.0}
    test = linear_task(500, 99)
    for seed in range(4):
        data = SiteData(linear_task(40, seed), no_examples())
        for has_map in right:
            spec = replace(ENCODED, linear_skip=has_map)
            trainer, arrays = SiteTrainer(data, spec, device="cpu"), initial_arrays(spec, seed=seed)
            for number in range(8):
                task = TrainTask(number, measure=False)
                arrays = trainer.train(arrays, LocalSettings(), task).arrays
            logits, _ = trainer.predict(arrays, test)
            right[has_map] += float((logits.argmax(axis=1) == test.classes).mean()) / 4
    assert right[True] > right[False] + 0.01


def test_older_trainers_understand_a_network_without_the_map() -> None:
    plain = replace(SPECS["text"], linear_skip=False)
    assert "linear_skip" not in plain.to_mapping()
    assert SPECS["text"].to_mapping()["linear_skip"] is True
    assert NetworkSpec.from_mapping(SPECS["text"].to_mapping()) == SPECS["text"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"linear_skip": 1}, "true or false"),
        ({"linear_skip": None}, "true or false"),
        ({"unsupervised_width": 0}, "set unsupervised_width, or linear_skip to false"),
    ],
)
def test_a_map_of_what_labels_change_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RequestInvalid, match=words):
        NetworkSpec.from_mapping(SPECS["text"].to_mapping() | changes)
