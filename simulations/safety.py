"""Learning from unlabelled samples, unless plain training does better on labels held out.

A deployed run compares the two on the sites' test examples. A simulation's sites have none, so a
part of their labels is held out, both ways are tried in fewer rounds on the rest, and the winner
trains on all labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from federation.dataset import Examples
from simulations.learner import Learner, Model

HELD_OUT = 4
"""One label in so many is held out."""
TRIAL_SHARE = 0.5
"""Rounds of a trial, as a share of the whole."""
Split = tuple[dict[str, Examples], dict[str, Examples]]


def train_safely(
    learner: Learner, start: Model, sites: dict[str, Examples], free: dict[str, Examples]
) -> Model:
    """Trains with unlabelled samples where held-out labels do not speak against it."""
    plain = plainly(learner)
    known, held = held_out(sites, learner.seed)
    right = []
    for way, pool in ((learner, free), (plain, {})):
        rounds = max(1, round(way.config.rounds * TRIAL_SHARE))
        trial = replace(way, config=replace(way.config, rounds=rounds))
        right.append(_right(trial, trial.train(start, known, pool), held))
    if right[1] > right[0]:
        return plain.train(start, sites)
    return learner.train(start, sites, free)


def plainly(learner: Learner) -> Learner:
    """The same learner without what unlabelled samples bring."""
    off = replace(learner.config, unlabelled_weight=0.0, input_noise=0.0, weight_power=1.0)
    return replace(learner, config=off)


def held_out(sites: dict[str, Examples], seed: int) -> Split:
    """Labels to learn from and labels to judge by; a site's every `HELD_OUT`-th at random."""
    known, held = {}, {}
    for number, name in enumerate(sorted(sites)):
        order = np.random.default_rng([seed, 6, number]).permutation(len(sites[name]))
        judges = order % HELD_OUT == HELD_OUT - 1
        held[name], known[name] = (_part(sites[name], rows) for rows in (judges, ~judges))
    return known, held


def _part(examples: Examples, rows: NDArray[np.bool_]) -> Examples:
    inputs = {name: array[rows] for name, array in examples.inputs.items()}
    return Examples(inputs, examples.classes[rows], examples.calibration[rows])


def _right(learner: Learner, model: Model, held: dict[str, Examples]) -> int:
    """How many held-out labels a model gets right, over all sites."""
    count = 0
    for examples in held.values():
        if len(examples):
            logits, _ = learner.trainer(learner.empty()).predict(model.arrays, examples)
            count += int((logits.argmax(axis=1) == examples.classes).sum())
    return count
