"""Simulations whose trainer learns from the samples that nobody has labelled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulations.config import SimulationConfig, TrainingConfig, config_of
from simulations.datasets import load_dataset
from simulations.engine import Run
from simulations.errors import ConfigInvalid
from simulations.learner import Learner, Model, make_learner
from simulations.safety import HELD_OUT, Evidence, held_out, plainly, train_safely
from simulations.world import make_world

pytestmark = pytest.mark.federation
WHOLE = {
    "unlabelled_weight": 1.0,
    "spread": "graph",
    "pool_prior": 1.0,
    "trust_power": 3.0,
    "input_noise": 0.6,
    "weight_power": 0.5,
    "rounds": 30,
}


def few_labels(training: dict[str, object]) -> SimulationConfig:
    return config_of(
        {
            "data": {"path": "builtin:digits", "kind": "image"},
            "federation": {"sites": 6, "alpha": 0.1},
            "budget": {"initial": 80},
            "training": training,
        }
    )


def trained(training: dict[str, object], seed: int = 1) -> tuple[Learner, Model, float]:
    config = few_labels(training)
    dataset = load_dataset(config.data)
    learner = make_learner(dataset, config.training, seed)
    model = Run(config, dataset, make_world(config, dataset, seed), learner).start_model()
    logits, _ = learner.predict(model.arrays, dataset.test)
    return learner, model, float((logits.argmax(axis=1) == dataset.test_classes).mean())


def test_eighty_labels_with_the_pool_beat_eighty_labels() -> None:
    gains = [trained(WHOLE, seed)[2] - trained({"rounds": 30}, seed)[2] for seed in (1, 2)]
    assert np.mean(gains) > 0.03


def test_pre_training_changes_where_a_run_begins() -> None:
    native = {"rounds": 2, "pretrain_rounds": 1, "hidden_width": 16, "embedding_width": 8}
    _, with_it, _ = trained(native)
    _, without, _ = trained({**native, "pretrain_rounds": 0})
    assert any((with_it.arrays[n] != array).any() for n, array in without.arrays.items())


def test_a_pool_that_misleads_is_left_alone() -> None:
    spoilt = {**WHOLE, "input_noise": 10.0, "cohesion_floor": -1.0, "rounds": 8}
    learner, _, _ = trained(spoilt)
    config = few_labels(spoilt)
    dataset = load_dataset(config.data)
    run = Run(config, dataset, make_world(config, dataset, 1), learner)
    labels = run.start_labels()
    sites, free = run.examples(labels), run.unlabelled(labels)
    safe, found = train_safely(learner, learner.initial(), sites, free, Evidence())
    assert found.trials == HELD_OUT
    assert found.lead < 0
    plain = plainly(learner).train(learner.initial(), sites)
    assert all((safe.arrays[name] == array).all() for name, array in plain.arrays.items())


def test_what_earlier_cycles_found_outweighs_a_trial_without_a_winner() -> None:
    same = {"unlabelled_weight": 0.0, "rounds": 2}
    learner, _, _ = trained(same)
    config = few_labels(same)
    dataset = load_dataset(config.data)
    run = Run(config, dataset, make_world(config, dataset, 1), learner)
    labels = run.start_labels()
    sites, noisy = run.examples(labels), replace(learner.config, input_noise=0.5)
    start, other = learner.initial(), replace(learner, config=noisy)
    ways = {}
    for lead in (1000.0, -1000.0):
        ways[lead], found = train_safely(other, start, sites, {}, Evidence(3, lead))
        assert found.trials == 4
        assert abs(found.lead - lead / 2) <= int((labels >= 0).sum())
    assert np.array_equal(
        ways[-1000.0].arrays["head.weight"],
        plainly(other).train(start, sites).arrays["head.weight"],
    )
    assert not np.array_equal(
        ways[1000.0].arrays["head.weight"], ways[-1000.0].arrays["head.weight"]
    )


def test_four_trials_in_a_row_judge_by_every_label_once() -> None:
    learner = make_learner(load_dataset(few_labels({}).data), TrainingConfig(), 1)
    rows = np.arange(41, dtype=np.float32)[:, None] * np.ones(64, np.float32)
    sites = {"north": learner.examples(rows, np.zeros(41, np.int64))}
    judged = [
        value
        for trial in range(HELD_OUT)
        for value in held_out(sites, 1, trial)[1]["north"].inputs["encoded"][:, 0].tolist()
    ]
    assert sorted(judged) == list(range(41))


def test_held_out_labels_are_never_learnt_in_a_trial() -> None:
    learner = make_learner(load_dataset(few_labels({}).data), TrainingConfig(), 1)
    rows = np.arange(40, dtype=np.float32)[:, None] * np.ones(64, np.float32)
    sites = {"north": learner.examples(rows, np.zeros(40, np.int64))}
    known, held = held_out(sites, 1)
    told = [set(part["north"].inputs["encoded"][:, 0].tolist()) for part in (known, held)]
    assert len(told[1]) == 40 // HELD_OUT
    assert not told[0] & told[1]
    assert len(told[0] | told[1]) == 40


@pytest.mark.parametrize("wrong", [{"spread": "far"}, {"weight_power": 2.0}, {"input_noise": -1.0}])
def test_a_wrong_setting_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigInvalid, match=next(iter(wrong))):
        few_labels(wrong)
