"""The thresholds of the shipped packs, chosen by `build --held-out` on train parts."""

from edge_agent.masking.pack import Threshold

FLOORS = (0.05, 0.3)
"""Least probability of organisations and of titles at level balanced."""


def levels(balanced: Threshold) -> dict[str, Threshold]:
    """Threshold by level name: strict and light stand around balanced.

    >>> levels(Threshold(0.2, 0.02, 0.02, 0.005, 0.05, 0.3))["light"][:4]
    (0.6, 0.16, 0.16, 0.04)
    """
    return {"strict": _scaled(balanced, 0.5), "balanced": balanced, "light": _scaled(balanced, 8)}


def _scaled(threshold: Threshold, factor: float) -> Threshold:
    return Threshold(*(round(min(0.6, part * factor), 4) for part in threshold))


THRESHOLDS = {
    "mixed": levels(Threshold(0.1, 0.02, 0.0075, 0.0025, *FLOORS)),
    "synthetic": levels(Threshold(0.3, 0.05, 0.05, 0.0167, *FLOORS)),
}
"""Thresholds by level name, by pack."""
