"""The masking seam: one method, two answers. A text comes back `Masked`, or it is `Held`.

Nothing behind this seam raises for a text. A time-out, a crash, an unknown language, an over-long
text and a changed model file are all values of `HeldReason`, because a caller that forgets to
catch an exception would be a caller that shows raw text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

POLICY_VERSION = "perimeter-masking-1"
"""Version of the masking policy. Intake refuses items that were masked under another one."""


class Level(StrEnum):
    """How eagerly the chain masks: a lower threshold masks more, and more that is harmless."""

    STRICT = "strict"
    BALANCED = "balanced"
    LIGHT = "light"
    NONE = "none"
    """For kinds of sample that hold no text, such as series."""


class HeldReason(StrEnum):
    """Why a text was held back."""

    TIMEOUT = "timeout"
    CRASH = "crash"
    MALFORMED_ANSWER = "malformed-answer"
    OVER_LENGTH = "over-length"
    UNKNOWN_LANGUAGE = "unknown-language"
    MODEL_CHANGED = "model-changed"
    DETECTOR_FAILED = "detector-failed"
    DETECTOR_MISSING = "detector-missing"
    CANARY_FAILED = "canary-failed"
    BIDI_CONTROL = "bidi-control"
    VERIFY_FAILED = "verify-failed"
    UNREADABLE = "unreadable"
    NO_COLUMN_POLICY = "no-column-policy"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class MaskedSpan:
    """One masked place. Offsets count Unicode code points, ends are exclusive.

    Attributes:
        start: First code point of the placeholder in the masked text.
        end: End of the placeholder in the masked text.
        raw_start: First code point of the hidden stretch in the raw text.
        raw_end: End of the hidden stretch in the raw text.
        entity_type: PERSON, EMAIL_ADDRESS and so on.
        score: Confidence of the best detector, in [0, 1].
    """

    start: int
    end: int
    raw_start: int
    raw_end: int
    entity_type: str
    score: float


@dataclass(frozen=True, slots=True)
class MaskReport:
    """What was masked and by what; travels with the item. Holds no content.

    Attributes:
        policy_version: Always `POLICY_VERSION` of the code that ran.
        detector_digest: SHA-256 over detectors, thresholds, site lists and model files; 32 bytes.
        level: The level that ran.
        counts: Entity type and count band, sorted by type; bands: 1 for one, 2 for two or three,
            3 for four and more.
        verified: True when the second pass over the masked text found nothing.
    """

    policy_version: str
    detector_digest: bytes
    level: Level
    counts: tuple[tuple[str, int], ...]
    verified: bool


@dataclass(frozen=True, slots=True)
class Masked:
    """A text that may be shown on site. `spans` are in ascending order and do not overlap."""

    text: str
    spans: tuple[MaskedSpan, ...]
    report: MaskReport


@dataclass(frozen=True, slots=True)
class Held:
    """A text that must not be shown. `detail` is for people and never holds content."""

    reason: HeldReason
    detail: str


class Masker(Protocol):
    """Masks texts. Implementations never raise for a text; they answer `Held`."""

    def mask(self, text: str, *, language: str = "en") -> Masked | Held:
        """Mask one text.

        Args:
            text: Raw text, any length; over-long ones are held.
            language: BCP 47 tag; only its primary part counts.

        Returns:
            `Masked`, or `Held` with the reason.
        """
        ...

    def mask_many(self, texts: Sequence[str], *, language: str = "en") -> list[Masked | Held]:
        """Mask a batch; one answer per text, in order. One bad text holds only itself."""
        ...

    def close(self) -> None:
        """Release processes and memory. Later calls to `mask` answer `Held(CLOSED)`."""
        ...


def count_band(count: int) -> int:
    """Band of an entity count: 0 for none, 1 for one, 2 for two or three, 3 for more.

    >>> [count_band(n) for n in (0, 1, 2, 3, 4, 50)]
    [0, 1, 2, 2, 3, 3]
    """
    if count <= 1:
        return max(0, count)
    return 2 if count <= 3 else 3
