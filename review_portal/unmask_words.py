"""Words that a device handed over for one viewing. In memory only, for seconds, taken once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HeldWords:
    """Words by unmasking, each until its viewing ends.

    Nothing here is written down: when the process ends, or the time is up, or somebody has looked,
    the words are gone and must be asked for again.
    """

    _held: dict[bytes, tuple[tuple[str, ...], float]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def put(self, unmasking_id: bytes, words: tuple[str, ...], *, until: float, now: float) -> None:
        """Keeps words until a moment; what is over goes at once."""
        with self._lock:
            self._drop_old(now)
            self._held[unmasking_id] = (words, until)

    def take(self, unmasking_id: bytes, now: float) -> tuple[str, ...] | None:
        """Returns words and forgets them; None when there are none (any more)."""
        with self._lock:
            self._drop_old(now)
            found = self._held.pop(unmasking_id, None)
        return None if found is None else found[0]

    def drop_old(self, now: float) -> None:
        """Forgets what is over."""
        with self._lock:
            self._drop_old(now)

    def __len__(self) -> int:
        """How many viewings wait."""
        return len(self._held)

    def _drop_old(self, now: float) -> None:
        for key in [key for key, (_, until) in self._held.items() if now >= until]:
            del self._held[key]
