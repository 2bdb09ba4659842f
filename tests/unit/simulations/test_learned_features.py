"""Simulations whose sites first learn features from samples that nobody has labelled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coordinator.core.layer_defaults import HEAD, LAYER_WIDTH, completed
from federation.dataset import VIEWS
from federation.requests import TrainingSettings
from federation.views import moved
from simulations.config import SimulationConfig, TrainingConfig, config_of
from simulations.datasets import Dataset, load_dataset
from simulations.engine import Run
from simulations.errors import ConfigInvalid
from simulations.learned_features import learn_features
from simulations.learner import make_learner
from simulations.production import aggregation_settings, local_settings
from simulations.strategies import find_strategy
from simulations.world import World, make_world

pytestmark = pytest.mark.federation
CONFIG = config_of(
    {
        "data": {"path": "builtin:digits", "kind": "image", "features": "learned", "width": 48},
        "federation": {"sites": 6, "alpha": 0.1},
        "budget": {"initial": 60, "per_cycle": 20, "cycles": 1},
        "training": {"rounds": 30},
        "simulation": {"processes": 1},
    }
)


def learned(config: SimulationConfig, seed: int) -> Dataset:
    dataset = load_dataset(config.data)
    return learn_features(config, dataset, make_world(config, dataset, seed), seed)


def accuracy(features: str, seed: int) -> float:
    config = replace(CONFIG, data=replace(CONFIG.data, features=features))
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, seed)
    dataset = learn_features(config, dataset, world, seed)
    learner = make_learner(dataset, config.training, seed)
    model = Run(config, dataset, world, learner).start_model()
    assert model is not None
    logits, _ = learner.predict(model.arrays, dataset.test)
    return float((logits.argmax(axis=1) == dataset.test_classes).mean())


def test_sixty_labels_on_learned_features_beat_sixty_on_principal_components() -> None:
    gains = [accuracy("learned", seed) - accuracy("frozen", seed) for seed in (1, 2)]
    assert np.mean(gains) > 0.02


def test_a_seed_gives_the_same_features_again_and_another_seed_others() -> None:
    first, again, other = (learned(CONFIG, seed) for seed in (1, 1, 2))
    assert first.family == "encoder"
    assert first.train.shape[1] == first.input_width == 48
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


def test_no_class_and_no_test_sample_shapes_the_features() -> None:
    dataset = load_dataset(CONFIG.data)
    world = make_world(CONFIG, dataset, 1)
    blind = replace(
        dataset, train_classes=np.zeros_like(dataset.train_classes), test=dataset.test * 0 + 1
    )
    seen, unseen = (learn_features(CONFIG, found, world, 1) for found in (dataset, blind))
    assert np.array_equal(seen.train, unseen.train)


def test_first_labels_stand_for_the_pool_on_features_that_were_fitted_before() -> None:
    config = replace(CONFIG, budget=replace(CONFIG.budget, start="policy", cycles=0))
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, 1)
    dataset = learn_features(config, dataset, world, 1)
    run = Run(config, dataset, world, make_learner(dataset, config.training, 1))
    chosen = run._chosen_start(find_strategy("perimeter")).labels >= 0
    by_chance = run.start_labels() >= 0
    pool = dataset.train[world.rows]

    def distance(labelled: NDArray[np.bool_]) -> float:
        gaps = np.linalg.norm(pool[:, None] - pool[labelled][None], axis=2)
        return float(gaps.min(axis=1).mean())

    assert chosen.sum() == by_chance.sum()
    assert distance(chosen) < 0.97 * distance(by_chance)


def test_records_and_sites_without_enough_samples_are_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigInvalid, match=r"\[data\] features must be one of frozen, native"):
        config_of({"data": {"path": "x.csv", "kind": "record", "features": "learned"}})
    tiny = replace(CONFIG, data=replace(CONFIG.data, rows=100), budget=replace(CONFIG.budget))
    with pytest.raises(ConfigInvalid, match="use 'frozen'"):
        learned(tiny, 1)
    wide = replace(CONFIG, data=replace(CONFIG.data, width=4000))
    with pytest.raises(ConfigInvalid, match="width"):
        learned(wide, 1)


def test_a_simulation_moves_images_as_a_sites_trainer_does() -> None:
    config = replace(CONFIG, training=replace(CONFIG.training, input_views=3))
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, 1)
    found = learn_features(config, dataset, world, 1)
    assert found.views is not None
    assert found.views.shape == (len(dataset.train), 3, 48)
    x = torch.from_numpy(dataset.train)
    again = replace(dataset, train=moved(x, 2).numpy())
    assert np.array_equal(found.views[:, 2], learn_features_of(again, world))

    run = Run(config, found, world, make_learner(found, config.training, 1))
    labels = run.start_labels()
    for site, examples in enumerate(run.examples(labels).values()):
        rows = world.rows[(world.sites == site) & (labels >= 0)]
        assert np.array_equal(examples.inputs[VIEWS], found.views[rows])


def learn_features_of(dataset: Dataset, world: World) -> NDArray[np.float32]:
    """Features of other rows on the layer that the world's own rows fit."""
    own = load_dataset(CONFIG.data)
    both = replace(own, test=dataset.train, test_classes=dataset.train_classes)
    return np.asarray(learn_features(CONFIG, both, world, 1).test)


@pytest.mark.parametrize(
    "data", [{"features": "frozen"}, {"features": "native"}, {"kind": "series"}, {"kind": "text"}]
)
def test_copies_of_what_cannot_be_moved_are_refused(data: dict[str, str]) -> None:
    values = {"path": "builtin:digits", "kind": "image", "features": "learned", **data}
    with pytest.raises(ConfigInvalid, match="input_views must be 0 unless"):
        config_of({"data": values, "training": {"input_views": 4}})


def test_moved_copies_train_another_model() -> None:
    config = replace(CONFIG, training=replace(CONFIG.training, input_views=3, rounds=2))
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, 1)
    found = learn_features(config, dataset, world, 1)
    models = [
        Run(config, data, world, make_learner(data, config.training, 1)).start_model()
        for data in (found, replace(found, views=None))
    ]
    assert models[0] is not None
    assert models[1] is not None
    assert any((models[0].arrays[n] != a).any() for n, a in models[1].arrays.items())


@pytest.mark.parametrize("kind", ["text", "image", "series"])
def test_a_simulation_on_learned_features_trains_as_a_campaign_does(kind: str) -> None:
    made = config_of({"data": {"path": "x.npz", "kind": kind, "features": "learned"}})
    width = LAYER_WIDTH[kind]
    request = {"unsupervised_width": width}
    _, network, training = completed(kind, {}, request, {})
    expected = TrainingSettings.from_mapping(training, kind)
    assert made.data.width == width
    assert local_settings(made.training) == expected.local
    assert aggregation_settings(made.training) == expected.aggregation
    assert made.training.rounds == expected.rounds.rounds == 80
    assert network == {**request, **HEAD.get(kind, {})}
    assert made.training.label_names == expected.rounds.label_names == (kind == "text")
    assert made.training.linear_skip == (kind == "text")
    assert made.training.ensemble_size == (1 if kind == "text" else 8)
    assert made.training.hidden_width == network.get("hidden_width", 128)
    assert made.training.embedding_width == network.get("embedding_width", 64)


def test_what_a_simulation_names_stays_and_frozen_features_train_as_before() -> None:
    learned_one = {"path": "x.npz", "kind": "image", "features": "learned"}
    named = config_of({"data": {**learned_one, "width": 48}, "training": {"input_noise": 0.1}})
    assert (named.data.width, named.training.input_noise, named.training.rounds) == (48, 0.1, 80)
    frozen = config_of({"data": {"path": "x.npz", "kind": "image"}})
    assert frozen.training == TrainingConfig()


@pytest.mark.parametrize("sites", [1, 3])
def test_a_few_sites_with_many_labels_each_learn_as_well_as_many_with_few(sites: int) -> None:
    """Without a bound on their steps the server's momentum throws such a run off."""
    data = {"path": "builtin:digits", "kind": "image", "features": "learned", "width": 64}
    config = config_of(
        {
            "data": data,
            "federation": {"sites": sites, "alpha": 100.0},
            "budget": {"initial": 700, "per_cycle": 20, "cycles": 1},
            "training": {"input_views": 0},
            "simulation": {"processes": 1},
        }
    )
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, 1)
    dataset = learn_features(config, dataset, world, 1)
    learner = make_learner(dataset, config.training, 1)
    model = Run(config, dataset, world, learner).start_model()
    assert model is not None
    logits, _ = learner.predict(model.arrays, dataset.test)
    assert (logits.argmax(axis=1) == dataset.test_classes).mean() > 0.96


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"training": {"ensemble_size": 0}}, "ensemble_size must be 1 to 16"),
        ({"training": {"ensemble_size": 17}}, "ensemble_size must be 1 to 16"),
        ({"training": {"ensemble_size": 2, "plain_head": True}}, "or with plain_head"),
        ({"training": {"ensemble_size": 2}, "data": {"features": "native"}}, "features is native"),
        ({"training": {"ensemble_size": 2, "pretrain_rounds": 3}}, "0 with ensemble_size above 1"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(sections, words):
    values = {"path": "builtin:digits", "kind": "image", **sections.get("data", {})}
    with pytest.raises(ConfigInvalid, match=words):
        config_of({"data": values, "training": sections["training"]})


def test_an_ensemble_is_scored_and_measured_as_one_model():
    dataset = load_dataset(CONFIG.data)
    models = {}
    for size in (1, 3):
        training = replace(CONFIG.training, ensemble_size=size, rounds=2)
        config = replace(CONFIG, training=training)
        world = make_world(config, dataset, 1)
        found = learn_features(config, dataset, world, 1)
        learner = make_learner(found, training, 1)
        models[size] = Run(config, found, world, learner).start_model()
    one, three = models[1], models[3]
    assert one is not None
    assert three is not None
    assert len(three.arrays) == 3 * len(one.arrays)
    assert three.prototypes.shape == one.prototypes.shape
