"""What detectors say, and how their answers become one list of stretches to hide."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

_NAME_PART = re.compile(r"[^\W\d_]{3,}")
_GAP = re.compile(r"[ \t'-]{0,2}\Z")
_LIST_GAP = re.compile(r"[ \t\n,'-]{0,2}\Z")


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
            and _gap_of(found.entity_type).match(text, last.end, found.start)
        ):
            joined[-1] = last._replace(end=found.end, score=max(last.score, found.score))
        else:
            joined.append(found)
    return joined


def join_pairs(text: str, findings: Sequence[Finding]) -> list[Finding]:
    """Join what makes one address or company: "Hill and Bay Road", "Lee, Hill and Bay".

    Two people stay two people, unless a third stands before them. This comes after
    `every_occurrence`, which knows people by their own names.

    >>> parts = [Finding(0, 4, "PERSON", 1.0), Finding(9, 17, "LOCATION", 0.5)]
    >>> join_pairs("Hill and Bay Road", parts)
    [Finding(start=0, end=17, entity_type='LOCATION', score=1.0)]
    """
    joined: list[Finding] = []
    before: Finding | None = None
    for found in findings:
        last = joined[-1] if joined else None
        if last is not None and _is_pair(text, before, last, found):
            kinds = {last.entity_type, found.entity_type}
            kind = "LOCATION" if "LOCATION" in kinds else "ORGANIZATION"
            joined[-1] = Finding(last.start, found.end, kind, max(last.score, found.score))
        else:
            before = last
            joined.append(found)
    return joined


def _is_pair(text: str, before: Finding | None, last: Finding, found: Finding) -> bool:
    kinds = {last.entity_type, found.entity_type}
    if not kinds <= _NAMED or not _AND.fullmatch(text, last.end, found.start):
        return False
    in_list = before is not None and text[before.end : last.start] == ", "
    return kinds != {"PERSON"} or (in_list and " " not in text[last.start : last.end])


def _gap_of(entity_type: str) -> re.Pattern[str]:
    """An address goes on behind a comma or on the next line; a comma parts two people."""
    return _LIST_GAP if entity_type in {"LOCATION", "DATE_TIME"} else _GAP


_NAMED = frozenset({"PERSON", "LOCATION", "ORGANIZATION"})
_JOINABLE = _NAMED | {"DATE_TIME"}
_AND = re.compile(r"[ ,]{1,2}(?:and|und|y|&) ", re.IGNORECASE)


def without_allowed(
    text: str, findings: Iterable[Finding], allowed: Sequence[str]
) -> list[Finding]:
    """Drop findings inside a term of the site's allow-list.

    Structured types stay: an allow-list cannot let a card number through.

    Args:
        text: The text of the findings.
        findings: Any order.
        allowed: Terms in small letters.

    >>> without_allowed("the Ann press", [Finding(4, 7, "PERSON", 0.9)], ["ann press"])
    []
    """
    stretches = list(occurrences(text, allowed))
    if not stretches:
        return list(findings)
    return [
        found
        for found in findings
        if found.entity_type in STRUCTURED_TYPES
        or not any(low <= found.start and found.end <= high for low, high, _ in stretches)
    ]


def whole_words(text: str, found: Finding) -> Finding:
    """Widen a finding to the words that it touches: half a name is a name shown.

    >>> whole_words("see Fisher", Finding(4, 7, "PERSON", 0.9)).end
    10
    """
    start, end = found.start, found.end
    while start > 0 and text[start].isalpha() and text[start - 1].isalpha():
        start -= 1
    while end < len(text) and text[end - 1].isalpha() and text[end].isalpha():
        end += 1
    return found._replace(start=start, end=end)


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
    findings = [_like_its_origin(text, found, values) for found in findings]
    known = {(found.start, found.end) for found in findings}
    repeats = [
        values[value]._replace(start=start, end=end)
        for start, end, value in occurrences(text, values)
        if (start, end) not in known
    ]
    return union([*findings, *repeats]) if repeats else list(findings)


def _like_its_origin(text: str, found: Finding, values: Mapping[str, Finding]) -> Finding:
    """A lone last name taken for a company is the person whose full name came before."""
    origin = values.get(small_letters(text[found.start : found.end]))
    if origin is not None and origin.entity_type == "PERSON" and found.entity_type in _JOINABLE:
        return found._replace(entity_type="PERSON")
    return found


def occurrences(text: str, values: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Where small-letter values stand: start, end, value.

    Words count as whole words, values of five and more signs with a digit anywhere.

    >>> list(occurrences("Ann met Anna and ANN", ["ann"]))
    [(0, 3, 'ann'), (17, 20, 'ann')]
    """
    # Searching beats compiling a pattern for each text by far.
    small = small_letters(text)
    for value in values:
        start = small.find(value)
        is_code = start >= 0 and len(value) > 4 and any(c.isdigit() for c in value)
        while start >= 0:
            end = start + len(value)
            if is_code or (_is_edge(small, start) and _is_edge(small, end)):
                yield start, end, value
            start = small.find(value, end)


def small_letters(text: str) -> str:
    """A text in lower case whose length is that of the text.

    >>> small_letters("ANN İ")
    'ann İ'
    """
    small = text.lower()
    if len(small) == len(text):
        return small
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _is_edge(text: str, position: int) -> bool:
    """True where a word begins or ends: not between two letters or digits."""
    if position <= 0 or position >= len(text):
        return True
    before, after = text[position - 1], text[position]
    return not ((before.isalnum() or before == "_") and (after.isalnum() or after == "_"))


def values_of(value: str, entity_type: str, is_ordinary: Callable[[str], bool]) -> list[str]:
    """Small-letter values that give a finding away elsewhere; the whole value comes first."""
    if entity_type in _LOCAL_TYPES:
        return []
    folded = small_letters(value).strip()
    values = [folded] if is_telling(folded) and not is_ordinary(folded) else []
    if entity_type == "PERSON" and " " in folded:
        parts = _NAME_PART.findall(folded)
        values += [part for part in parts if not is_ordinary(part)]
    return values


_LOCAL_TYPES = frozenset({"DATE_TIME", "AGE", "TITLE"})


def is_telling(value: str) -> bool:
    """True when a value is long enough to be recognised elsewhere in a text.

    >>> is_telling("Bo"), is_telling("Ada"), is_telling("42"), is_telling("4711")
    (False, True, False, True)
    """
    return len(value) >= 4 or (len(value) == 3 and not any(c.isdigit() for c in value))
