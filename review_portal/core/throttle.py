"""How often somebody may try: a bucket of tries that refills with time."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Bucket:
    """Tries that are left.

    Attributes:
        tries: How many are left.
        at: When that was counted, seconds since the epoch.
    """

    tries: float
    at: float


def take(bucket: Bucket | None, *, per_minute: int, now: float) -> tuple[Bucket, bool]:
    """Takes one try.

    Returns:
        The bucket after it, and whether the try is allowed.

    >>> bucket, allowed = take(None, per_minute=1, now=0.0)
    >>> allowed, take(bucket, per_minute=1, now=1.0)[1], take(bucket, per_minute=1, now=60.0)[1]
    (True, False, True)
    """
    if bucket is None:
        bucket = Bucket(float(per_minute), now)
    elapsed = max(0.0, now - bucket.at)
    tries = min(float(per_minute), bucket.tries + elapsed * per_minute / 60)
    if tries < 1:
        return replace(bucket, tries=tries, at=now), False
    return Bucket(tries - 1, now), True


def is_locked(failed_count: int, *, lockout_after: int, locked_until: float, now: float) -> bool:
    """Returns whether an account is locked after too many wrong passwords.

    >>> is_locked(10, lockout_after=10, locked_until=5.0, now=4.0)
    True
    """
    return failed_count >= lockout_after and now < locked_until
