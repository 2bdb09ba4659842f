"""From finished runs to figures: areas, labels saved, ranks, paired tests, what pooling would give.

All figures compare runs of the same cells and the same seeds only: an entrant that is not finished
everywhere is compared where it is, and the tables say over how many runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.summary import area, paired_test
from simulations.sweep import Finished

Line = dict[str, Any]
Reals = NDArray[np.float64]
Figure = Callable[[Line], float]
REFERENCE = "random"


def final(name: str) -> Figure:
    """The last point's figure."""
    return lambda line: float(line["curve"][-1][name])


def whole(name: str) -> Figure:
    """The mean of a figure over the labels of the curve."""
    return lambda line: area(Finished("", 0, line["curve"], 0.0), name)


class Results:
    """Finished runs by cell, entrant and seed.

    >>> point = {"labels": 10, "accuracy": 0.5, "macro_f1": 0.5}
    >>> line = {"cell": "c", "entrant": "random", "seed": 0, "curve": [point]}
    >>> Results([line]).mean("c", "random", final("accuracy"))
    0.5
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self._runs: dict[str, dict[str, dict[int, Line]]] = defaultdict(lambda: defaultdict(dict))
        for line in lines:
            self._runs[line["cell"]][line["entrant"]][line["seed"]] = line

    @property
    def cells(self) -> list[str]:
        """Names of cells in the order of their first run."""
        return list(self._runs)

    def entrants(self, cell: str) -> list[str]:
        """Who has finished runs on a cell."""
        return list(self._runs[cell])

    def seeds(self, cell: str, *names: str) -> list[int]:
        """Seeds that all the named entrants have finished."""
        found = [set(self._runs[cell][n]) if n in self._runs[cell] else set() for n in names]
        return sorted(set.intersection(*found)) if found else []

    def values(self, cell: str, name: str, figure: Figure, seeds: Sequence[int] = ()) -> Reals:
        """A figure of an entrant's runs, one value per seed."""
        runs = self._runs[cell].get(name, {})
        return np.array([figure(runs[s]) for s in seeds or sorted(runs)], dtype=np.float64)

    def mean(self, cell: str, name: str, figure: Figure) -> float:
        """Mean over seeds."""
        return float(self.values(cell, name, figure).mean())

    def lines(self, cell: str, name: str) -> list[Line]:
        """Finished runs of an entrant on a cell, by seed."""
        runs = self._runs[cell].get(name, {})
        return [runs[s] for s in sorted(runs)]


def label_ratio(results: Results, cell: str, name: str) -> float | None:
    """Labels for random's last accuracy over random's labels, on curves averaged over seeds.

    An entrant that does not get there needs more than random: then it is the inverse of the ratio
    that random needs for the entrant's last accuracy.
    """
    seeds = results.seeds(cell, name, REFERENCE)
    if not seeds:
        return None
    own, other = (_mean_curve(results.lines(cell, n), seeds) for n in (name, REFERENCE))
    reached = _reached(*own, other[1][-1])
    if reached is not None:
        return reached / float(other[0][-1])
    back = _reached(*other, own[1][-1])
    return None if back is None else float(own[0][-1]) / back


def ranks(
    results: Results, names: Sequence[str], figure: Figure, cells: Sequence[str]
) -> dict[str, float]:
    """Mean rank of each entrant over all cells and seeds that all of them finished; 1 is best."""
    from scipy.stats import rankdata

    rows = []
    for cell in cells:
        for seed in results.seeds(cell, *names):
            values = [results.values(cell, n, figure, [seed])[0] for n in names]
            rows.append(rankdata([-round(v, 6) for v in values]))
    if not rows:
        return {}
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def duel(
    results: Results, cells: Sequence[str], name: str, rivals: Sequence[str]
) -> dict[str, Any] | None:
    """Paired comparison of final macro F1 with the rival that has the highest mean.

    Args:
        results: finished runs.
        cells: whose runs are pooled into one test.
        name: whose gain is tested.
        rivals: candidates for the best rival; the choice is made after the fact, against us.
    """
    figure = final("macro_f1")
    best: tuple[float, str, Reals, Reals] | None = None
    for rival in rivals:
        pairs = [(c, results.seeds(c, name, rival)) for c in cells]
        pairs = [(c, seeds) for c, seeds in pairs if seeds]
        if not pairs:
            continue
        own = np.concatenate([results.values(c, name, figure, s) for c, s in pairs])
        other = np.concatenate([results.values(c, rival, figure, s) for c, s in pairs])
        # All rivals meet the same runs of ours only when they finished the same runs.
        if best is None or float((own - other).mean()) < best[0]:
            best = (float((own - other).mean()), rival, own, other)
    if best is None:
        return None
    gain, rival, own, other = best
    return {"rival": rival, "gain": gain, **asdict(paired_test(own, other))}


def pooled_ratio(results: Results, cell: str, name: str) -> float | None:
    """Federated accuracy over the accuracy of training on the same labels in one place."""
    lines = [line for line in results.lines(cell, name) if "pooled_accuracy" in line]
    if not lines:
        return None
    federated = np.mean([line["curve"][-1]["accuracy"] for line in lines])
    return float(federated / np.mean([line["pooled_accuracy"] for line in lines]))


def stopping(results: Results, cell: str, name: str) -> dict[str, float] | None:
    """What the advice to stop would have saved and cost, as means over the runs."""
    lines = results.lines(cell, name)
    if not lines:
        return None
    spent, lost, stopped = [], [], 0
    for line in lines:
        curve = line["curve"]
        # Advice before cycle k means that the model of cycle k - 1 is the last one.
        early = 0 < line["stopped_at"] < len(curve)
        stopped += early
        end = curve[line["stopped_at"] - 1] if early else curve[-1]
        spent.append(end["labels"] / curve[-1]["labels"])
        lost.append(curve[-1]["accuracy"] - end["accuracy"])
    return {
        "stopped_ratio": stopped / len(lines),
        "labels_ratio": float(np.mean(spent)),
        "accuracy_lost": float(np.mean(lost)),
    }


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are known.

    >>> geometric_mean([0.25, 1.0, None])
    0.5
    """
    known = [value for value in values if value is not None]
    return float(np.exp(np.mean(np.log(known)))) if known else None


def _mean_curve(lines: list[Line], seeds: Sequence[int]) -> tuple[Reals, Reals]:
    kept = [line["curve"] for line in lines if line["seed"] in seeds]
    labels = np.array([[point["labels"] for point in curve] for curve in kept])
    accuracy = np.array([[point["accuracy"] for point in curve] for curve in kept])
    return labels.mean(axis=0), accuracy.mean(axis=0)


def _reached(labels: Reals, accuracy: Reals, target: float) -> float | None:
    """Labels at which a curve first reaches the target, linearly between its points."""
    place = np.flatnonzero(accuracy >= target)
    if not len(place):
        return None
    last = int(place[0])
    if last == 0:
        return float(labels[0])
    share = (target - accuracy[last - 1]) / (accuracy[last] - accuracy[last - 1])
    return float(labels[last - 1] + share * (labels[last] - labels[last - 1]))
