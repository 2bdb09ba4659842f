"""What a campaign's progress asks of the policy: its phase, and how much it must balance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.policy import Phase, Policy
from coordinator.core.allocation.pool import Progress

_NOTHING_KNOWN = dict.fromkeys(
    ("pairs", "chance", "novelty", "classes", "floors", "explore"), False
)
COLD_CELL_POWER = 1.0
"""Gains of a cell fade fast in a cold phase: what sites hold alike, each of them offers first."""
FULL_SKEW = 0.2
"""Class skew from which the policy balances with all its weight."""


def phase_of(progress: Progress, policy: Policy) -> Phase:
    """Phase by what taught the model and by measured calibration.

    The doubt of a model that no label taught is noise, and samples that stand for many others
    teach more (Hacohen et al., 2022, "opposite strategies suit high and low budgets"). Labels that
    it has not been trained on yet change nothing in that. Without phases it is always hot.

    >>> none = Progress(class_labels=np.zeros(3, np.int64), site_labels=np.zeros(1, np.int64))
    >>> phase_of(none, Policy()).value, phase_of(replace(none, model_trained=True), Policy()).value
    ('cold', 'warm')
    """
    if not policy.switches.phases:
        return Phase.HOT
    trained = progress.model_trained
    if not (trained if trained is not None else progress.site_labels.any()):
        return Phase.COLD
    error = progress.calibration_error
    if error is None or error > policy.hot_calibration_error:
        return Phase.WARM
    return Phase.HOT


def adapted(policy: Policy, progress: Progress) -> Policy:
    """The policy as far as the campaign's progress lets its parts say anything.

    Novelty, cells, confusions and class balance look for what the model may never have met, or
    seldom. That pays where classes are rare, and costs labels where all of them are known: then
    doubt alone, and chance in it, says what to ask next. So they are as strong as the labels are
    uneven over the classes, and chance as strong as they are even. In a cold phase predicted
    classes are random and there is no accuracy to estimate, so all that builds on them is left out.
    What a sample stands for is no doubt, and chance has no place in it. Cells are drawn at random
    then, but by one code book for all sites: alike samples share one, and sites that hold alike
    samples do not all buy the same.
    """
    if phase_of(progress, policy) is Phase.COLD:
        switches = replace(policy.switches, **_NOTHING_KNOWN)
        return replace(policy, switches=switches, cell_weight=1.0, cell_power=COLD_CELL_POWER)
    if not policy.switches.adapt:
        return policy
    strength = min(1.0, class_skew(progress.class_labels) / FULL_SKEW)
    return replace(
        policy,
        novelty_weight=policy.novelty_weight * strength,
        cell_weight=policy.cell_weight * strength,
        pair_weight=policy.pair_weight * strength,
        coldness=policy.coldness / (1.0 - strength) if strength < 1.0 else math.inf,
        class_weight=policy.class_weight * strength,
    )


def class_skew(class_labels: NDArray[np.int64]) -> float:
    """How uneven labels are: 0 for equal counts, towards 1 when one class has them all.

    One less the effective number of classes (exponential of the entropy; Hill, "Diversity and
    evenness", 1973) as a share of all classes. Few labels look uneven by chance alone, which the
    entropy's correction takes back (Miller, "Note on the bias of information estimates", 1955).
    Without labels it is 1.

    >>> class_skew(np.array([5, 5])), class_skew(np.array([9, 0])), class_skew(np.array([0, 0]))
    (0.0, 0.5, 1.0)
    >>> class_skew(np.array([6, 5, 4])), round(class_skew(np.array([600, 500, 400])), 3)
    (0.0, 0.013)
    """
    known = class_labels[class_labels > 0].astype(np.float64)
    if not len(known):
        return 1.0
    shares = known / known.sum()
    entropy = -(shares * np.log(shares)).sum() + (len(known) - 1) / (2.0 * known.sum())
    return float(max(0.0, 1.0 - np.exp(entropy) / len(class_labels)))
