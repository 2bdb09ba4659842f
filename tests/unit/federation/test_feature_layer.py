"""A first layer that learns without labels: what it computes, and that it stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_agent.onnx_scan import check_model
from federation import onnx_engine, torch_engine
from federation.errors import RequestInvalid
from federation.fixed_columns import is_fitted
from federation.layer_arrays import trained_arrays
from federation.networks import (
    INPUT_NAMES,
    POOL_GRID,
    Arrays,
    NetworkSpec,
    feature_names,
    head_spec,
    initial_arrays,
    input_shape,
    parameter_layout,
    patch_side,
    pooling_cells,
)
from federation.probes import probe_inputs
from federation.publish import check_parity, run_onnx, run_torch
from model_bundle.features import ColumnSpec, FeatureSpec

pytestmark = pytest.mark.federation
CPU = torch.device("cpu")
SMALL = {"filter_count": 8, "hidden_width": 16, "embedding_width": 8}
SPECS = {
    "image": NetworkSpec("image", FeatureSpec("image"), 10, unsupervised_width=64),
    "odd image": NetworkSpec(
        "image",
        FeatureSpec("image", height=7, width=9, channels=3),
        4,
        **SMALL,
        unsupervised_width=20,
    ),
    "smallest image": NetworkSpec(
        "image", FeatureSpec("image", height=3, width=4), 2, **SMALL, unsupervised_width=5
    ),
    "series": NetworkSpec(
        "series", FeatureSpec("series", steps=101, channels=6), 5, unsupervised_width=32
    ),
    "text": NetworkSpec(
        "text", FeatureSpec("text", buckets=500), 5, unsupervised_width=30, committee_count=3
    ),
}
each_family = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def fitted(spec: NetworkSpec) -> Arrays:
    """Parameters such as a fit leaves them: filters that answer often, a centred projection."""
    arrays, rng = initial_arrays(spec, seed=3), np.random.default_rng(5)
    if spec.family == "text":
        arrays["tokens.weight"][::7] = 0
        return arrays
    arrays["dictionary.bias"] = rng.normal(0, 0.5, spec.filter_count).astype(np.float32)
    arrays["projection.weight"] *= np.float32(3)
    arrays["projection.bias"] = rng.standard_normal(spec.unsupervised_width).astype(np.float32)
    return arrays


def inputs(spec: NetworkSpec) -> NDArray[Any]:
    """Probes, and samples in which nothing happens."""
    found = probe_inputs(spec, 9, seed=1)
    found[0] = 0
    found[1] = 1
    return found


def features_of(spec: NetworkSpec, arrays: Arrays, x: NDArray[Any]) -> NDArray[np.float32]:
    parameters = torch_engine.to_parameters(arrays, CPU)
    return torch_engine.features(spec, parameters, torch.from_numpy(x)).numpy()


@each_family
@pytest.mark.parametrize("start", [lambda spec: initial_arrays(spec, seed=3), fitted])
def test_the_device_computes_the_layer_that_the_site_computes(
    spec: NetworkSpec, start: Any
) -> None:
    arrays, x = start(spec), inputs(spec)
    model = onnx_engine.build(spec, arrays)
    check_model(model)
    check_parity(spec, arrays, model)
    found, expected = run_onnx(spec, model, x), run_torch(spec, arrays, x)
    for name, output in expected.items():
        assert np.isfinite(output).all()
        np.testing.assert_allclose(found[name], output, atol=1e-4 * max(1, np.abs(output).max()))
    back = onnx_engine.arrays_of(model, spec)
    assert {n: a.tobytes() for n, a in back.items()} == {n: a.tobytes() for n, a in arrays.items()}


@each_family
def test_head_on_features_is_the_whole_network(spec: NetworkSpec) -> None:
    arrays, x = fitted(spec), inputs(spec)
    rows = features_of(spec, arrays, x)
    assert rows.shape == (len(x), spec.unsupervised_width)
    head = trained_arrays(arrays, spec)
    assert list(head) == list(parameter_layout(head_spec(spec)))
    assert list(arrays) == [*feature_names(spec), *head]
    whole, parts = run_torch(spec, arrays, x), run_torch(head_spec(spec), head, rows)
    for name, output in whole.items():
        np.testing.assert_allclose(parts[name], output, atol=1e-4)


def formula(spec: NetworkSpec, arrays: Arrays, sample: NDArray[np.float32]) -> NDArray[np.float64]:
    """The columns before the projection, patch by patch in float64."""
    side, sizes = patch_side(spec), sample.shape[1:]
    weight = arrays["dictionary.weight"].astype(np.float64).reshape(spec.filter_count, -1)
    grid = POOL_GRID[spec.family]
    sums, counts = np.zeros((*grid, spec.filter_count)), np.zeros((*grid, 1))
    places = [
        np.array_split(np.arange(size - side + 1), parts)
        for size, parts in zip(sizes, grid, strict=True)
    ]
    for place in np.ndindex(*(size - side + 1 for size in sizes)):
        window = tuple(slice(start, start + side) for start in place)
        patch = sample[(slice(None), *window)].astype(np.float64).ravel()
        q = (patch - patch.mean()) / np.sqrt(patch.var() + 0.01)
        cell = tuple(
            next(number for number, part in enumerate(places[axis]) if start in part)
            for axis, start in enumerate(place)
        )
        sums[cell] += np.maximum(weight @ q + arrays["dictionary.bias"], 0)
        counts[cell] += 1
    means = np.moveaxis(sums / np.maximum(counts, 1), -1, 0).ravel()
    return np.asarray(np.sqrt(means / max(means.sum(), 1e-9)))


@pytest.mark.parametrize("name", ["odd image", "smallest image", "series"])
def test_answers_of_patches_equal_the_formula(name: str) -> None:
    spec = SPECS[name]
    arrays, x = fitted(spec), inputs(spec)
    parameters = torch_engine.to_parameters(arrays, CPU)
    rows = torch_engine.responses_rows(spec, parameters, torch.from_numpy(x)).numpy()
    expected = np.stack([formula(spec, arrays, sample) for sample in x])
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    through = expected @ arrays["projection.weight"].T + arrays["projection.bias"]
    np.testing.assert_allclose(features_of(spec, arrays, x), through, atol=1e-3)


def test_a_text_is_its_direction_among_the_table_s_columns() -> None:
    spec = SPECS["text"]
    arrays = fitted(spec)
    ids = np.array([[3, 9, 9, 12, 0, 0], [0] * 6, [7, 0, 0, 0, 0, 0]], dtype=np.int64)
    found = features_of(spec, arrays, ids)
    table = arrays["tokens.weight"].astype(np.float64)
    total = table[3] + 2 * table[9] + table[12]
    np.testing.assert_allclose(found[0], total / np.linalg.norm(total) * 30**0.5, atol=1e-5)
    assert not found[1].any()
    assert not found[2].any(), "a text of n-grams that the fit left out says nothing"


def test_a_loud_constant_beside_a_signal_does_not_drown_it() -> None:
    spec = SPECS["series"]
    arrays, x = fitted(spec), probe_inputs(spec, 5, seed=1)
    quiet, loud = features_of(spec, arrays, x), features_of(spec, arrays, x + np.float32(1000))
    np.testing.assert_allclose(loud, quiet, atol=0.05)


def test_many_rows_in_parts_equal_few_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS["odd image"]
    arrays, x = fitted(spec), probe_inputs(spec, 30, seed=1)
    whole = features_of(spec, arrays, x)
    monkeypatch.setattr(torch_engine, "ANSWERS_MAX", 4 * spec.filter_count * x[0].size)
    np.testing.assert_allclose(features_of(spec, arrays, x), whole, atol=1e-5)
    assert features_of(spec, arrays, x[:0]).shape == (0, spec.unsupervised_width)


def test_pooling_takes_every_position_once() -> None:
    cells = pooling_cells(SPECS["odd image"])
    assert cells.shape == (5 * 7, 4)
    assert ((cells > 0).sum(axis=1) == 1).all()
    np.testing.assert_allclose(cells.sum(axis=0), 1.0, rtol=1e-6)
    assert (cells[:, 0].reshape(5, 7) > 0).sum(axis=0).tolist() == [3, 3, 3, 3, 0, 0, 0]


@each_family
def test_before_the_fit_the_layer_spreads_samples_and_is_known_as_seeded(spec: NetworkSpec) -> None:
    arrays = initial_arrays(spec, seed=3)
    assert not is_fitted(arrays, spec)
    assert is_fitted(fitted(spec), spec)
    rows = features_of(spec, arrays, probe_inputs(spec, 200, seed=2))
    assert 0.3 < rows.std(axis=0).mean() < 3
    if spec.family != "text":
        filters = arrays["dictionary.weight"].reshape(spec.filter_count, -1)
        assert np.abs(filters.mean(axis=1)).max() < 1e-6
        np.testing.assert_allclose(np.linalg.norm(filters, axis=1), 1.0, rtol=1e-5)
        assert (arrays["dictionary.bias"] == -0.5).all()


def test_a_network_without_the_layer_has_nothing_to_fit() -> None:
    plain = NetworkSpec("image", FeatureSpec("image"), 10)
    arrays = initial_arrays(plain, seed=1)
    assert feature_names(plain) == ()
    assert is_fitted(arrays, plain)
    assert list(trained_arrays(arrays, plain)) == list(arrays)


def test_sides_of_patches_follow_the_sample() -> None:
    sides = {
        (h, w): patch_side(NetworkSpec("image", FeatureSpec("image", height=h, width=w), 2))
        for h, w in ((8, 8), (28, 28), (32, 20), (224, 224))
    }
    assert sides == {(8, 8): 3, (28, 28): 7, (32, 20): 5, (224, 224): 8}
    steps = [
        patch_side(NetworkSpec("series", FeatureSpec("series", steps=s), 2)) for s in (20, 100, 999)
    ]
    assert steps == [3, 16, 16]


TINY = FeatureSpec("image", height=2, width=9)
RECORD = FeatureSpec("record", columns=(ColumnSpec("age"),))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"unsupervised_width": -1}, "unsupervised_width must be 0 to 4096"),
        ({"unsupervised_width": 5000}, "unsupervised_width must be 0 to 4096"),
        ({"unsupervised_width": 2.5}, "unsupervised_width must be 0 to 4096"),
        ({"unsupervised_width": "8"}, "unsupervised_width must be 0 to 4096"),
        ({"filter_count": 7}, "filter_count must be 8 to 1024"),
        ({"filter_count": 1025}, "filter_count must be 8 to 1024"),
        ({"filter_count": 8.0}, "filter_count must be 8 to 1024"),
        ({"filter_count": 8, "unsupervised_width": 33}, "lower it or raise filter_count"),
        ({"features": TINY.to_mapping()}, "at least 3 along each axis.*set it to 0 or enlarge"),
        (
            {"family": "record", "features": RECORD.to_mapping()},
            "unsupervised_width is for text, image, series; set it to 0 for record",
        ),
        ({"family": "encoder", "encoder_width": 4}, "set it to 0 for encoder"),
        (
            {"family": "text", "features": FeatureSpec("text", buckets=64).to_mapping()},
            "unsupervised_width 64 needs more buckets than 64; lower it or raise buckets",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_with_a_way_out(
    changes: dict[str, Any], text: str
) -> None:
    values = SPECS["image"].to_mapping() | changes
    with pytest.raises(RequestInvalid, match=text):
        NetworkSpec.from_mapping(values)


def test_the_settings_travel_with_the_network() -> None:
    for spec in SPECS.values():
        assert NetworkSpec.from_mapping(spec.to_mapping()) == spec
        assert INPUT_NAMES[head_spec(spec).family] == "encoded"
        assert input_shape(head_spec(spec)) == (spec.unsupervised_width,)
