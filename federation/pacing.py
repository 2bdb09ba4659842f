"""How often Flower's site processes ask for work: often while a run goes on, seldom while idle.

Flower waits a fixed 3 s (node) or 1 s (executor) between questions, which is most of a short
round. These clocks replace the `time` that those two modules see; nothing else of them changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

IDLE_FROM_SECONDS = 1.0
"""A wait this long or longer is a wait for work; shorter ones wait for an answer on its way."""


class PacedTime:
    """Stands in for the `time` module: waits for work are short while work was seen lately.

    Args:
        busy_seconds: Wait while there was work within `calm_after_seconds`.
        idle_seconds: Wait otherwise.
        calm_after_seconds: How long work counts as recent.
        sleep: Really waits.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        busy_seconds: float,
        idle_seconds: float,
        calm_after_seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._busy, self._idle, self._calm_after = busy_seconds, idle_seconds, calm_after_seconds
        self._sleep, self._clock = sleep, clock
        self._worked_at = float("-inf")

    def note_work(self) -> None:
        """Says that there was work just now."""
        self._worked_at = self._clock()

    def sleep(self, seconds: float) -> None:
        """Waits; a short wait means that an answer is on its way, which is work."""
        if seconds < IDLE_FROM_SECONDS:
            self.note_work()
            self._sleep(min(seconds, self._busy))
            return
        recent = self._clock() - self._worked_at < self._calm_after
        self._sleep(self._busy if recent else self._idle)

    def time(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()
