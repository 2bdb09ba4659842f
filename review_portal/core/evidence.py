"""Which words of a text are typical of a class, as experts of this site have labeled it.

Log-odds of a word in the class against the other classes, with the pooled counts as prior and
divided by their standard error: Monroe, Colaresi and Quinn 2008, "Fightin' Words", section 3.3.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_][\w'’-]+")
PRIOR_WORDS = 500.0
SCORE_MIN = 1.64
"""Standard errors from which a word is shown: 95 % one-sided."""
SPANS_MAX = 8


@dataclass(frozen=True)
class WordCounts:
    """Counts of words by class.

    Attributes:
        by_class: Per class, word to count.
        total: Word to count over all classes.
    """

    by_class: tuple[Counter[str], ...]
    total: Counter[str]


def count_words(examples: Iterable[tuple[str, int]], class_count: int) -> WordCounts:
    """Counts words of labeled texts; a word counts once a text.

    >>> count_words([("lost card", 0), ("new loan", 1)], 2).by_class[0]["card"]
    1
    """
    by_class = tuple(Counter[str]() for _ in range(class_count))
    total: Counter[str] = Counter()
    for text, class_index in examples:
        words = {word.casefold() for word in WORD.findall(text)}
        by_class[class_index].update(words)
        total.update(words)
    return WordCounts(by_class, total)


def typical_spans(text: str, class_index: int, counts: WordCounts) -> list[tuple[int, int]]:
    """Returns the words of a text that speak for a class, as (start, end) in code points.

    >>> counts = count_words([("lost card", 0)] * 30 + [("new loan", 1)] * 30, 2)
    >>> typical_spans("my card is new", 0, counts)
    [(3, 7)]
    """
    scored = []
    for found in WORD.finditer(text):
        score = word_score(found.group().casefold(), class_index, counts)
        if score >= SCORE_MIN:
            scored.append((score, found.start(), found.end()))
    best = sorted(scored, reverse=True)[:SPANS_MAX]
    return sorted((start, end) for _, start, end in best)


def word_score(word: str, class_index: int, counts: WordCounts) -> float:
    """Returns the z-score of a word's log-odds in a class against all others; 0 if unknown."""
    pooled = sum(counts.total.values())
    overall = counts.total[word]
    if not overall or not pooled:
        return 0.0
    prior = PRIOR_WORDS * overall / pooled
    inside = counts.by_class[class_index][word]
    inside_total = sum(counts.by_class[class_index].values())
    outside, outside_total = overall - inside, pooled - inside_total
    log_odds = _log_odds(inside, inside_total, prior) - _log_odds(outside, outside_total, prior)
    return log_odds / math.sqrt(1 / (inside + prior) + 1 / (outside + prior))


def _log_odds(count: float, total: float, prior: float) -> float:
    return math.log((count + prior) / max(total + PRIOR_WORDS - count - prior, 1e-9))
