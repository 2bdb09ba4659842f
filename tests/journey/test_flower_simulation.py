"""Flower's simulation engine trains the same model as the fast trainer."""

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
    world = make_world(config, dataset, 0)
    models = []
    for flower in (False, True):
        learner = make_learner(dataset, config.training, 0, flower=flower)
        models.append(Run(config, dataset, world, learner).start_model())
    for name, array in models[0].arrays.items():
        assert np.allclose(array, models[1].arrays[name], atol=1e-5), name
