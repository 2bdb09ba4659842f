"""Stopping advice for a campaign, from the history that its status shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.core.stopping import Advice, CycleRecord, StopRule, advise

NORMAL_QUANTILE = 1.96
"""Of a two-sided interval at 95 %."""


def stop_advice(
    history: Sequence[Mapping[str, Any]], *, floors_met: bool, least_gain_per_cost: float = 0.0
) -> Advice:
    """Advises on the next cycle; it never stops anything.

    Two measures are read, and either may advise. Live: the version that scored a cycle's pool
    beside the version before on the same candidates, and the explore labels. Held out: the version
    that a cycle trained, on the sites' held-out sets, with an interval for their size. Cycles that
    a measure says nothing about are left out of it.

    Args:
        history: cycles as in the status, oldest first.
        floors_met: whether every class has the labels that the campaign asks for.
        least_gain_per_cost: accuracy that one cost unit must bring; 0 leaves the price out.

    >>> row = {"accuracy": None, "held_out_count": 0, "labels": 50, "agreement": 0.98,
    ...        "live_accuracy": 0.9, "live_interval": [0.8, 1.0], "gain_interval": [-0.01, 0.004]}
    >>> stop_advice([row] * 3, floors_met=True).reasons
    ('2 cycles in a row cannot have gained 0.01 accuracy.',)
    """
    rule = StopRule(least_gain_per_cost=least_gain_per_cost)
    found = [
        reason
        for records in (_live(history), _held_out(history))
        for reason in advise(records, rule, floors_met=floors_met).reasons
    ]
    reasons = tuple(dict.fromkeys(found))
    return Advice(stop=bool(reasons), reasons=reasons)


def _live(history: Sequence[Mapping[str, Any]]) -> list[CycleRecord]:
    records = []
    for row in history:
        gain = row["gain_interval"]
        if row["live_accuracy"] is None and gain is None:
            continue
        low, high = row["live_interval"] or (0.0, 1.0)
        records.append(
            CycleRecord(
                accuracy=float(row["live_accuracy"] or 0.0),
                low=low,
                high=high,
                cost=int(row["labels"]),
                agreement=row["agreement"],
                gain_high=None if gain is None else float(gain[1]),
            )
        )
    return records


def _held_out(history: Sequence[Mapping[str, Any]]) -> list[CycleRecord]:
    rows = [r for r in history if r["accuracy"] is not None and r["held_out_count"]]
    records: list[CycleRecord] = []
    for place, row in enumerate(rows):
        before = rows[place - 1] if place else None
        # The labels behind an accuracy are those of its own cycle.
        cost = int(rows[place + 1]["labels"]) if place + 1 < len(rows) else 0
        margin = NORMAL_QUANTILE * math.sqrt(_variance(row))
        accuracy, gain = float(row["accuracy"]), None
        if before is not None:
            both = NORMAL_QUANTILE * math.sqrt(_variance(row) + _variance(before))
            gain = accuracy - float(before["accuracy"]) + both
        low, high = max(0.0, accuracy - margin), min(1.0, accuracy + margin)
        records.append(CycleRecord(accuracy, low, high, cost, gain_high=gain))
    return records


def _variance(row: Mapping[str, Any]) -> float:
    """Variance of an accuracy on n examples, with one imagined right and one wrong answer each."""
    count = int(row["held_out_count"])
    share = (float(row["accuracy"]) * count + 1.0) / (count + 2.0)
    return share * (1.0 - share) / count
