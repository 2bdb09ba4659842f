"""One site's trainer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from federation.batches import epochs
from federation.dataset import Examples, SiteData, from_samples, unlabelled_examples
from federation.errors import DatasetInvalid, RequestInvalid
from federation.local_settings import LocalSettings
from federation.networks import NetworkSpec, initial_arrays
from federation.reply_rules import update_norm
from federation.statistics import accuracy, seeded_code_book
from federation.training import SiteTrainer, TrainTask
from model_bundle.features import ColumnSpec, FeatureSpec

pytestmark = pytest.mark.federation
COLUMNS = (ColumnSpec("x"), ColumnSpec("y"))
FEATURES = FeatureSpec("record", columns=COLUMNS)


def moons(count: int, seed: int) -> Examples:
    """Two classes that no line parts."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 2))
    classes = (points[:, 0] * points[:, 1] > 0).astype(int)
    samples = [{"x": float(x), "y": float(y)} for x, y in points]
    return from_samples(samples, classes.tolist(), FEATURES)


def trainer(committee: int = 0, train: Examples | None = None) -> SiteTrainer:
    spec = NetworkSpec("record", FEATURES, 2, hidden_width=32, committee_count=committee)
    data = SiteData(moons(200, 0) if train is None else train, moons(200, 1))
    return SiteTrainer(data, spec, device="cpu")


LONG = LocalSettings(local_epochs=40, learning_rate=0.05)


def test_a_site_learns_what_a_line_cannot_part() -> None:
    site = trainer()
    start = initial_arrays(site.spec, seed=1)
    update = site.train(start, LONG, TrainTask(seed=5))
    assert update.example_count == 200
    assert update.loss < 0.3
    report = site.assess(update.arrays, code_book=None, count_min=3)
    assert accuracy(report.table) > 0.85


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_arrays_alone() -> None:
    site = trainer(committee=3)
    start = initial_arrays(site.spec, seed=1)
    before = {name: array.tobytes() for name, array in start.items()}
    runs = [site.train(start, LocalSettings(), TrainTask(seed=s)).arrays for s in (5, 5, 6)]
    assert all((runs[0][n] == runs[1][n]).all() for n in start)
    assert any((runs[0][n] != runs[2][n]).any() for n in start)
    assert {name: array.tobytes() for name, array in start.items()} == before


def test_a_proximal_pull_keeps_an_update_short() -> None:
    site = trainer()
    start = initial_arrays(site.spec, seed=1)
    free, held = (
        site.train(start, LocalSettings(local_epochs=10, proximal_mu=mu), TrainTask(seed=5))
        for mu in (0.0, 5.0)
    )
    assert update_norm(start, held.arrays) < 0.5 * update_norm(start, free.arrays)


def test_a_site_without_labels_gives_the_model_back() -> None:
    nothing = Examples({}, np.zeros(0, np.int64), np.zeros(0, bool))
    site = trainer(train=nothing)
    start = initial_arrays(site.spec, seed=1)
    book = seeded_code_book(4, 64, seed=1)
    update = site.train(start, LocalSettings(), TrainTask(seed=5, code_book=book))
    assert update.example_count == 0
    assert all((update.arrays[name] == array).all() for name, array in start.items())
    assert update.cells is not None
    assert not update.cells.counts.any()
    assert update.table[2].sum() == 200


def test_committee_members_disagree_where_data_is_missing() -> None:
    corner = moons(400, 3)
    near = np.abs(corner.inputs["values"][:, [0, 2]]).max(axis=1) < 0.4
    some = Examples(
        {"values": corner.inputs["values"][near]}, corner.classes[near], corner.calibration[near]
    )
    site = trainer(committee=5, train=some)
    arrays = site.train(initial_arrays(site.spec, seed=1), LONG, TrainTask(seed=5)).arrays
    from federation.publish import run_torch

    votes = run_torch(site.spec, arrays, corner.inputs["values"])["committee_logits"].argmax(axis=2)
    split = (votes != votes[:, :1]).any(axis=1)
    assert votes.shape == (400, 5)
    assert split[~near].mean() > split[near].mean()


def test_rare_classes_weigh_more_when_asked() -> None:
    many, few = moons(300, 4), moons(300, 5)
    keep = np.concatenate(
        [np.flatnonzero(many.classes == 0), 300 + np.flatnonzero(few.classes)[:8]]
    )
    values = np.concatenate([many.inputs["values"], few.inputs["values"]])[keep]
    classes = np.concatenate([many.classes, few.classes])[keep]
    site = trainer(train=Examples({"values": values}, classes, np.zeros(len(classes), bool)))
    start = initial_arrays(site.spec, seed=1)
    found = []
    for balance in (0.0, 1.0):
        settings = LocalSettings(local_epochs=20, balance=balance)
        arrays = site.train(start, settings, TrainTask(seed=5)).arrays
        table = site.assess(arrays, code_book=None, count_min=3).table
        found.append(int(table[1, 1]))
    assert found[1] > found[0]


@pytest.mark.gpu
def test_cuda_learns_in_bf16_as_well_as_the_cpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    spec = NetworkSpec("record", FEATURES, 2, hidden_width=32)
    site = SiteTrainer(SiteData(moons(200, 0), moons(200, 1)), spec, device="cuda")
    update = site.train(initial_arrays(spec, seed=1), LONG, TrainTask(seed=5))
    assert all(array.dtype == np.float32 for array in update.arrays.values())
    report = site.assess(update.arrays, code_book=None, count_min=3)
    assert accuracy(report.table) > 0.85


def test_a_sample_with_a_class_is_no_unlabelled_one() -> None:
    known, free = moons(4, 0), moons(6, 1)
    data = SiteData(known, known, unlabelled_examples(free.inputs, len(free)))
    assert len(data.unlabelled) == 6
    assert len(SiteData(known, known).unlabelled) == 0
    with pytest.raises(DatasetInvalid, match="carries a class"):
        SiteData(known, known, free)


@pytest.mark.parametrize(
    ("rows", "batches"), [(20, [20]), (96, [32, 32, 32]), (97, [33, 32, 32]), (900, [300] * 3)]
)
def test_a_site_with_many_examples_takes_larger_batches_rather_than_more_steps(
    rows: int, batches: list[int]
) -> None:
    local = LocalSettings(local_epochs=2, batch_size=32, local_steps_max=6)
    found = [[len(part) for part in parts] for parts in epochs(rows, local, 1)]
    assert found == [batches, batches]


def test_without_a_bound_steps_grow_with_the_examples_and_each_epoch_has_one_at_least() -> None:
    free = LocalSettings(local_epochs=2, batch_size=32)
    assert [len(parts) for parts in epochs(900, free, 1)] == [29, 29]
    tight = replace(free, local_epochs=4, local_steps_max=2)
    assert [len(parts) for parts in epochs(900, tight, 1)] == [1, 1, 1, 1]
    for wrong in (-1, 2.0, True):
        with pytest.raises(RequestInvalid, match="local_steps_max"):
            replace(free, local_steps_max=wrong)
