"""Flower's simulation engine trains the same model as the fast trainer."""

from dataclasses import replace

import numpy as np
import pytest

from simulations.config import config_of
from simulations.datasets import load_dataset
from simulations.engine import Run
from simulations.learner import make_learner
from simulations.world import make_world


@pytest.mark.journey
@pytest.mark.timeout(900)
def test_flowers_engine_on_ray_gives_the_model_of_the_fast_trainer():
    config = config_of(
        {
            "data": {"path": "builtin:digits", "kind": "image", "rows": 240, "width": 16},
            "federation": {"sites": 3, "alpha": 0.5},
            "budget": {"initial": 15},
            "training": {"rounds": 2, "hidden_width": 16, "embedding_width": 8},
        }
    )
    dataset = load_dataset(config.data)
    # Rows that stand for what classes are called reach the sites on both ways.
    named = replace(dataset, named=dataset.test[:4], named_classes=dataset.test_classes[:4])
    world = make_world(config, dataset, 0)
    models = []
    for data, flower in ((named, False), (named, True), (dataset, False)):
        learner = make_learner(data, config.training, 0, flower=flower)
        models.append(Run(config, data, world, learner).start_model())
    fast, ray, unnamed = (model.arrays for model in models)
    for name, array in fast.items():
        assert np.allclose(array, ray[name], atol=1e-5), name
    assert not all(np.allclose(array, unnamed[name], atol=1e-4) for name, array in fast.items())
