"""A strategy with a notebook: what each selection saw, for the figures that need more than a curve.

watched = Watched(find_strategy("perimeter"), world.answers)
run.play(watched, start)
watched.labels, watched.stopped_at
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.result import ExploreFrame
from coordinator.core.estimation import ExploreLabels, report_accuracy
from coordinator.core.stability import ChangedLabels, compare_predictions, gain_interval
from coordinator.core.stopping import CycleRecord, StopRule, advise
from simulations.engine import Strategy
from simulations.perimeter_strategy import select_perimeter
from simulations.ranking import equal_quota
from simulations.view import Selection, SelectionView


class Watched:
    """Plays a strategy and notes the labels and the advice on stopping.

    Args:
        strategy: to be played.
        answers: int64[n], what the experts say, -1 for "can't tell".

    Attributes:
        labels: int64[n], labels after the last selection.
        stopped_at: first cycle before which the production rule advises to stop, 0 for never.
    """

    def __init__(self, strategy: Strategy, answers: NDArray[np.int64]) -> None:
        self._strategy = strategy
        self._answers = answers
        self._records: list[CycleRecord] = []
        self._predicted: NDArray[np.int64] | None = None
        self.labels: NDArray[np.int64] = np.full(len(answers), -1, dtype=np.int64)
        self.stopped_at = 0

    def __call__(self, view: SelectionView, rng: np.random.Generator) -> Selection:
        """Selects as the strategy does."""
        selection = self._strategy(view, rng)
        self.labels = view.labels.copy()
        self.labels[selection.places] = self._answers[selection.places]
        self._note(view, selection)
        return selection

    def _note(self, view: SelectionView, selection: Selection) -> None:
        """One record per trained model: what it changed, and what the explore labels say of it."""
        if not view.cycle:
            return
        predicted = view.probabilities.argmax(axis=1)
        before, self._predicted = self._predicted, predicted
        drawn = selection.explore_probabilities > 0
        if not drawn.any():
            return
        agreement = gain_high = None
        if before is not None:
            stability = compare_predictions(
                before[view.open], predicted[view.open], class_count=view.class_count
            )
            agreement, share = stability.agreement, stability.changed_ratio
            self._judge(CycleRecord(0.0, 0.0, 1.0, 0, agreement, share), view.cycle)
            labels = _changed(selection, (before, predicted), self._answers)
            gain_high = gain_interval(stability, labels)[1]
        found = report_accuracy(
            _frame(view, selection), _judged(view, selection, self._answers)
        ).overall
        value = min(1.0, max(0.0, found.value))
        cost = int(view.costs[selection.places].sum())
        record = CycleRecord(value, found.low, found.high, cost, agreement, gain_high)
        # This cycle's labels are part of what is read, so the next one is the first to save.
        self._judge(record, view.cycle + 1)
        self._records.append(record)

    def _judge(self, record: CycleRecord, cycle: int) -> None:
        """Asks the rule whether a cycle should still grant."""
        advice = advise([*self._records, record], StopRule(), floors_met=True)
        if advice.stop and not self.stopped_at:
            self.stopped_at = cycle


def by_site(view: SelectionView, rng: np.random.Generator) -> Selection:
    """The product's default policy, with an equal quota for every site."""
    quota = equal_quota(view, np.zeros(0, dtype=np.float32), rng)
    return select_perimeter(replace(view, capacity=quota), rng)


def _frame(view: SelectionView, selection: Selection) -> ExploreFrame:
    """The population of the explore draw, as the coordinator logs it."""
    shape = (view.site_count, view.class_count)
    predicted = view.probabilities[view.open].argmax(axis=1)
    place = np.ravel_multi_index((view.sites[view.open], predicted), shape)
    top = view.probabilities[view.open].max(axis=1)
    drawn = selection.places[selection.explore_probabilities > 0]
    return ExploreFrame(
        np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape),
        np.bincount(place, top, minlength=shape[0] * shape[1]).reshape(shape),
        np.bincount(view.sites[drawn], minlength=shape[0]).astype(np.float64),
    )


def _judged(view: SelectionView, selection: Selection, answers: NDArray[np.int64]) -> ExploreLabels:
    drawn = selection.explore_probabilities > 0
    places = selection.places[drawn]
    predicted = view.probabilities[places].argmax(axis=1)
    said = answers[places]
    return ExploreLabels(
        site_index=view.sites[places],
        predicted_classes=predicted.astype(np.int64),
        confidences=view.probabilities[places].max(axis=1).astype(np.float64),
        inclusion_probabilities=selection.explore_probabilities[drawn],
        correct=np.where(said < 0, -1, (predicted == said).astype(np.int64)),
    )


def _changed(
    selection: Selection, predictions: tuple[NDArray[np.int64], ...], answers: NDArray[np.int64]
) -> ChangedLabels:
    """Explore labels of candidates on which two versions differ."""
    before, after = predictions
    places = selection.places
    kept = (selection.explore_probabilities > 0) & (before[places] != after[places])
    kept &= answers[places] >= 0
    found = places[kept]
    return ChangedLabels(
        inclusion_probabilities=selection.explore_probabilities[kept],
        correct_before=(before[found] == answers[found]).astype(np.int64),
        correct_after=(after[found] == answers[found]).astype(np.int64),
    )
