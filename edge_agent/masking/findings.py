"""What detectors say, and how their answers become one list of stretches to hide."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

STRUCTURED_TYPES = frozenset(
    {
        "CREDIT_CARD",
        "EMAIL_ADDRESS",
        "IBAN_CODE",
        "IP_ADDRESS",
        "US_SSN",
        "PHONE_NUMBER",
        "SECRET",
        "SITE_TERM",
    }
)
"""Types that a site's allow-list cannot switch off."""

_GAP = re.compile(r"[ \t\n.,'-]{0,2}\Z")


class Finding(NamedTuple):
    """A stretch of text that a detector takes for personal data; ends are exclusive."""

    start: int
    end: int
    entity_type: str
    score: float


def union(findings: Iterable[Finding]) -> list[Finding]:
    """Merge overlapping findings; the type and score of the best one stand.

    Args:
        findings: Any order, may overlap.

    Returns:
        Ascending, without overlap.

    >>> union([Finding(4, 9, "PERSON", 0.6), Finding(0, 5, "LOCATION", 0.9)])
    [Finding(start=0, end=9, entity_type='LOCATION', score=0.9)]
    """
    merged: list[Finding] = []
    for found in sorted(findings):
        if found.end <= found.start:
            continue
        if not merged or found.start >= merged[-1].end:
            merged.append(found)
            continue
        last = merged[-1]
        best = found if found.score > last.score else last
        merged[-1] = Finding(
            last.start, max(last.end, found.end), best.entity_type, max(last.score, found.score)
        )
    return merged


def join_neighbours(text: str, findings: Sequence[Finding]) -> list[Finding]:
    """Join findings of one type that only spaces or name punctuation part.

    >>> join_neighbours("Ada Lovelace", [Finding(0, 3, "PERSON", 1.0), Finding(4, 12, "PERSON", 0.5)])
    [Finding(start=0, end=12, entity_type='PERSON', score=1.0)]
    """
    joined: list[Finding] = []
    for found in findings:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.entity_type == found.entity_type
            and found.entity_type in _JOINABLE
            and "\n\n" not in text[last.end : found.start]
            and _GAP.match(text, last.end, found.start)
        ):
            joined[-1] = Finding(
                last.start, found.end, last.entity_type, max(last.score, found.score)
            )
        else:
            joined.append(found)
    return joined


_JOINABLE = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "DATE_TIME"})


def without_allowed(
    text: str, findings: Iterable[Finding], allowed: frozenset[str]
) -> list[Finding]:
    """Drop findings whose whole text is on the site's allow-list (case-folded).

    Structured types stay: an allow-list cannot let a card number through.
    """
    if not allowed:
        return list(findings)
    return [
        found
        for found in findings
        if found.entity_type in STRUCTURED_TYPES
        or text[found.start : found.end].casefold() not in allowed
    ]


def every_occurrence(
    text: str, findings: Sequence[Finding], common_words: frozenset[str] = frozenset()
) -> list[Finding]:
    """Add all other places where a found value stands.

    A value of three or more letters, or of four or more signs with a digit, counts wherever it
    stands as a whole word; parts of a person's name count alone too, unless they are common words.

    >>> text = "Ada Lovelace wrote. Then Lovelace slept."
    >>> [f.start for f in every_occurrence(text, [Finding(0, 12, "PERSON", 1.0)])]
    [0, 25]
    """
    values: dict[str, Finding] = {}
    for found in findings:
        for value in _values_of(text[found.start : found.end], found.entity_type, common_words):
            values.setdefault(value, found)
    if not values:
        return list(findings)
    alternatives = "|".join(re.escape(v) for v in sorted(values, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)
    repeats = []
    for match in pattern.finditer(text):
        origin = values.get(match[0].casefold())
        if origin is not None:
            repeats.append(
                Finding(match.start(), match.end(), origin.entity_type, origin.score * 0.99)
            )
    return union([*findings, *repeats])


def _values_of(value: str, entity_type: str, common_words: frozenset[str]) -> list[str]:
    folded = value.casefold().strip()
    values = [folded] if is_telling(folded) and folded not in common_words else []
    if entity_type == "PERSON":
        parts = re.findall(r"[^\W\d_]{3,}", folded)
        values += [part for part in parts if part not in common_words]
    return values


def is_telling(value: str) -> bool:
    """True when a value is long enough to be recognised elsewhere in a text.

    >>> is_telling("Bo"), is_telling("Ada"), is_telling("42"), is_telling("4711")
    (False, True, False, True)
    """
    return len(value) >= (4 if any(c.isdigit() for c in value) else 3)
