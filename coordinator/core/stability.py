"""How much a new model version changed, seen on candidates that both versions scored.

Where a prediction stayed the same, nothing was gained and nothing lost. So the share of changed
predictions bounds the gain in accuracy from both sides without a single label, and labels of
candidates drawn by chance among the changed ones narrow it further.

Sources: Bloodgood and Vijay-Shanker, "A method for stopping active learning based on stabilizing
predictions", 2009 (agreement beyond chance); Cohen, "A coefficient of agreement for nominal
scales", 1960; the interval is the confidence sequence of :mod:`coordinator.core.estimation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coordinator.core.estimation import confidence_sequence


@dataclass(frozen=True, slots=True)
class Stability:
    """Two versions on the same candidates.

    Attributes:
        compared_count: candidates that both versions scored.
        changed_count: those whose predicted class is another one now.
        agreement: Cohen's kappa of the predictions, 1 for none changed, or None where one class
            alone was predicted and agreement says nothing.
    """

    compared_count: int
    changed_count: int
    agreement: float | None

    @property
    def changed_ratio(self) -> float:
        """Share of predictions that changed; 1 where nothing was compared."""
        return self.changed_count / self.compared_count if self.compared_count else 1.0


@dataclass(frozen=True)
class Change:
    """What the version that scored a cycle's pool changed on the version before.

    Attributes:
        stability: of all candidates that both scored.
        before: id to the older version's class, of explore picks whose prediction changed.
        after: id to the newer version's class, likewise.
    """

    stability: Stability
    before: dict[bytes, int] = field(default_factory=dict)
    after: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ChangedLabels:
    """Explore labels of candidates whose prediction changed, in the order in which they came.

    Attributes:
        inclusion_probabilities: float64[m], of the draw, above 0.
        correct_before: int64[m], 1 where the older version was right, else 0.
        correct_after: int64[m], likewise for the newer one.
    """

    inclusion_probabilities: NDArray[np.float64]
    correct_before: NDArray[np.int64]
    correct_after: NDArray[np.int64]


def compare_predictions(
    before: NDArray[np.integer], after: NDArray[np.integer], *, class_count: int
) -> Stability:
    """Compares the predicted classes of the same candidates by two versions.

    Args:
        before: int[n] in [0, class_count).
        after: int[n], of the same candidates.
        class_count: classes of the schema.

    >>> compare_predictions(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), class_count=2)
    Stability(compared_count=4, changed_count=1, agreement=0.5)
    """
    count = len(before)
    changed = int(np.count_nonzero(np.asarray(before) != np.asarray(after)))
    if not count:
        return Stability(0, 0, None)
    shares = [np.bincount(part, minlength=class_count) / count for part in (before, after)]
    by_chance = float((shares[0] * shares[1]).sum())
    if by_chance >= 1.0:
        return Stability(count, changed, None)
    return Stability(count, changed, (1.0 - changed / count - by_chance) / (1.0 - by_chance))


def gain_interval(
    stability: Stability, labels: ChangedLabels, *, error_rate: float = 0.05
) -> tuple[float, float]:
    """Least and most accuracy that the newer version gained on the compared candidates.

    Args:
        stability: all candidates that both versions scored; their counts are exact.
        labels: what became of the explore picks among the changed ones.
        error_rate: chance that the interval misses the truth, at any time.

    >>> none = np.zeros(0, dtype=np.int64)
    >>> gain_interval(Stability(1000, 20, 0.9), ChangedLabels(np.zeros(0), none, none))
    (-0.02, 0.02)
    """
    share = stability.changed_ratio
    count = len(labels.correct_after)
    if not count or not stability.changed_count:
        return -share, share
    lift = count / (labels.inclusion_probabilities * stability.changed_count)
    most = float(lift.max()) + 1e-9
    values = lift * (labels.correct_after - labels.correct_before)
    low, high = confidence_sequence(values, lowest=-most, highest=most, error_rate=error_rate)
    return share * max(-1.0, float(low[-1])), share * min(1.0, float(high[-1]))
