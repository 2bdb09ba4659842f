"""Each strategy may choose the first labels of a simulation, when no model has learned anything."""

import dataclasses

import numpy as np
import pytest

from simulations.config import ConfigInvalid, SimulationConfig, config_of
from simulations.datasets import load_dataset
from simulations.engine import CurvePoint, Run
from simulations.learner import make_learner
from simulations.report import make_report
from simulations.strategies import find_strategy, strategy_names
from simulations.summary import summarise
from simulations.sweep import Finished
from simulations.world import make_world

CONFIG = config_of(
    {
        "data": {"path": "builtin:digits", "kind": "image", "width": 32},
        "federation": {"sites": 5, "alpha": 0.3},
        "budget": {"initial": 30, "per_cycle": 20, "cycles": 1, "start": "policy"},
        "training": {"rounds": 3},
        "simulation": {"processes": 1},
    }
)


def play(config: SimulationConfig, name: str, seed: int = 0) -> list[CurvePoint]:
    dataset = load_dataset(config.data)
    world = make_world(config, dataset, seed)
    run = Run(config, dataset, world, make_learner(dataset, config.training, seed))
    return run.play(find_strategy(name), run.start_model())[0]


@pytest.mark.parametrize("name", [n for n in strategy_names() if "-no-" not in n])
def test_every_strategy_can_choose_the_first_labels(name: str) -> None:
    start, end = play(CONFIG, name)
    assert (start.cycle, start.labels, start.cost) == (0, 30, 0)
    assert (end.cycle, end.labels, end.cost) == (1, 50, 20)


@pytest.mark.parametrize("alpha", [0.3, 100.0])
def test_the_policy_finds_better_first_labels_than_chance(alpha: float) -> None:
    """Where sites hold different samples, and where all hold the same."""
    budget = dataclasses.replace(CONFIG.budget, cycles=0)
    training = dataclasses.replace(CONFIG.training, rounds=30)
    federation = dataclasses.replace(CONFIG.federation, alpha=alpha)
    chosen = dataclasses.replace(CONFIG, federation=federation, budget=budget, training=training)
    chance = dataclasses.replace(chosen, budget=dataclasses.replace(budget, start="random"))
    gains = [
        play(chosen, "perimeter", seed)[0].accuracy - play(chance, "perimeter", seed)[0].accuracy
        for seed in range(3)
    ]
    assert np.mean(gains) > 0.03


def test_the_first_labels_lie_in_cells_that_the_sites_found_one_in_each() -> None:
    dataset = load_dataset(CONFIG.data)
    world = make_world(CONFIG, dataset, 0)
    learner = make_learner(dataset, CONFIG.training, 0)
    inputs = dataset.train[world.rows]
    sites = [inputs[world.sites == site] for site in range(world.site_count)]
    first = learner.first(sites, cell_count=30)
    assert first.has_fitted_cells
    assert first.code_book.shape == (30, 32)
    run = Run(CONFIG, dataset, world, learner)
    labelled = run._chosen_start(find_strategy("perimeter")).labels >= 0
    nearness = learner.model_outputs(first, inputs).embedding @ first.code_book.T
    cells = nearness.argmax(axis=1)
    assert len(set(cells[labelled])) > 24
    assert nearness.max(axis=1)[labelled].mean() > nearness.max(axis=1).mean() + 0.1


def test_without_cells_or_samples_the_first_version_is_the_seeded_one() -> None:
    dataset = load_dataset(CONFIG.data)
    none = dataclasses.replace(CONFIG.training, cell_count=0)
    rows = dataset.train[:29]
    for training, sites in ((none, [dataset.train]), (CONFIG.training, [rows, rows])):
        learner = make_learner(dataset, training, 0)
        first = learner.first(sites, cell_count=30)
        assert not first.has_fitted_cells
        assert np.array_equal(first.code_book, learner.initial().code_book)


def test_the_report_says_who_chose_the_first_labels() -> None:
    for how, said in (("policy", "labels of their own choice"), ("random", "random labels")):
        budget = dataclasses.replace(CONFIG.budget, start=how)
        config = dataclasses.replace(CONFIG, budget=budget)
        run = Finished("random", 0, [vars(point) for point in play(config, "random")], 0.1)
        page = make_report(config, [run], summarise([run]))
        assert f"30 {said} to start" in page


def test_an_unknown_start_is_refused_by_name() -> None:
    with pytest.raises(ConfigInvalid, match=r"\[budget\] start must be one of random, policy"):
        config_of({"data": {"path": "x.npz", "kind": "image"}, "budget": {"start": "typical"}})
