"""Stopping advice for a campaign, from the history that its status shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.core.stopping import Advice, CycleRecord, StopRule, advise


def stop_advice(
    history: Sequence[Mapping[str, Any]], *, floors_met: bool, least_gain_per_cost: float = 0.0
) -> Advice:
    """Advises on the next cycle; it never stops anything.

    The sites' held-out sets say how accurate a cycle's model is, where there are any, because
    they are the steadier measure; else the explore labels do. The interval is always that of the
    explore labels. Cycles that nobody measured are left out.

    Args:
        history: cycles as in the status, oldest first.
        floors_met: whether every class has the labels that the campaign asks for.
        least_gain_per_cost: accuracy that one cost unit must bring; 0 leaves the price out.

    >>> flat = [{"accuracy": 0.9, "live_accuracy": None, "live_interval": None, "labels": 50}] * 3
    >>> stop_advice(flat, floors_met=True).reasons
    ('2 cycles in a row gained under 0.01 accuracy.',)
    """
    held_out = all(row["accuracy"] is not None for row in history)
    records = []
    for row in history:
        accuracy = row["accuracy"] if held_out else row["live_accuracy"]
        if accuracy is None:
            continue
        low, high = row["live_interval"] or (0.0, 1.0)
        records.append(CycleRecord(float(accuracy), low, high, int(row["labels"])))
    rule = StopRule(least_gain_per_cost=least_gain_per_cost)
    return advise(records, rule, floors_met=floors_met)
