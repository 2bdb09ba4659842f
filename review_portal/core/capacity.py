"""How much a site's experts can decide in a day."""

from __future__ import annotations

from collections.abc import Iterable

SECONDS_UNKNOWN = 10.0
"""Seconds assumed for a decision before the site has made any."""
SECONDS_MIN = 1.0
COUNT_MAX = 1_000_000


def daily_capacity(experts: Iterable[tuple[float, int]], *, seconds: float) -> int:
    """Returns how many decisions experts can make in a day.

    Args:
        experts: (hours a day, most decisions a day or 0 for no limit) of each expert.
        seconds: Median seconds of a decision, 0 when unknown.

    >>> daily_capacity([(1.0, 0), (8.0, 100)], seconds=10.0)
    460
    """
    pace = max(seconds, SECONDS_MIN) if seconds > 0 else SECONDS_UNKNOWN
    total = 0
    for hours, quota in experts:
        possible = int(hours * 3600 / pace)
        total += min(possible, quota) if quota > 0 else possible
    return min(total, COUNT_MAX)
