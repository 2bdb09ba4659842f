"""The plan: how many labels, which policy, what it costs, when to stop; on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.layer_defaults import LAYER_WIDTH
from simulations.config import SimulationConfig
from simulations.summary import TIE_POINTS, area
from simulations.sweep import Finished

Reals = NDArray[np.float64]
PLATEAU_POINTS = 0.01
OWN = "perimeter"
"""The policy that a campaign has when nobody sets another."""


@dataclass(frozen=True)
class Plan:
    """Advice for a rollout.

    Attributes:
        strategy: the policy to use.
        labels: labels to plan for.
        accuracy: expected accuracy at that point.
        low: lowest accuracy over the seeds at that point.
        expert_hours: hours of deciding.
        money: their price.
        reference_labels: labels that random choice needs for the same accuracy, None beyond its
            curve.
        stop: when to stop, a sentence.
        because: why this policy, a few words.
        cost_units: what the labels cost, the start apart.
        busiest: the site that gives most labels, and how many.
        untried: what may save more labels and was not simulated, a sentence, or "".
    """

    strategy: str
    labels: int
    accuracy: float
    low: float
    expert_hours: float
    money: float
    reference_labels: int | None
    stop: str
    because: str
    cost_units: int
    busiest: tuple[int, int]
    untried: str = ""


def make_plan(config: SimulationConfig, runs: Sequence[Finished], target: float | None) -> Plan:
    """Plans a rollout from simulated runs.

    Args:
        config: gives the experts' speed and price.
        runs: finished runs.
        target: accuracy to reach; None plans up to the plateau.
    """
    names = list(dict.fromkeys(run.strategy for run in runs))
    best, because = _policy(runs, names)
    labels, accuracy, low = _mean_curve(runs, best)
    place = _enough(accuracy, target)
    random = next((n for n in ("random", "random-site") if n in names), None)
    hours = labels[place] * config.expert.seconds / 3600
    return Plan(
        strategy=best,
        labels=round(float(labels[place])),
        accuracy=float(accuracy[place]),
        low=float(low[place]),
        expert_hours=float(hours),
        money=float(hours * config.expert.hourly_price),
        reference_labels=_reference(runs, random, float(accuracy[place])),
        stop=_stop_sentence(accuracy, labels, place, target),
        because=because,
        cost_units=round(float(_mean_at(runs, best, place, "cost"))),
        busiest=_busiest(runs, best, place),
        untried=_untried(config),
    )


def plan_text(plan: Plan) -> str:
    """The plan as lines for a terminal."""
    random = (
        f"{plan.reference_labels} labels by random choice"
        if plan.reference_labels is not None
        else "random choice does not get there within the simulated budget"
    )
    untried = [f"Not tried         {plan.untried}"] if plan.untried else []
    return "\n".join(
        [
            f"Policy            {plan.strategy} ({plan.because})",
            f"Labels            {plan.labels}, the start included; {plan.cost_units} cost units",
            f"Expected accuracy {plan.accuracy:.3f} (worst seed {plan.low:.3f})",
            f"Same by random    {random}",
            f"Expert time       {plan.expert_hours:.1f} hours, {plan.money:.0f} in money; "
            f"busiest is site {plan.busiest[0]} with {plan.busiest[1]} labels",
            f"When to stop      {plan.stop}",
            *untried,
        ]
    )


def _untried(config: SimulationConfig) -> str:
    """Names the layer that learns without labels where a campaign could have it."""
    if config.data.features == "learned" or config.data.kind not in LAYER_WIDTH:
        return ""
    return 'features = "learned" in [data], which halved the labels again on public data'


def _policy(runs: Sequence[Finished], names: Sequence[str]) -> tuple[str, str]:
    """The policy to use and why: the product's own unless another one is clearly better.

    Clearly: by more than a tie in the mean area under macro F1, and ahead in every seed.
    """
    areas = {n: {r.seed: area(r, "macro_f1") for r in runs if r.strategy == n} for n in names}
    best = max(names, key=lambda name: _mean_area(runs, name))
    if best == OWN or OWN not in areas:
        return best, "largest area under macro F1"
    gaps = [areas[best][seed] - areas[OWN][seed] for seed in areas[OWN]]
    mean = sum(gaps) / len(gaps)
    if mean > TIE_POINTS and min(gaps) > 0:
        return best, f"{mean * 100:.1f} points of area ahead of {OWN} in every seed"
    return OWN, f"the default; {best} is {mean * 100:.1f} points ahead, within chance"


def _mean_at(runs: Sequence[Finished], name: str, place: int, figure: str) -> Reals:
    """Mean over the seeds of a figure of one cycle."""
    found = [run.curve[place][figure] for run in runs if run.strategy == name]
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def _busiest(runs: Sequence[Finished], name: str, place: int) -> tuple[int, int]:
    labels = _mean_at(runs, name, place, "site_labels")
    site = int(labels.argmax())
    return site, round(float(labels[site]))


def _mean_area(runs: Sequence[Finished], name: str) -> float:
    return float(np.mean([area(run, "macro_f1") for run in runs if run.strategy == name]))


def _mean_curve(runs: Sequence[Finished], name: str) -> tuple[Reals, Reals, Reals]:
    found = [run for run in runs if run.strategy == name]
    labels = np.array([[p["labels"] for p in run.curve] for run in found], dtype=np.float64)
    accuracy = np.array([[p["accuracy"] for p in run.curve] for run in found], dtype=np.float64)
    return labels.mean(axis=0), accuracy.mean(axis=0), accuracy.min(axis=0)


def _enough(accuracy: Reals, target: float | None) -> int:
    if target is not None:
        reached = np.flatnonzero(accuracy >= target)
        return int(reached[0]) if len(reached) else len(accuracy) - 1
    for place in range(len(accuracy) - 1):
        if accuracy[place + 1 :].max() - accuracy[place] < PLATEAU_POINTS:
            return place
    return len(accuracy) - 1


def _reference(runs: Sequence[Finished], random: str | None, target: float) -> int | None:
    if random is None:
        return None
    labels, accuracy, _ = _mean_curve(runs, random)
    reached = np.flatnonzero(accuracy >= target)
    return round(float(labels[reached[0]])) if len(reached) else None


def _stop_sentence(
    accuracy: Reals,
    labels: Reals,
    place: int,
    target: float | None,
) -> str:
    if target is not None and accuracy[place] < target:
        return f"the target {target:.3f} is not reached with {labels[-1]:.0f} labels; plan for more"
    if place == len(accuracy) - 1:
        return "the curve still rises at the end; simulate a larger budget before stopping"
    return f"after cycle {place}; later cycles gain less than {PLATEAU_POINTS:.2f} accuracy"
