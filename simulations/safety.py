"""Learning from unlabelled samples, unless plain training does better on labels held out.

A deployed run compares the two on the sites' test examples. A simulation's sites have none, so a
part of their labels is held out, both ways are tried in fewer rounds on the rest, and the winner
trains on all labels. A quarter of a few labels is a poor judge, so the first cycle holds out every
label once, in parts, each later cycle one part more, and what earlier cycles found counts as well,
the older the less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from federation.dataset import Examples
from simulations.learner import Learner, Model

HELD_OUT = 4
"""One label in so many is held out."""
TRIAL_SHARE = 0.5
"""Rounds of a trial, as a share of the whole."""
REMEMBERED = 0.5
"""What is left of the evidence of earlier trials, in each further one."""
Split = tuple[dict[str, Examples], dict[str, Examples]]


@dataclass(frozen=True)
class Evidence:
    """What trials have found so far.

    Attributes:
        trials: how many parts were held out.
        lead: held-out labels that learning from unlabelled samples got right beyond those that
            plain training did, weighted by age.
    """

    trials: int = 0
    lead: float = 0.0


def train_safely(
    learner: Learner,
    start: Model,
    sites: dict[str, Examples],
    free: dict[str, Examples],
    before: Evidence,
) -> tuple[Model, Evidence]:
    """Trains with unlabelled samples where held-out labels do not speak against it.

    Returns:
        The model, and the evidence with this trial's.
    """
    plain = plainly(learner)
    trials = range(before.trials, before.trials + (1 if before.trials else HELD_OUT))
    lead = REMEMBERED * before.lead
    for trial in trials:
        split = held_out(sites, learner.seed, trial)
        lead += _right_after(learner, start, split, free) - _right_after(plain, start, split, {})
    found = Evidence(trials.stop, lead)
    if lead < 0:
        return plain.train(start, sites), found
    return learner.train(start, sites, free), found


def _right_after(learner: Learner, start: Model, split: Split, free: dict[str, Examples]) -> int:
    """How many held-out labels a way of training gets right after its fewer rounds."""
    rounds = max(1, round(learner.config.rounds * TRIAL_SHARE))
    trial = replace(learner, config=replace(learner.config, rounds=rounds))
    return _right(trial, trial.train(start, split[0], free), split[1])


def plainly(learner: Learner) -> Learner:
    """The same learner without what unlabelled samples bring."""
    off = replace(learner.config, unlabelled_weight=0.0, input_noise=0.0, weight_power=1.0)
    return replace(learner, config=off)


def held_out(sites: dict[str, Examples], seed: int, trial: int = 0) -> Split:
    """Labels to learn from and labels to judge by; a site's every `HELD_OUT`-th at random.

    While a site's labels stay the same, so many trials in a row hold out each of them once.
    """
    known, held = {}, {}
    for number, name in enumerate(sorted(sites)):
        order = np.random.default_rng([seed, 6, number]).permutation(len(sites[name]))
        judges = order % HELD_OUT == (HELD_OUT - 1 + trial) % HELD_OUT
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
