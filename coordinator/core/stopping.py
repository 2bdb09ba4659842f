"""When more labels are no longer worth their price: advice, never an action."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CycleRecord:
    """What a finished cycle showed.

    Attributes:
        accuracy: estimated accuracy of the model that the cycle trained, in [0, 1].
        low: lower end of its interval.
        high: upper end of its interval.
        cost: cost units that the cycle spent.
        agreement: share of candidates whose predicted class is the one of the cycle before, or
            None when unknown.
    """

    accuracy: float
    low: float
    high: float
    cost: int
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class StopRule:
    """When to advise stopping.

    Attributes:
        least_gain_per_cost: accuracy per cost unit that is still worth its price.
        window: cycles that the gain is measured over, at least 1.
        stable_agreement: agreement from which predictions count as stable.
        stable_cycles: cycles that must be stable in a row.
        plateau_gain: accuracy that a cycle must gain not to be a plateau.
        plateau_cycles: cycles of plateau in a row.
    """

    least_gain_per_cost: float = 0.0
    window: int = 2
    stable_agreement: float = 0.99
    stable_cycles: int = 3
    plateau_gain: float = 0.01
    plateau_cycles: int = 2


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether to stop and the reasons, each a full sentence."""

    stop: bool
    reasons: tuple[str, ...]


def advise(records: Sequence[CycleRecord], rule: StopRule, *, floors_met: bool) -> Advice:
    """Advises on the next cycle from the finished ones, oldest first.

    Sources: Bloodgood and Vijay-Shanker, "A method for stopping active learning based on
    stabilizing predictions", 2009; Pullar-Strecker et al., "Hitting the target", 2022.

    >>> flat = [CycleRecord(0.9, 0.89, 0.91, 100)] * 3
    >>> advise(flat, StopRule(), floors_met=True).stop
    True
    >>> advise(flat, StopRule(), floors_met=False).stop
    False
    """
    found = [
        reason
        for reason in (
            _too_dear(records, rule),
            _stable(records, rule, floors_met=floors_met),
            _plateau(records, rule, floors_met=floors_met),
        )
        if reason
    ]
    return Advice(stop=bool(found), reasons=tuple(found))


def _too_dear(records: Sequence[CycleRecord], rule: StopRule) -> str:
    """Even the most optimistic reading of the last cycles gained less than the price."""
    if len(records) <= rule.window or rule.least_gain_per_cost <= 0:
        return ""
    last, before = records[-1], records[-1 - rule.window]
    cost = sum(record.cost for record in records[-rule.window :])
    most = last.high - before.low
    if cost <= 0 or most >= rule.least_gain_per_cost * cost:
        return ""
    return f"The last {cost} cost units gained at most {most:.3f} accuracy, below the price."


def _stable(records: Sequence[CycleRecord], rule: StopRule, *, floors_met: bool) -> str:
    """Predictions no longer change and every class has its labels."""
    recent = [record.agreement for record in records[-rule.stable_cycles :]]
    if not floors_met or len(recent) < rule.stable_cycles:
        return ""
    if any(value is None or value < rule.stable_agreement for value in recent):
        return ""
    return f"Predictions agreed for {rule.stable_cycles} cycles and all class floors are met."


def _plateau(records: Sequence[CycleRecord], rule: StopRule, *, floors_met: bool) -> str:
    """Several cycles in a row gained hardly anything."""
    if not floors_met or len(records) <= rule.plateau_cycles:
        return ""
    values = [record.accuracy for record in records[-rule.plateau_cycles - 1 :]]
    gains = [after - before for before, after in itertools.pairwise(values)]
    if max(gains) >= rule.plateau_gain:
        return ""
    return f"{rule.plateau_cycles} cycles in a row gained under {rule.plateau_gain:.2f} accuracy."
