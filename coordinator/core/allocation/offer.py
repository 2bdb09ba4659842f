"""What may be bought: rows, their utility and cost, the limits and the class floors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.limits import Limits
from coordinator.core.allocation.objective import Integers
from coordinator.core.allocation.policy import Budget, Policy
from coordinator.core.allocation.pool import Pool


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """Rows that may be bought.

    Attributes:
        rows: int64[n], rows of the pool.
        utilities: float32[n], in [0, 1].
        ties: uint64[n], chance; lower goes first among equals.
        costs: int64[n], cost units.
        classes: int64[n], class whose floor a row helps to meet.
        limits: what is left of the budget.
        floors: int64[classes], labels that must still be bought.
    """

    rows: Integers
    utilities: NDArray[np.float32]
    ties: NDArray[np.uint64]
    costs: Integers
    classes: Integers
    limits: Limits
    floors: Integers

    @property
    def most_picks(self) -> int:
        """No choice can have more rows than this."""
        if not len(self.rows):
            return 0
        return int(min(len(self.rows), self.limits.cost_limit // int(self.costs.min())))

    def part(self, places: Integers) -> Offer:
        """The same limits over some of the rows, given by their places."""
        return Offer(
            rows=self.rows[places],
            utilities=self.utilities[places],
            ties=self.ties[places],
            costs=self.costs[places],
            classes=self.classes[places],
            limits=self.limits,
            floors=self.floors,
        )


def missing_labels(pool: Pool, budget: Budget, policy: Policy) -> Integers:
    """int64[classes]: labels that each class lacks to its floor."""
    if not policy.switches.floors:
        return np.zeros(pool.class_count, dtype=np.int64)
    missing = np.maximum(budget.class_floors - pool.progress.class_labels, 0)
    return np.asarray(missing, dtype=np.int64)


def floor_classes(pool: Pool, policy: Policy, floors: Integers) -> Integers:
    """int64[n]: the class whose floor each row may help to meet.

    It is the prototype's class. Where a class lacks rows, a row of a class without floor stands in
    if that class is its runner-up: a rare class is rarely the first guess of an early model.
    """
    main = pool.prototype_classes if policy.switches.prototype else pool.predicted_classes
    classes = main.astype(np.int64)
    if not policy.switches.runner_up or not floors.any():
        return classes
    counts = np.bincount(classes, minlength=len(floors))
    scarce = floors > counts
    helps = scarce[pool.runner_up_classes] & (floors[classes] == 0)
    return np.where(helps, pool.runner_up_classes, classes).astype(np.int64)
