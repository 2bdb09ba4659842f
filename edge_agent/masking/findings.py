"""What detectors say, and how their answers become one list of stretches to hide."""

import re
from collections.abc import Callable, Iterable, Sequence
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

    >>> parts = [Finding(0, 3, "PERSON", 1.0), Finding(4, 12, "PERSON", 0.5)]
    >>> join_neighbours("Ada Lovelace", parts)
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
    text: str, findings: Sequence[Finding], is_ordinary: Callable[[str], bool] = lambda _: False
) -> list[Finding]:
    """Add all other places where a found value stands.

    A value of three or more letters, or of four or more signs with a digit, counts wherever it
    stands as a whole word; one with digits counts inside a longer word as well. Parts of a
    person's name count alone too, unless they are ordinary words.

    >>> text = "Ada Lovelace wrote. Then Lovelace slept."
    >>> [f.start for f in every_occurrence(text, [Finding(0, 12, "PERSON", 1.0)])]
    [0, 25]
    """
    values: dict[str, Finding] = {}
    for found in findings:
        for value in values_of(text[found.start : found.end], found.entity_type, is_ordinary):
            values.setdefault(value, found)
    pattern = occurrence_pattern(values)
    if pattern is None:
        return list(findings)
    repeats = []
    for match in pattern.finditer(text):
        origin = values.get(match[0].casefold())
        if origin is not None:
            repeats.append(origin._replace(start=match.start(), end=match.end()))
    if len(repeats) <= len(findings):
        # Nearly always nothing new: then the merge below would only cost time.
        known = {(f.start, f.end) for f in findings}
        repeats = [r for r in repeats if (r.start, r.end) not in known]
    return union([*findings, *repeats]) if repeats else list(findings)


def occurrence_pattern(values: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that finds each value; words only as whole words, values with digits anywhere."""
    words: list[str] = []
    codes: list[str] = []
    for value in sorted(values, key=len, reverse=True):
        is_code = len(value) > 4 and any(c.isdigit() for c in value)
        (codes if is_code else words).append(re.escape(value))
    parts = [rf"(?<!\w)(?:{'|'.join(words)})(?!\w)"] if words else []
    parts += codes
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def values_of(value: str, entity_type: str, is_ordinary: Callable[[str], bool]) -> list[str]:
    """Case-folded values that give a finding away elsewhere; the whole value comes first."""
    if entity_type in _LOCAL_TYPES:
        return []
    folded = value.casefold().strip()
    values = [folded] if is_telling(folded) and not is_ordinary(folded) else []
    if entity_type == "PERSON" and " " in folded:
        parts = re.findall(r"[^\W\d_]{3,}", folded)
        values += [part for part in parts if not is_ordinary(part)]
    return values


_LOCAL_TYPES = frozenset({"DATE_TIME", "AGE", "TITLE"})


def is_telling(value: str) -> bool:
    """True when a value is long enough to be recognised elsewhere in a text.

    >>> is_telling("Bo"), is_telling("Ada"), is_telling("42"), is_telling("4711")
    (False, True, False, True)
    """
    return len(value) >= (4 if any(c.isdigit() for c in value) else 3)
