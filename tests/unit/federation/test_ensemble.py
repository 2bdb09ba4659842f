"""Heads that learn apart and answer together: in all engines, in training, and what it buys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from federation import dense_steps, onnx_engine
from federation.dataset import Examples, SiteData, no_examples
from federation.ensemble import joined_members, single, split_members
from federation.errors import RequestInvalid
from federation.feature_layer import Trainer, make_trainer
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, initial_arrays, parameter_layout
from federation.probes import probe_inputs
from federation.publish import check_parity, run_onnx, run_torch
from federation.training import SiteTrainer, TrainTask
from model_bundle.features import ColumnSpec, FeatureSpec

pytestmark = pytest.mark.federation
LAYER = {"unsupervised_width": 12, "filter_count": 8, "hidden_width": 16, "embedding_width": 8}
SMALL = {**LAYER, "unsupervised_width": 8}
TEXT = FeatureSpec("text", buckets=300)
SPECS = {
    "record": NetworkSpec(
        "record", FeatureSpec("record", columns=(ColumnSpec("age"),)), 3, ensemble_size=2
    ),
    "encoder": NetworkSpec("encoder", TEXT, 3, encoder_width=12, ensemble_size=12),
    "image": NetworkSpec(
        "image", FeatureSpec("image", height=8, width=8), 10, **LAYER, ensemble_size=3
    ),
    "series": NetworkSpec("series", FeatureSpec("series", steps=40), 4, **SMALL, ensemble_size=4),
    "text": NetworkSpec("text", TEXT, 4, **LAYER, linear_skip=True, ensemble_size=3),
}
ENCODED = NetworkSpec("encoder", TEXT, 4, encoder_width=20, ensemble_size=3)
each_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def examples(rows: int, seed: int, *, spread: float = 1.0) -> Examples:
    """Four classes of 20 columns around centres of their own."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((4, 20))
    classes = rng.integers(0, 4, rows)
    x = (centres[classes] + spread * rng.standard_normal((rows, 20))).astype(np.float32)
    return Examples({"encoded": x}, classes, np.arange(rows) % 2 == 0)


def right_share(trainer: Trainer, arrays: Arrays, test: Examples) -> float:
    return float((trainer.predict(arrays, test)[0].argmax(axis=1) == test.classes).mean())


@each_spec
def test_the_graph_gives_the_mean_of_what_the_members_say(spec: NetworkSpec) -> None:
    arrays = initial_arrays(spec, seed=3)
    model = onnx_engine.build(spec, arrays)
    check_parity(spec, arrays, model)
    x = probe_inputs(spec, 7, seed=1)
    found = run_onnx(spec, model, x)
    shared = {name: a for name, a in arrays.items() if name.startswith(("tokens", "dict", "proj"))}
    alone = [
        run_torch(single(spec), {**shared, **own}, x)
        for own in split_members(arrays, spec.ensemble_size)
    ]
    assert set(found) == {"logits", "embedding"}
    mean = np.mean([outputs["logits"] for outputs in alone], axis=0)
    assert found["logits"] == pytest.approx(mean, abs=1e-4)
    assert found["embedding"] == pytest.approx(alone[0]["embedding"], abs=1e-5)
    again = onnx_engine.arrays_of(model, spec)
    assert {n: a.tobytes() for n, a in again.items()} == {n: a.tobytes() for n, a in arrays.items()}


@each_spec
def test_members_start_elsewhere_and_the_first_as_a_single_head(spec: NetworkSpec) -> None:
    arrays, alone = initial_arrays(spec, seed=3), initial_arrays(single(spec), seed=3)
    members = split_members(arrays, spec.ensemble_size)
    assert {n: a.tobytes() for n, a in members[0].items()} == {
        n: a.tobytes() for n, a in alone.items()
    }
    starts = [own["hidden.weight"].tobytes() for own in members]
    assert len(set(starts)) == spec.ensemble_size
    scales = [float(own["head.weight"].std()) for own in members]
    assert max(scales) < 1.6 * min(scales)  # weights of a head are drawn as a head's
    assert {n: a.tobytes() for n, a in joined_members(members).items()} == {
        n: a.tobytes() for n, a in arrays.items()
    }


@pytest.mark.parametrize(
    "local",
    [
        LocalSettings(local_epochs=3),
        LocalSettings(local_epochs=2, weight_decay=0.01, gradient_norm=0.3, balance=0.5),
    ],
)
@pytest.mark.parametrize("linear_skip", [False, True])
def test_every_member_learns_as_if_it_were_alone(
    local: LocalSettings, monkeypatch: pytest.MonkeyPatch, *, linear_skip: bool
) -> None:
    spec = replace(ENCODED, linear_skip=linear_skip, dropout_ratio=0.0)
    data, task = SiteData(examples(53, 1), no_examples()), TrainTask(7, measure=False)
    start = initial_arrays(spec, seed=1)
    together = SiteTrainer(data, spec, device="cpu").train(start, local, task)
    one = SiteTrainer(data, single(spec), device="cpu")
    apart = [one.train(own, local, task) for own in split_members(start, 3)]
    assert together.loss == pytest.approx(np.mean([found.loss for found in apart]), rel=1e-5)
    expected = joined_members([found.arrays for found in apart])
    for name, array in together.arrays.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5)
        assert not np.allclose(array, start[name], atol=1e-3)
    monkeypatch.setattr(dense_steps, "are_possible", lambda *_: False)
    derived = SiteTrainer(data, spec, device="cpu").train(start, local, task)
    assert derived.loss == pytest.approx(together.loss, rel=1e-5)
    for name, array in derived.arrays.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5)


def test_members_lose_units_of_their_own() -> None:
    spec = replace(ENCODED, dropout_ratio=0.5)
    alike = {n: initial_arrays(single(spec), seed=1)[n] for n in parameter_layout(single(spec))}
    start = joined_members([alike] * 3)
    trainer = SiteTrainer(SiteData(examples(40, 1), no_examples()), spec, device="cpu")
    members = split_members(trainer.train(start, LocalSettings(), TrainTask(3)).arrays, 3)
    assert len({own["hidden.weight"].tobytes() for own in members}) == 3


@pytest.mark.parametrize(
    "local",
    [
        LocalSettings(optimizer="adam", learning_rate=0.01),
        LocalSettings(proximal_mu=0.1),
        LocalSettings(unlabelled_weight=1.0, cohesion_floor=-1.0),
    ],
)
def test_other_training_settings_teach_every_member(local: LocalSettings) -> None:
    pool = replace(examples(60, 5), classes=np.zeros(0, np.int64))
    data = SiteData(examples(40, 1), examples(30, 2), pool)
    trainer, start = make_trainer(data, ENCODED, device="cpu"), initial_arrays(ENCODED, seed=1)
    found = trainer.train(start, local, TrainTask(3))
    again = trainer.train(start, local, TrainTask(3))
    for name, array in found.arrays.items():
        assert array.tobytes() == again.arrays[name].tobytes()
        assert not np.allclose(array, start[name], atol=1e-4)


def test_reports_are_of_the_mean_and_sums_of_the_first_member() -> None:
    data, arrays = SiteData(examples(40, 1), examples(30, 2)), initial_arrays(ENCODED, seed=1)
    report = make_trainer(data, ENCODED, device="cpu").assess(arrays, code_book=None, count_min=1)
    one = SiteTrainer(data, single(ENCODED), device="cpu")
    said = [one.predict(own, data.test)[0] for own in split_members(arrays, 3)]
    right = int((np.mean(said, axis=0).argmax(axis=1) == data.test.classes).sum())
    assert int(report.table[0].sum()) == right
    first = one.assess(split_members(arrays, 3)[0], code_book=None, count_min=1)
    assert report.classes.sums == pytest.approx(first.classes.sums, abs=1e-4)


def test_an_ensemble_of_few_labels_errs_less_than_its_members() -> None:
    spec, test = replace(ENCODED, ensemble_size=8), examples(2000, 99, spread=2.5)
    together, apart = [], []
    for seed in range(4):
        trainer = SiteTrainer(SiteData(examples(24, seed, spread=2.5), no_examples()), spec)
        arrays: Arrays = initial_arrays(spec, seed=seed)
        for number in range(8):
            task = TrainTask(number, measure=False)
            arrays = trainer.train(arrays, LocalSettings(), task).arrays
        one = SiteTrainer(SiteData(examples(4, 1), no_examples()), single(spec))
        together.append(right_share(trainer, arrays, test))
        apart += [right_share(one, own, test) for own in split_members(arrays, 8)]
    assert np.mean(together) > np.mean(apart) + 0.01


def test_a_network_of_one_head_travels_without_the_key() -> None:
    assert "ensemble_size" not in single(ENCODED).to_mapping()
    assert ENCODED.to_mapping()["ensemble_size"] == 3
    assert NetworkSpec.from_mapping(ENCODED.to_mapping()) == ENCODED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ensemble_size": 0}, "1 to 16"),
        ({"ensemble_size": 17}, "1 to 16"),
        ({"ensemble_size": True}, "1 to 16"),
        ({"ensemble_size": 2.0}, "1 to 16"),
        ({"plain_head": True}, "set plain_head to false"),
        ({"committee_count": 2}, "committee_count to 0"),
        ({"unsupervised_width": 0}, "set unsupervised_width, or ensemble_size to 1"),
    ],
)
def test_what_an_ensemble_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    values = SPECS["image"].to_mapping() | changes
    with pytest.raises(RequestInvalid, match=said):
        NetworkSpec.from_mapping(values)
