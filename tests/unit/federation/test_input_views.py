"""Training examples that are also seen moved a little, through a layer that stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from federation.dataset import VIEWS, SiteData, no_examples
from federation.errors import RequestInvalid
from federation.feature_layer import encoded, make_trainer, with_views
from federation.layer_arrays import trained_arrays
from federation.local_settings import LocalSettings, check_views
from federation.networks import Arrays, NetworkSpec, head_spec, initial_arrays
from federation.requests import TrainingSettings
from federation.training import SiteTrainer, TrainTask
from federation.views import MOVE_SHARE, moved
from model_bundle.features import FeatureSpec

pytestmark = pytest.mark.federation
CPU = torch.device("cpu")
Sites = Mapping[str, SiteData]
SPEC = NetworkSpec(
    "image",
    FeatureSpec("image", height=8, width=8),
    10,
    hidden_width=16,
    embedding_width=8,
    unsupervised_width=12,
    filter_count=8,
)
LOCAL = LocalSettings(local_epochs=2, input_views=4)
ADAM = replace(LOCAL, optimizer="adam", learning_rate=0.01)


def after(data: SiteData, local: LocalSettings, spec: NetworkSpec = SPEC, seed: int = 5) -> Arrays:
    trainer = make_trainer(data, spec, device="cpu")
    return trainer.train(initial_arrays(spec, seed=1), local, TrainTask(seed)).arrays


def same(left: Arrays, right: Arrays) -> bool:
    return {n: a.tobytes() for n, a in left.items()} == {n: a.tobytes() for n, a in right.items()}


def centre(image: torch.Tensor) -> tuple[float, float]:
    """Centre of mass of one image, in pixels: down, right."""
    high, wide = image.shape
    down = (image.sum(1) * torch.arange(high)).sum() / image.sum()
    right = (image.sum(0) * torch.arange(wide)).sum() / image.sum()
    return float(down), float(right)


def test_images_move_by_small_steps_of_their_own_and_keep_what_they_show() -> None:
    x = torch.zeros(50, 1, 32, 32)
    x[:, :, 14:18, 14:18] = 1.0
    found = moved(x, seed=3)
    assert found.sum(dim=(1, 2, 3)).numpy() == pytest.approx(np.full(50, 16.0), rel=1e-4)
    steps = np.array([centre(image[0]) for image in found]) - 15.5
    most = MOVE_SHARE * 32
    assert (np.abs(steps) <= most + 1e-3).all()
    assert (np.abs(steps).max(axis=0) > most / 2).all()
    assert len(np.unique(steps.round(4), axis=0)) == 50


def test_the_same_images_move_alike_whatever_follows_them_and_otherwise_by_another_seed() -> None:
    x = torch.rand(9, 3, 10, 12)
    assert torch.equal(moved(x, seed=1)[:4], moved(x[:4], seed=1))
    assert torch.equal(moved(x.repeat(30, 1, 1, 1), seed=1)[:9], moved(x, seed=1))
    assert not torch.equal(moved(x, seed=1), moved(x, seed=2))
    assert moved(x[:0], seed=1).shape == (0, 3, 10, 12)


@pytest.mark.parametrize("local", [LOCAL, ADAM], ids=["written out", "torch"])
@pytest.mark.parametrize("plain_head", [False, True])
def test_a_head_learns_from_the_features_of_the_examples_and_of_their_moved_copies(
    digits: Sites, local: LocalSettings, plain_head: bool
) -> None:
    data, spec = digits["north"], replace(SPEC, plain_head=plain_head)
    arrays = initial_arrays(spec, seed=1)
    found = make_trainer(data, spec, device="cpu").train(arrays, local, TrainTask(5))
    rows = with_views(spec, arrays, data.train, 4, CPU)
    assert rows.inputs[VIEWS].shape == (len(data.train), 4, 12)
    alone = make_trainer(SiteData(rows, no_examples()), head_spec(spec), device="cpu")
    expected = alone.train(trained_arrays(arrays, spec), local, TrainTask(5))
    assert same(trained_arrays(found.arrays, spec), expected.arrays)
    assert not same(found.arrays, after(data, replace(local, input_views=0), spec))


def test_each_round_takes_the_example_or_one_of_its_copies(digits: Sites) -> None:
    rows = with_views(SPEC, initial_arrays(SPEC, seed=1), digits["north"].train, 3, CPU)
    trainer = SiteTrainer(SiteData(rows, no_examples()), head_spec(SPEC), device="cpu")
    own, copies = trainer._train_input, trainer._views
    assert own is not None
    assert copies is not None
    every = torch.cat([own[:, None], copies], dim=1)
    taken = np.zeros(4)
    for seed in range(40):
        rows = trainer._round_inputs(replace(LOCAL, input_views=3), seed)
        which = (every == rows[:, None]).all(dim=2)
        assert (which.sum(dim=1) == 1).all()
        taken += which.sum(dim=0).numpy()
    share = taken / taken.sum()
    assert (np.abs(share - 0.25) < 0.03).all()
    assert trainer._round_inputs(replace(LOCAL, input_views=0), 1) is own


def test_a_trainer_that_starts_again_learns_the_same_round(digits: Sites) -> None:
    data = digits["north"]
    assert same(after(data, LOCAL), after(data, LOCAL))
    assert not same(after(data, LOCAL), after(data, LOCAL, seed=6))


def test_what_is_measured_are_the_examples_as_they_are(digits: Sites) -> None:
    data, arrays = digits["north"], initial_arrays(SPEC, seed=1)
    trainer, plain = (make_trainer(data, SPEC, device="cpu") for _ in range(2))
    trainer.train(arrays, LOCAL, TrainTask(5))
    found = trainer.assess(arrays, code_book=None, count_min=1)
    expected = plain.assess(arrays, code_book=None, count_min=1)
    assert found.classes.sums.tobytes() == expected.classes.sums.tobytes()
    assert (found.table == expected.table).all()
    logits, _ = trainer.predict(arrays, data.test)
    assert logits.tobytes() == plain.predict(arrays, data.test)[0].tobytes()


def test_moved_digits_are_known_better_after_training_with_moved_copies(digits: Sites) -> None:
    spec = replace(
        SPEC, hidden_width=64, embedding_width=32, unsupervised_width=16, filter_count=16
    )
    right = {0: 0, 8: 0}
    for data in digits.values():
        x = torch.from_numpy(data.test.inputs["pixels"])
        shifted = replace(data.test, inputs={"pixels": moved(x, seed=99).numpy()})
        for count in right:
            arrays = initial_arrays(spec, seed=1)
            trainer = make_trainer(data, spec, device="cpu")
            local = LocalSettings(local_epochs=4, input_views=count)
            for seed in range(30):
                arrays = trainer.train(arrays, local, TrainTask(seed)).arrays
            logits, _ = trainer.predict(arrays, shifted)
            right[count] += int((logits.argmax(axis=1) == shifted.classes).sum())
    assert right[8] > right[0]


def test_without_copies_everything_is_as_before_and_older_trainers_understand(
    digits: Sites,
) -> None:
    data, arrays = digits["north"], initial_arrays(SPEC, seed=1)
    none = with_views(SPEC, arrays, data.train, 0, CPU)
    assert list(none.inputs) == list(encoded(SPEC, arrays, data.train, CPU).inputs)
    assert "input_views" not in LocalSettings().to_mapping()
    assert LocalSettings.from_mapping(LocalSettings().to_mapping()) == LocalSettings()
    assert LOCAL.to_mapping()["input_views"] == 4
    assert LocalSettings.from_mapping(LOCAL.to_mapping()) == LOCAL


def test_a_site_without_examples_has_nothing_to_move() -> None:
    found = with_views(SPEC, initial_arrays(SPEC, seed=1), no_examples(), 4, CPU)
    assert len(found) == 0
    assert VIEWS not in found.inputs


@pytest.mark.parametrize(
    ("family", "width", "remedy"),
    [("text", 12, "set it to 0 for the family text"), ("image", 0, "needs unsupervised_width")],
)
def test_inputs_that_cannot_be_moved_are_refused(family: str, width: int, remedy: str) -> None:
    with pytest.raises(RequestInvalid, match=remedy):
        check_views(4, family, width)
    check_views(0, family, width)


@pytest.mark.parametrize("count", [-1, 65, 1.5, True])
def test_a_number_of_copies_out_of_range_is_refused(count: object) -> None:
    with pytest.raises(RequestInvalid, match="input_views"):
        TrainingSettings.from_mapping({"input_views": count})
