"""From runs to a verdict: areas, labels saved, paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.sweep import Finished

Reals = NDArray[np.float64]
TIE_POINTS = 0.0025
"""Final macro F1 this close is a tie."""
REFERENCES = ("random", "random-site")


@dataclass(frozen=True)
class PairedTest:
    """One strategy against another on the same seeds.

    Attributes:
        shift: Hodges-Lehmann estimate of the difference.
        low: lower end of its interval (about 95 %).
        high: upper end.
        p_value: one-sided Wilcoxon signed-rank test that the first is better.
        pairs: seeds compared.
    """

    shift: float
    low: float
    high: float
    p_value: float
    pairs: int


def summarise(runs: Sequence[Finished]) -> dict[str, dict[str, Any]]:
    """The `summary` of `results.json`, by strategy.

    Wins, ties and losses count, over seeds and rivals, who ends with the higher macro F1.
    `labels_to_random_final` is the mean number of labels at which a strategy reaches random's
    final accuracy, None where it never does in at least half of the seeds.
    """
    names = list(dict.fromkeys(run.strategy for run in runs))
    by_name = {name: {r.seed: r for r in runs if r.strategy == name} for name in names}
    reference = next((name for name in REFERENCES if name in by_name), None)
    result = {}
    for name, found in by_name.items():
        ends = [run.curve[-1] for run in found.values()]
        reached = [labels_to_reach(run, by_name, reference) for run in found.values()]
        known = [value for value in reached if value is not None]
        wins, ties, losses = _record(name, by_name)
        result[name] = {
            "aulc": float(np.mean([area(run, "accuracy") for run in found.values()])),
            "aulc_macro_f1": float(np.mean([area(run, "macro_f1") for run in found.values()])),
            "final_accuracy": float(np.mean([end["accuracy"] for end in ends])),
            "final_macro_f1": float(np.mean([end["macro_f1"] for end in ends])),
            "labels_to_random_final": (
                float(np.mean(known)) if len(known) * 2 > len(reached) else None
            ),
            "wins": wins,
            "ties": ties,
            "losses": losses,
        }
    return result


def area(run: Finished, figure: str) -> float:
    """Mean of a figure over the cycles, by the trapezoid rule over labels."""
    labels = np.array([point["labels"] for point in run.curve], dtype=np.float64)
    values = np.array([point[figure] for point in run.curve], dtype=np.float64)
    if len(labels) < 2 or labels[-1] <= labels[0]:
        return float(values.mean())
    return float(np.trapezoid(values, labels) / (labels[-1] - labels[0]))


def labels_to_reach(
    run: Finished, by_name: dict[str, dict[int, Finished]], reference: str | None
) -> float | None:
    """Labels, linearly between cycles, at which a run reaches the reference's final accuracy."""
    if reference is None or run.seed not in by_name[reference]:
        return None
    target = by_name[reference][run.seed].curve[-1]["accuracy"]
    before = run.curve[0]
    if before["accuracy"] >= target:
        return float(before["labels"])
    for point in run.curve[1:]:
        if point["accuracy"] >= target:
            rise = point["accuracy"] - before["accuracy"]
            share = (target - before["accuracy"]) / rise
            return float(before["labels"] + share * (point["labels"] - before["labels"]))
        before = point
    return None


def paired_test(better: Reals, other: Reals) -> PairedTest:
    """Compares paired figures of two strategies.

    Sources: Wilcoxon, "Individual comparisons by ranking methods", 1945; Hodges and Lehmann,
    "Estimates of location based on rank tests", 1963.

    >>> found = paired_test(np.array([0.9, 0.8, 0.7]), np.array([0.8, 0.7, 0.6]))
    >>> round(found.shift, 3), found.pairs
    (0.1, 3)
    """
    gaps = better - other
    walsh = np.sort([(a + b) / 2 for i, a in enumerate(gaps) for b in gaps[i:]])
    count = len(gaps)
    middle = count * (count + 1) / 4
    spread = np.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    cut = max(0, int(np.floor(middle - 1.96 * spread)))
    return PairedTest(
        shift=float(np.median(walsh)),
        low=float(walsh[min(cut, len(walsh) - 1)]),
        high=float(walsh[max(0, len(walsh) - 1 - cut)]),
        p_value=_p_value(gaps),
        pairs=count,
    )


def _p_value(gaps: Reals) -> float:
    from scipy.stats import wilcoxon

    if not np.any(np.abs(gaps) > 1e-12):
        return 1.0
    return float(wilcoxon(gaps, alternative="greater", zero_method="zsplit").pvalue)


def _record(name: str, by_name: dict[str, dict[int, Finished]]) -> tuple[int, int, int]:
    wins = ties = losses = 0
    for rival, found in by_name.items():
        for seed in set(found) & set(by_name[name]) if rival != name else ():
            own = by_name[name][seed].curve[-1]["macro_f1"]
            gap = own - found[seed].curve[-1]["macro_f1"]
            wins += gap > TIE_POINTS
            losses += gap < -TIE_POINTS
            ties += abs(gap) <= TIE_POINTS
    return int(wins), int(ties), int(losses)
