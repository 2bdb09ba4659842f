"""When more labels are no longer worth their price, as far as the data can tell.

A reason is given only where the whole interval of the gain supports it: few labels leave the
interval wide, and then nothing is advised. That costs labels on sets that are solved and saves
accuracy on those that are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CycleRecord:
    """What a finished cycle showed.

    Attributes:
        accuracy: estimated accuracy of the cycle's model, in [0, 1].
        low: lower end of its interval.
        high: upper end of its interval.
        cost: cost units that the cycle spent.
        agreement: Cohen's kappa of the model's predictions with those of the model before, on the
            same candidates, or None when unknown.
        gain_high: upper end of the interval of what the model gained on the one before, in points
            of accuracy as a ratio, or None when unknown.
    """

    accuracy: float
    low: float
    high: float
    cost: int
    agreement: float | None = None
    gain_high: float | None = None


@dataclass(frozen=True, slots=True)
class StopRule:
    """When to advise stopping.

    Attributes:
        least_gain_per_cost: accuracy per cost unit that is still worth its price.
        window: cycles that the gain is measured over, at least 1.
        stable_agreement: agreement from which predictions count as stable.
        stable_cycles: cycles that must be stable in a row.
        plateau_gain: accuracy that a cycle must be able to have gained not to be a plateau.
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

    >>> flat = [CycleRecord(0.9, 0.85, 0.95, 100, gain_high=0.004)] * 3
    >>> advise(flat, StopRule(), floors_met=True).stop
    True
    >>> advise(flat, StopRule(), floors_met=False).stop
    False
    >>> unsure = [CycleRecord(0.9, 0.85, 0.95, 100, gain_high=0.02)] * 3
    >>> advise(unsure, StopRule(), floors_met=True).stop
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
    recent = records[-rule.window :]
    # What a cycle spends shows in the model of the next one.
    cost = sum(record.cost for record in records[-1 - rule.window : -1])
    most = recent[-1].high - records[-1 - rule.window].low
    steps = [record.gain_high for record in recent if record.gain_high is not None]
    if len(steps) == rule.window:
        most = min(most, sum(steps))
    if cost <= 0 or most >= rule.least_gain_per_cost * cost:
        return ""
    return f"{cost} cost units gained at most {max(most, 0.0):.3f} accuracy, below the price."


def _stable(records: Sequence[CycleRecord], rule: StopRule, *, floors_met: bool) -> str:
    """Predictions no longer change and every class has its labels."""
    recent = [record.agreement for record in records[-rule.stable_cycles :]]
    if not floors_met or len(recent) < rule.stable_cycles:
        return ""
    if any(value is None or value < rule.stable_agreement for value in recent):
        return ""
    return f"Predictions agreed for {rule.stable_cycles} cycles and all class floors are met."


def _plateau(records: Sequence[CycleRecord], rule: StopRule, *, floors_met: bool) -> str:
    """Several cycles in a row cannot have gained more than hardly anything."""
    recent = [record.gain_high for record in records[-rule.plateau_cycles :]]
    if not floors_met or len(recent) < rule.plateau_cycles:
        return ""
    if any(value is None or value >= rule.plateau_gain for value in recent):
        return ""
    cycles, gain = rule.plateau_cycles, rule.plateau_gain
    return f"{cycles} cycles in a row cannot have gained {gain:.2f} accuracy."
