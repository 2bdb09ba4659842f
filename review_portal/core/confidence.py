"""The confidence that is shown: the model's own, corrected by how often it was right here."""

from __future__ import annotations

from collections.abc import Sequence

from review_portal.core.calibration import CalibrationBin

PRIOR_COUNT = 10
"""How many settled suggestions the model's own word weighs."""


def calibrated(confidence: float, bins: Sequence[CalibrationBin]) -> float:
    """Returns how often suggestions of this confidence were right, shrunk towards the confidence.

    Args:
        confidence: The model's own probability, in [0, 1].
        bins: Reliability bins of the model version at this site; empty when nothing is settled.

    >>> calibrated(0.9, ())
    0.9
    """
    for entry in bins:
        if entry.low < confidence <= entry.high or (confidence == 0.0 and entry.low == 0.0):
            count, right = entry.accuracy.unit_count, entry.accuracy.value
            if right is None:
                return confidence
            return (count * right + PRIOR_COUNT * confidence) / (count + PRIOR_COUNT)
    return confidence
