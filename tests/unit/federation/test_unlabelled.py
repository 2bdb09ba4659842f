"""What a site's trainer makes of samples that nobody has labelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from federation import pool
from federation.dataset import Examples, SiteData, from_samples, no_examples, unlabelled_examples
from federation.errors import RequestInvalid
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, initial_arrays
from federation.requests import RoundSettings
from federation.statistics import accuracy, seeded_code_book
from federation.training import SiteTrainer, TrainTask
from model_bundle.features import ColumnSpec, FeatureSpec

pytestmark = pytest.mark.federation
RECORDS = FeatureSpec("record", columns=tuple(ColumnSpec(f"c{i}") for i in range(12)))
SPEC = NetworkSpec("record", RECORDS, 4, hidden_width=32, embedding_width=16)
CENTRES = np.random.default_rng(7).normal(0, 1.0, (4, 12))
TEACH = LocalSettings(
    local_epochs=8, unlabelled_weight=1.0, input_noise=0.6, pool_prior=0.0, spread="graph"
)
IMAGES = FeatureSpec("image", height=8, width=8)
WINDOWS = FeatureSpec("series", steps=32, channels=2, mean=(0.0, 0.0), scale=(1.0, 1.0))


def clusters(count: int, seed: int, *, classes: int = 4) -> Examples:
    """Four clouds of points in twelve columns, wide enough that two examples of each say little."""
    rng = np.random.default_rng(seed)
    known = np.arange(count) % classes
    points = CENTRES[known] + rng.normal(0, 0.9, (count, 12))
    samples = [{f"c{i}": float(v) for i, v in enumerate(row)} for row in points]
    return from_samples(samples, known.tolist(), RECORDS)


def site(few: Examples, pool: Examples | None = None) -> SiteTrainer:
    free = no_examples() if pool is None else unlabelled_examples(pool.inputs, len(pool))
    return SiteTrainer(SiteData(few, clusters(400, 9), free), SPEC, device="cpu")


def learned(trainer: SiteTrainer, local: LocalSettings, *, rounds: int = 12) -> Arrays:
    arrays = initial_arrays(SPEC, seed=1)
    book = seeded_code_book(8, SPEC.embedding_width, seed=2)
    for number in range(rounds):
        weight = local.unlabelled_weight * min(1.0, max(0.0, (number - 3) / 4))
        told = replace(local, unlabelled_weight=weight)
        arrays = trainer.train(arrays, told, TrainTask(seed=number, code_book=book)).arrays
    return arrays


def right(trainer: SiteTrainer, arrays: Arrays) -> float:
    return accuracy(trainer.assess(arrays, code_book=None, count_min=3).table)


def test_unlabelled_samples_help_where_labels_are_few() -> None:
    gains = []
    for seed in range(3):
        trainer = site(clusters(8, seed), clusters(400, 50 + seed))
        plain = right(trainer, learned(trainer, LocalSettings(local_epochs=8)))
        gains.append(right(trainer, learned(trainer, TEACH)) - plain)
    assert np.mean(gains) > 0.04


@pytest.mark.parametrize(
    "changes",
    [
        {"pseudo_labels": "threshold"},
        {"spread": "none"},
        {"spread": "cells"},
        {"pool_prior": 1.0},
        {"agreement_power": 2.0},
        {"cohesion_floor": 0.8},
    ],
)
def test_every_way_of_guessing_moves_the_model_and_keeps_it_useful(changes: dict[str, Any]) -> None:
    trainer = site(clusters(24, 1), clusters(300, 51))
    graph, other = (learned(trainer, replace(TEACH, **told)) for told in ({}, changes))
    assert any((graph[name] != other[name]).any() for name in graph)
    assert right(trainer, other) > 0.8


def test_a_pool_changes_nothing_until_it_is_asked_for() -> None:
    few = clusters(20, 1)
    found = [
        learned(site(few, pool), LocalSettings(), rounds=2) for pool in (None, clusters(300, 51))
    ]
    assert all((found[0][name] == found[1][name]).all() for name in found[0])


def test_unlabelled_samples_count_for_nothing_in_what_a_site_reports() -> None:
    few = clusters(20, 1)
    book = seeded_code_book(8, SPEC.embedding_width, seed=2)
    start = initial_arrays(SPEC, seed=1)
    alone, helped = site(few), site(few, clusters(300, 51))
    updates = [t.train(start, TEACH, TrainTask(seed=3, code_book=book)) for t in (alone, helped)]
    assert [update.example_count for update in updates] == [20, 20]
    reports = [t.assess(start, code_book=book, count_min=3) for t in (alone, helped)]
    for left, other in ((u.cells for u in updates), (r.cells for r in reports)):
        assert left is not None
        assert other is not None
        assert (left.counts == other.counts).all()
        assert (left.sums == other.sums).all()


def test_guesses_that_labels_disprove_count_for_little() -> None:
    rows = np.eye(4, dtype=np.float32).repeat(5, axis=0)
    known = np.arange(4).repeat(5)
    right, wrong = np.eye(4)[known], np.eye(4)[(known + 1) % 4]
    assert pool.trust(rows, known, rows, right) > 0.9
    assert pool.trust(rows, known, rows, wrong) < 0.1
    assert 0.3 < pool.trust(rows[:1], known[:1], rows, wrong) < 0.4


def test_where_neighbours_disagree_a_sure_guess_counts_for_little() -> None:
    rng = np.random.default_rng(3)
    apart = np.eye(4, dtype=np.float32).repeat(30, axis=0) + rng.normal(0, 0.1, (120, 4))
    mixed = rng.normal(0, 1, (120, 4))
    sure = np.eye(4)[np.arange(4).repeat(30)]
    found = []
    for rows in (apart, mixed):
        near = pool.nearest(rows.astype(np.float32), rows.astype(np.float32), skip=0)
        assert not (near.places == np.arange(120)[:, None])[near.closeness > 0].any()
        found.append(pool.agreement(near, sure, sure).mean())
    assert found[0] > 0.95
    assert found[1] < 0.5


def cloud(count: int, seed: int) -> Examples:
    """One cloud without clusters, cut into four classes by a rule that bends everywhere."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1.0, (count, 12))
    bent = np.tanh(points @ np.random.default_rng(8).normal(0, 1.0, (12, 40)))
    classes = (bent @ np.random.default_rng(9).normal(0, 1.0, (40, 4))).argmax(axis=1)
    samples = [{f"c{i}": float(v) for i, v in enumerate(row)} for row in points]
    return from_samples(samples, classes.tolist(), RECORDS)


@pytest.mark.parametrize(("samples", "counts"), [(cloud, False), (clusters, True)])
def test_guesses_and_noise_count_where_samples_lie_in_clusters_only(
    samples: Callable[[int, int], Examples], counts: bool
) -> None:
    trainer = site(samples(40, 1), samples(300, 51))
    start = learned(trainer, LocalSettings(local_epochs=8))
    task = TrainTask(seed=5)
    plain = trainer.train(start, LocalSettings(local_epochs=2), task).arrays
    taught = trainer.train(start, replace(TEACH, local_epochs=2), task).arrays
    assert any((plain[name] != taught[name]).any() for name in plain) is counts


def test_the_teacher_guesses_and_the_model_learns() -> None:
    trainer = site(clusters(8, 1), clusters(300, 51))
    start = initial_arrays(SPEC, seed=1)
    teacher = learned(site(clusters(200, 2)), LocalSettings(local_epochs=8))
    anyway = replace(TEACH, cohesion_floor=-1.0, spread="none")
    alone, taught = (
        trainer.train(start, anyway, TrainTask(seed=3, teacher=told)).arrays
        for told in ({}, teacher)
    )
    assert right(trainer, taught) > right(trainer, alone)
    told = LocalSettings()
    ignored = [trainer.train(start, told, TrainTask(seed=3, teacher=t)) for t in ({}, teacher)]
    assert all((ignored[0].arrays[n] == a).all() for n, a in ignored[1].arrays.items())


def _family(name: str) -> tuple[NetworkSpec, Examples]:
    rng = np.random.default_rng(4)
    if name == "image":
        spec = NetworkSpec("image", IMAGES, 2, channels=4, hidden_width=16, embedding_width=16)
        tiles = rng.integers(0, 255, (40, 2, 2))
        images = np.kron(tiles, np.ones((1, 4, 4))).astype(np.uint8)
        return spec, from_samples(list(images), [0] * 40, IMAGES)
    if name == "series":
        spec = NetworkSpec("series", WINDOWS, 2, channels=4, hidden_width=16, embedding_width=16)
        windows = list(rng.normal(0, 1, (40, 32, 2)).astype(np.float32))
        return spec, from_samples(windows, [0] * 40, WINDOWS)
    features = FeatureSpec("text")
    words = np.array(["red", "green", "blue", "cyan", "pink", "grey", "black", "white"])
    texts = [" ".join(rng.choice(words, rng.integers(2, 7))) for _ in range(40)]
    spec = NetworkSpec("text", features, 2, hidden_width=16, embedding_width=16, token_width=8)
    return spec, from_samples(texts, [0] * 40, features)


@pytest.mark.parametrize("family", ["image", "series", "text"])
def test_pre_training_brings_views_of_a_sample_together_and_leaves_the_head(family: str) -> None:
    spec, pool = _family(family)
    half = Examples(
        {n: a[:20] for n, a in pool.inputs.items()}, pool.classes[:20], np.zeros(20, bool)
    )
    trainer = SiteTrainer(
        SiteData(half, no_examples(), unlabelled_examples(pool.inputs, 40)), spec, device="cpu"
    )
    arrays, losses = initial_arrays(spec, seed=1), []
    for number in range(20):
        update = trainer.train(
            arrays, LocalSettings(objective="views", local_epochs=8), TrainTask(seed=number)
        )
        arrays, _ = update.arrays, losses.append(update.loss)
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    start = initial_arrays(spec, seed=1)
    assert all((arrays[name] == start[name]).all() for name in ("head.weight", "head.bias"))
    assert update.example_count == 20


@pytest.mark.parametrize(
    "key",
    ["objective", "pseudo_labels", "spread"],
)
def test_an_unknown_way_of_learning_is_refused(key: str) -> None:
    with pytest.raises(RequestInvalid, match=key):
        LocalSettings.from_mapping({key: "guess"})


def test_a_run_needs_rounds_with_labels_after_pre_training() -> None:
    with pytest.raises(RequestInvalid, match="pretrain_rounds"):
        RoundSettings(rounds=4, pretrain_rounds=4)
