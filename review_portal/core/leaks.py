"""Words that got through masking, found again and replaced in texts and records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from review_portal.core.model import Kind, Refusal

ENTITY_TYPE = "REPORTED"
TERM_LENGTH_MIN = 3
TERM_LENGTH_MAX = 200
_PLACEHOLDER = re.compile(r"<[A-Z_]+_\d+>")
_NUMBERED = re.compile(rf"<{ENTITY_TYPE}_(\d+)>")

Span = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Shift:
    """One replacement in a text, in code points of the text before it.

    Attributes:
        start: First code point that went.
        end: Code point after the last that went.
        length: Length of the placeholder that came.
    """

    start: int
    end: int
    length: int


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Content after its replacements.

    Attributes:
        content: Encoded as its kind says.
        spans: (start, end, entity type) of all placeholders, those of before included.
        shifts: What was replaced, in the order of the text; empty for records.
    """

    content: bytes
    spans: tuple[Span, ...]
    shifts: tuple[Shift, ...] = ()


def tidy(words: str) -> str:
    r"""Returns words as they are kept: outer blanks gone, inner ones single.

    >>> tidy("  Anna\n Berg ")
    'Anna Berg'
    """
    return " ".join(words.split())


def terms_of(words: str) -> list[str]:
    r"""Returns the terms of a report, one on each line.

    >>> terms_of(" Anna  Berg \n\n0151 234\nanna berg")
    ['Anna Berg', '0151 234']
    """
    terms: dict[str, str] = {}
    for line in words.splitlines():
        if tidy(line):
            terms.setdefault(tidy(line).casefold(), tidy(line))
    return list(terms.values()) or [""]


def check_term(term: str) -> Refusal | None:
    """Returns why a term cannot go on the list, or None.

    >>> check_term("Al").reason, check_term("<PERSON_1> Berg").reason, check_term("Anna Berg")
    ('LEAK_SHORT', 'LEAK_PLACEHOLDER', None)
    """
    if len(term) < TERM_LENGTH_MIN:
        return Refusal(
            "LEAK_SHORT",
            f"name at least {TERM_LENGTH_MIN} characters: shorter words would be masked everywhere",
        )
    if len(term) > TERM_LENGTH_MAX:
        return Refusal("LEAK_LONG", f"name at most {TERM_LENGTH_MAX} characters")
    if _PLACEHOLDER.search(term):
        return Refusal("LEAK_PLACEHOLDER", "name words beside a placeholder, not across it")
    return None


@lru_cache(maxsize=4096)
def _pattern(term: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in term.casefold().split())
    first, last = term[:1].casefold(), term[-1:].casefold()
    before = r"(?<!\w)" if re.match(r"\w", first) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", last) else ""
    return re.compile(before + words + after)


def occurrences(text: str, term: str) -> list[tuple[int, int]]:
    """Returns where a term stands in a text as whole tokens, whatever its case, in code points.

    >>> occurrences("ANNA met Annabel and anna", "Anna"), occurrences("STRASSE", "straße")
    ([(0, 4), (21, 25)], [(0, 7)])
    """
    folded = text.casefold()
    hits = [(found.start(), found.end()) for found in _pattern(term).finditer(folded)]
    if not hits or len(folded) == len(text):
        return hits
    # A letter may fold into several: only hits that begin and end with a letter of the text count.
    edges = accumulate((len(letter.casefold()) for letter in text), initial=0)
    place = {edge: index for index, edge in enumerate(edges)}
    return [(place[a], place[b]) for a, b in hits if a in place and b in place]


def _placeholders(text: str, spans: Iterable[Span]) -> list[tuple[int, int]]:
    literal = [(found.start(), found.end()) for found in _PLACEHOLDER.finditer(text)]
    return literal + [(start, end) for start, end, _ in spans]


def _free(
    found: Iterable[tuple[int, int]], taken: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    for start, end in found:
        if all(end <= other or start >= last for other, last in taken):
            yield start, end


def _merged(found: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class _Numbers:
    """Numbers of an item's placeholders: equal words share one, used ones are never given again."""

    def __init__(self, content: str) -> None:
        self._next = max((int(n) for n in _NUMBERED.findall(content)), default=0) + 1
        self._known: dict[str, int] = {}

    def placeholder(self, words: str) -> str:
        key = tidy(words.casefold())
        if key not in self._known:
            self._known[key] = self._next
            self._next += 1
        return f"<{ENTITY_TYPE}_{self._known[key]}>"


def _replaced(
    text: str, terms: Sequence[str], spans: Sequence[Span], numbers: _Numbers
) -> tuple[str, tuple[Shift, ...]]:
    raw = [hit for term in terms for hit in occurrences(text, term)]
    if not raw:
        return text, ()
    pieces, shifts, done = [], [], 0
    for start, end in _merged(_free(raw, _placeholders(text, spans))):
        placeholder = numbers.placeholder(text[start:end])
        pieces += [text[done:start], placeholder]
        shifts.append(Shift(start, end, len(placeholder)))
        done = end
    return "".join(pieces) + text[done:], tuple(shifts)


def moved(position: int, shifts: Sequence[Shift], *, is_end: bool = False) -> int:
    """Returns where a place of a text lies after its replacements.

    A place inside of replaced words goes to the nearer side of the placeholder that it belongs to:
    a start to its start, an end to its end.

    >>> moved(9, [Shift(0, 4, 12)]), moved(2, [Shift(0, 4, 12)], is_end=True)
    (17, 12)
    """
    offset = 0
    for shift in shifts:
        if position >= shift.end:
            offset += shift.length - (shift.end - shift.start)
        elif position > shift.start:
            return shift.start + offset + (shift.length if is_end else 0)
    return position + offset


def moved_answer(answer_key: str, shifts: Sequence[Shift]) -> str:
    """Returns the key of an answer whose text was changed; only marked spans have places.

    >>> moved_answer("5-9:2", [Shift(0, 4, 12)]), moved_answer("1,4", [Shift(0, 4, 12)])
    ('13-17:2', '1,4')
    """
    if ":" not in answer_key or not shifts:
        return answer_key
    parts = []
    for part in answer_key.split(";"):
        places, _, index = part.partition(":")
        start, _, end = places.partition("-")
        parts.append(f"{moved(int(start), shifts)}-{moved(int(end), shifts, is_end=True)}:{index}")
    return ";".join(parts)


def clean(
    kind: Kind, content: bytes, spans: Sequence[Span], terms: Sequence[str]
) -> Cleaned | None:
    """Replaces terms in the content of an item.

    Args:
        kind: Text and records are searched; a record's columns of text, not their names or numbers.
        content: Encoded as the kind says.
        spans: Placeholders that are known already.
        terms: Words to replace, see `check_term`.

    Returns:
        None when no term occurs.

    >>> done = clean(Kind.TEXT, b"Ask Anna, not Hannah; ANNA knows", (), ["anna"])
    >>> done.content, done.spans[1]
    (b'Ask <REPORTED_1>, not Hannah; <REPORTED_1> knows', (30, 42, 'REPORTED'))
    """
    if kind is Kind.TEXT:
        return _clean_text(content.decode("utf-8", "replace"), spans, terms)
    if kind is Kind.RECORD:
        return _clean_record(content, spans, terms)
    return None


def _clean_text(text: str, spans: Sequence[Span], terms: Sequence[str]) -> Cleaned | None:
    after, shifts = _replaced(text, terms, spans, _Numbers(text))
    if not shifts:
        return None
    kept = [(moved(a, shifts), moved(b, shifts, is_end=True), name) for a, b, name in spans]
    for shift in shifts:
        start = moved(shift.start, shifts)
        kept.append((start, start + shift.length, ENTITY_TYPE))
    return Cleaned(after.encode(), tuple(sorted(kept)), shifts)


def _clean_record(content: bytes, spans: Sequence[Span], terms: Sequence[str]) -> Cleaned | None:
    record = json.loads(content)
    numbers, is_changed = _Numbers(content.decode("utf-8", "replace")), False
    for column, value in record.items():
        if isinstance(value, str):
            record[column], shifts = _replaced(value, terms, (), numbers)
            is_changed = is_changed or bool(shifts)
    if not is_changed:
        return None
    # Places of a record's placeholders follow from its values: the pages find them there.
    return Cleaned(json.dumps(record, ensure_ascii=False).encode(), tuple(spans))


def check_occurs(kind: Kind, content: bytes, spans: Sequence[Span], term: str) -> Refusal | None:
    """Returns why a term cannot be reported of this content, or None."""
    if kind not in {Kind.TEXT, Kind.RECORD}:
        return Refusal("LEAK_KIND", "only words of texts and records can be named")
    if clean(kind, content, spans, [term]) is not None:
        return None
    text = content.decode("utf-8", "replace")
    if kind is Kind.TEXT and term.casefold() in tidy(text).casefold():
        if not occurrences(text, term) and not _touches(text, spans, term):
            return Refusal("LEAK_PART", "name whole words: this is a part of a longer word")
        return Refusal("LEAK_PLACEHOLDER", "name words beside a placeholder, not across it")
    return Refusal("LEAK_ABSENT", "these words do not occur in the item")


def _touches(text: str, spans: Sequence[Span], term: str) -> bool:
    start = text.casefold().find(term.casefold())
    taken = _placeholders(text, spans)
    return start >= 0 and not list(_free([(start, start + len(term))], taken))
