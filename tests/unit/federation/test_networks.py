"""One definition of each network, three engines that must agree."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from federation import onnx_engine
from federation.errors import NetworkInvalid, RequestInvalid
from federation.networks import (
    NetworkSpec,
    check_arrays,
    initial_arrays,
    parameter_layout,
)
from federation.probes import probe_inputs
from federation.publish import check_parity, run_onnx, run_torch
from model_bundle.features import ColumnSpec, FeatureSpec, extract

pytestmark = pytest.mark.federation
COLUMNS = (ColumnSpec("age"), ColumnSpec("ward", role="category", buckets=4))
GOLDEN = "950b603c06515d178818d20c1e5b1d7741d5cdb5c3ac10a46a4a897e55812dd5"
SPECS = {
    "text": NetworkSpec("text", FeatureSpec("text", buckets=500), 5, committee_count=3),
    "tiny image": NetworkSpec("image", FeatureSpec("image", height=8, width=8), 10),
    "odd image": NetworkSpec("image", FeatureSpec("image", height=19, width=30, channels=3), 4),
    "series": NetworkSpec("series", FeatureSpec("series", steps=100, channels=6), 5),
    "record": NetworkSpec("record", FeatureSpec("record", columns=COLUMNS), 2, committee_count=2),
    "encoder": NetworkSpec("encoder", FeatureSpec("text"), 3, encoder_width=12),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_the_exported_graph_computes_what_torch_computes(spec: NetworkSpec) -> None:
    arrays = initial_arrays(spec, seed=3)
    model = onnx_engine.build(spec, arrays)
    check_parity(spec, arrays, model)
    x = probe_inputs(spec, 7, seed=1)
    found, expected = run_onnx(spec, model, x), run_torch(spec, arrays, x)
    assert set(found) == set(expected)
    assert found["logits"].shape == (7, spec.class_count)
    assert found["embedding"].shape == (7, spec.embedding_width)
    assert np.linalg.norm(found["embedding"], axis=1) == pytest.approx(1.0, abs=1e-5)
    if spec.committee_count:
        shape = (7, spec.committee_count, spec.class_count)
        assert found["committee_logits"].shape == shape


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_parameters_come_back_from_a_graph_byte_for_byte(spec: NetworkSpec) -> None:
    arrays = initial_arrays(spec, seed=3)
    found = onnx_engine.arrays_of(onnx_engine.build(spec, arrays), spec)
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in arrays.items()}


def test_a_seed_gives_the_same_parameters_on_any_machine() -> None:
    arrays = initial_arrays(SPECS["record"], seed=11)
    digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    assert digest == GOLDEN
    other = initial_arrays(SPECS["record"], seed=12)
    assert any((arrays[name] != other[name]).any() for name in arrays)


def test_rows_of_a_text_do_not_depend_on_the_padding_of_their_batch() -> None:
    spec = SPECS["text"]
    arrays = initial_arrays(spec, seed=3)
    model = onnx_engine.build(spec, arrays)
    texts = ["short", "a much longer text that pads the batch to many more tokens than one word"]
    both = run_onnx(spec, model, extract(texts, spec.features)["token_ids"])["logits"]
    alone = run_onnx(spec, model, extract(texts[:1], spec.features)["token_ids"])["logits"]
    assert both[0] == pytest.approx(alone[0], abs=1e-5)


def test_an_empty_text_has_an_answer() -> None:
    spec = SPECS["text"]
    arrays = initial_arrays(spec, seed=3)
    ids = np.zeros((1, 1), dtype=np.int64)
    found = run_onnx(spec, onnx_engine.build(spec, arrays), ids)
    assert all(np.isfinite(output).all() for output in found.values())
    assert run_torch(spec, arrays, ids)["logits"] == pytest.approx(found["logits"], abs=1e-5)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "dtype", "nan"])
def test_arrays_of_another_network_are_refused_by_name(change: str) -> None:
    arrays = dict(initial_arrays(SPECS["record"], seed=1))
    if change == "missing":
        del arrays["head.bias"]
    elif change == "extra":
        arrays["head.more"] = arrays["head.bias"]
    elif change == "shape":
        arrays["head.bias"] = arrays["head.bias"][:1]
    elif change == "dtype":
        arrays["head.bias"] = arrays["head.bias"].astype(np.float64)  # type: ignore[assignment]
    else:
        arrays["head.bias"] = np.full_like(arrays["head.bias"], np.nan)
    with pytest.raises(NetworkInvalid, match="head"):
        check_arrays(arrays, SPECS["record"])


def test_a_parent_with_another_network_says_what_to_do() -> None:
    spec = SPECS["tiny image"]
    model = onnx_engine.build(spec, initial_arrays(spec, seed=1))
    wider = NetworkSpec("image", spec.features, 10, committee_count=2)
    with pytest.raises(NetworkInvalid, match="start again from a seed or keep"):
        onnx_engine.arrays_of(model, wider)
    with pytest.raises(NetworkInvalid, match="cannot be read"):
        onnx_engine.arrays_of(b"\xff\xffno model", spec)


def test_a_network_without_input_or_with_too_many_parameters_is_refused() -> None:
    with pytest.raises(NetworkInvalid, match="at least one column"):
        parameter_layout(NetworkSpec("record", FeatureSpec("record"), 2))
    huge = NetworkSpec("text", FeatureSpec("text", buckets=1 << 20), 2, token_width=4096)
    with pytest.raises(NetworkInvalid, match="parameters"):
        parameter_layout(huge)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"family": "video"}, "family"),
        ({"family": "image"}, "features of kind"),
        ({"class_count": 1}, "outside"),
        ({"dropout_ratio": 1.0}, "dropout"),
        ({"encoder_width": 3}, "encoder_width"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_network_settings_are_named(changes: dict[str, object], text: str) -> None:
    values = SPECS["text"].to_mapping() | changes
    with pytest.raises(RequestInvalid, match=text):
        NetworkSpec.from_mapping(values)


def test_older_trainers_can_read_a_network_that_uses_nothing_younger() -> None:
    spec = SPECS["text"]
    values = spec.to_mapping()
    assert not {"unsupervised_width", "filter_count", "plain_head"} & set(values)
    assert NetworkSpec.from_mapping(values) == spec
    younger = NetworkSpec("text", spec.features, 5, unsupervised_width=8, plain_head=True)
    assert NetworkSpec.from_mapping(younger.to_mapping()) == younger
    assert younger.to_mapping()["plain_head"] is True
