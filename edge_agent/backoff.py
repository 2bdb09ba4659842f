"""Pauses between attempts: exponential, with full jitter so that a fleet spreads out."""

from __future__ import annotations

from random import Random


class Backoff:
    """When the next attempt is due.

    Args:
        first_seconds: Upper bound of the first pause.
        longest_seconds: Upper bound of every pause.
        rng: Source of chance.

    Source: Brooker, "Exponential backoff and jitter", 2015 (full jitter).

    >>> backoff = Backoff(1.0, 60.0, Random(0))
    >>> backoff.failed(now=100.0)
    >>> 100.0 <= backoff.next_at <= 101.0, backoff.is_due(99.0)
    (True, False)
    """

    def __init__(self, first_seconds: float, longest_seconds: float, rng: Random) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._rng = rng
        self.failure_count = 0
        self.next_at = 0.0

    def is_due(self, now: float) -> bool:
        """True when an attempt may be made."""
        return now >= self.next_at

    def failed(self, now: float) -> None:
        """Notes a failure and draws the next pause."""
        bound = min(self._longest, self._first * 2 ** min(self.failure_count, 32))
        self.failure_count += 1
        self.next_at = now + self._rng.uniform(0.0, bound)

    def succeeded(self) -> None:
        """Forgets earlier failures."""
        self.failure_count = 0
        self.next_at = 0.0
