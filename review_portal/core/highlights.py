"""Words of a text that speak for the suggested class, judged by the labels of this site.

The portal has no model, so this is not what the model looked at. It is what the site's own labels
say: words and pairs of words that occur in a class more often than chance explains. Pages that show
them must say so.

Source: Monroe, Colaresi and Quinn 2008, "Fightin' Words" (log-odds with a Dirichlet prior).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

TERM_COUNT_MAX = 200_000
"""Distinct terms that are kept; the rarest go first."""
SPAN_COUNT_MAX = 12
"""Highlights of one text; more would highlight nothing."""
CERTAINTY_MIN = 1.96
"""Least z-score: a word below it could be chance."""
_PRIOR_WEIGHT = 0.5
_WORD = re.compile(r"<[A-Z_]+_\d+>|\w+")


@dataclass(frozen=True, slots=True)
class Highlight:
    """A part of a text.

    Attributes:
        start: First code point.
        end: Code point after the last.
        strength: How strongly it speaks for the class, above 0 to 1.
    """

    start: int
    end: int
    strength: float


@dataclass(frozen=True, slots=True)
class WordEvidence:
    """How often each term occurs in texts of each class.

    Attributes:
        by_class: For each class, term to the number of texts that hold it.
        overall: Term to the number of texts that hold it.
        class_totals: Sum of `by_class` for each class.
    """

    by_class: tuple[Mapping[str, int], ...]
    overall: Mapping[str, int]
    class_totals: tuple[int, ...]
    # Certainties that were worked out already: the same words come in one text after the other.
    known: dict[tuple[int, str], float] = field(default_factory=dict, compare=False, repr=False)


def count_words(texts: Iterable[tuple[str, int]], class_count: int) -> WordEvidence:
    """Counts the terms of labeled texts; a term counts once a text.

    Args:
        texts: (masked text, class index).
        class_count: Classes of the label schema.

    >>> count_words([("late parcel", 1)], 2).by_class[1]["late parcel"]
    1
    """
    by_class: list[Counter[str]] = [Counter() for _ in range(class_count)]
    for text, index in texts:
        by_class[index].update({term for term, _, _ in terms_of(text)})
    overall: Counter[str] = Counter()
    for counts in by_class:
        overall.update(counts)
    kept = dict(overall.most_common(TERM_COUNT_MAX))
    terms = tuple({term: n for term, n in counts.items() if term in kept} for counts in by_class)
    return WordEvidence(terms, kept, tuple(sum(counts.values()) for counts in terms))


def terms_of(text: str) -> Iterator[tuple[str, int, int]]:
    """Yields words and pairs of neighbours as (term, start, end); placeholders break pairs.

    >>> [term for term, _, _ in terms_of("Late parcel, <PERSON_1>")]
    ['late', 'late parcel', 'parcel']
    """
    words = [(m.group().casefold(), m.start(), m.end()) for m in _WORD.finditer(text)]
    for place, (word, start, end) in enumerate(words):
        if word.startswith("<"):
            continue
        yield word, start, end
        if place + 1 < len(words) and not words[place + 1][0].startswith("<"):
            following, _, last = words[place + 1]
            yield f"{word} {following}", start, last


def certainty(term: str, index: int, evidence: WordEvidence) -> float:
    """Returns the z-score of "this term belongs to this class"; below 0 it speaks against it.

    >>> seen = count_words([("refund please", 0)] * 9 + [("parcel please", 1)] * 9, 2)
    >>> certainty("refund", 0, seen) > 2 > certainty("please", 0, seen)
    True
    """
    if term not in evidence.overall:
        return 0.0
    found = evidence.known.get((index, term))
    if found is None:
        found = evidence.known[index, term] = _certainty(term, index, evidence)
    return found


def _certainty(term: str, index: int, evidence: WordEvidence) -> float:
    prior = _PRIOR_WEIGHT * evidence.overall[term]
    total = sum(evidence.class_totals)
    prior_total = _PRIOR_WEIGHT * total
    inside = evidence.by_class[index].get(term, 0)
    outside = evidence.overall[term] - inside
    inside_total = evidence.class_totals[index]
    outside_total = total - inside_total
    odds_inside = (inside + prior) / (inside_total + prior_total - inside - prior)
    odds_outside = (outside + prior) / (outside_total + prior_total - outside - prior)
    variance = 1 / (inside + prior) + 1 / (outside + prior)
    return math.log(odds_inside / odds_outside) / math.sqrt(variance)


def highlights(
    text: str, index: int, evidence: WordEvidence, *, count_max: int = SPAN_COUNT_MAX
) -> tuple[Highlight, ...]:
    """Returns the parts of a text that speak for a class, in the order of the text.

    No two overlap: the one with the higher z-score stays.

    >>> seen = count_words([("a refund", 0)] * 9 + [("a parcel", 1)] * 9, 2)
    >>> [("a REFUND"[h.start : h.end]) for h in highlights("a REFUND", 0, seen)]
    ['a REFUND']
    """
    scored = [
        (score, start, end)
        for term, start, end in terms_of(text)
        if (score := certainty(term, index, evidence)) >= CERTAINTY_MIN
    ]
    chosen: list[tuple[float, int, int]] = []
    # Ties go to the longer part: a pair says more than either of its words.
    for score, start, end in sorted(scored, key=lambda s: (-s[0], s[1] - s[2], s[1])):
        if all(end <= other or start >= last for _, other, last in chosen):
            chosen.append((score, start, end))
        if len(chosen) == count_max:
            break
    strongest = max((score for score, _, _ in chosen), default=1.0)
    return tuple(
        Highlight(start, end, score / strongest)
        for score, start, end in sorted(chosen, key=lambda s: s[1])
    )
