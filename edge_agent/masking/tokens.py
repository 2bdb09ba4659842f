"""How the name tagger sees a text: tokens and a few small numbers for each.

Training and the device share this module, so what is trained is what runs.
"""

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD_ROWS = 12288
TRIGRAM_ROWS = 16384
TRIGRAM_SLOTS = 12
SHAPES = 14
GAPS = 3
FLAG_ROWS = 32
CASES = 4
ORDINARY = 8
"""Gazetteer flag of a word that people write in lower case."""

_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_CACHE_LIMIT = 30_000
_BEGINS_SMALL = re.compile(r"[\W_]*[a-zß-öø-ÿ]")
_SIGN_OF_HASTE = re.compile(r"([A-HJ-VX-Za-hj-vx-z])\1\1|[:;=]-?[)(DPp]|(?<!\w)[@#]\w|\? \?")
_PICTURE = re.compile(r"[\u2600-\u27bf\U0001f300-\U0001faff]")
_HASTY_SIGNS = ("..", "!", "??", "<3")
_SHORT_CHARS = 280
_SHORT_WORDS = 3
_SHORT_FORMS = (
    *("ur", "lol", "lmao", "haha", "hahaha", "omg", "wtf", "smh", "im", "dont", "cant", "gonna"),
    *("wanna", "thx", "pls", "plz", "rt", "idk", "btw", "yall", "yo", "bc", "cuz", "dis", "dat"),
)
_HASTY_WORDS = frozenset({"i", "u", "r", *_SHORT_FORMS}).union(
    *((word.upper(), word.capitalize()) for word in _SHORT_FORMS)
)

Int32Array = NDArray[np.int32]


class Token(NamedTuple):
    """One token of a text; the end is exclusive."""

    start: int
    end: int
    text: str


def tokenize(text: str) -> list[Token]:
    """Words, runs of digits and single other signs.

    >>> [t.text for t in tokenize("Ann O'Neil, 42")]
    ['Ann', 'O', "'", 'Neil', ',', '42']
    """
    return [Token(m.start(), m.end(), m[0]) for m in _TOKEN.finditer(text)]


def word_hash(word: str) -> int:
    """Hash under which a gazetteer knows a word, whatever its case; 32 bits.

    >>> word_hash("ANN") == word_hash("ann")
    True
    """
    return zlib.crc32(word.casefold().encode())


def shape_of(word: str) -> int:
    """Class of a token's outer form, 0 to 13.

    >>> [shape_of(w) for w in ("ann", "Ann", "ANN", "A", "McX", "1984", ",")]
    [1, 2, 3, 4, 5, 9, 11]
    """
    if word[0].isdigit():
        return 5 + min(len(word), 5)
    if not word[0].isalpha():
        return 11
    if not (word[0].isupper() or word.isupper()):
        return 1 if word.islower() else 12
    if len(word) == 1:
        return 4
    if word.isupper():
        return 3
    return 2 if word[1:].islower() else 5


def case_of(tokens: Sequence[Token]) -> int:
    """Case of a whole text: 1 mixed, 2 all lower, 3 nearly all upper; 0 is padding.

    >>> [case_of(tokenize(text)) for text in ("No CAPS lost", "no caps", "NO CAPS")]
    [1, 2, 3]
    """
    words = [t.text for t in tokens if t.text[0].isalpha()]
    upper = sum(w.isupper() and len(w) > 1 for w in words)
    if words and not any(w[0].isupper() for w in words):
        return 2
    return 3 if words and upper * 5 >= len(words) * 4 else 1


def is_hasty(text: str, tokens: Sequence[Token]) -> bool:
    """Whether a text bears a sign of being written in haste, as in chats and comments.

    Short forms, signs of mood, a small letter at its head, or a short line without an end.

    >>> texts = ("Ann is in.", "ann is in", "Ann is in", "Where r you?", "Hi @bo.", "Ann")
    >>> [is_hasty(text, tokenize(text)) for text in texts]
    [False, True, True, True, True, False]
    """
    return (
        any(sign in text for sign in _HASTY_SIGNS)
        or not _HASTY_WORDS.isdisjoint([token.text for token in tokens])
        or _BEGINS_SMALL.match(text) is not None
        or _SIGN_OF_HASTE.search(text) is not None
        or (not text.isascii() and _PICTURE.search(text) is not None)
        or _is_short_without_end(text, tokens)
    )


def _is_short_without_end(text: str, tokens: Sequence[Token]) -> bool:
    return (
        len(text) <= _SHORT_CHARS
        and bool(tokens)
        and tokens[-1].text[0].isalpha()
        and "\n" not in text.strip()
        and sum(token.text[0].isalpha() for token in tokens) >= _SHORT_WORDS
    )


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """Inputs of the tagger for a batch, padded with zeros.

    Attributes:
        words: int32[batch, tokens], rows of the word table, 0 is padding.
        trigrams: int32[batch, tokens, TRIGRAM_SLOTS], rows of the trigram table.
        forms: int32[batch, tokens, 4], shape, gap before, gazetteer flags, case of the text.
    """

    words: Int32Array
    trigrams: Int32Array
    forms: Int32Array


class Featurizer:
    """Turns tokens into numbers, and remembers words that it has seen.

    Args:
        flags: Gazetteer flags by word hash, each 0 to 31.
    """

    def __init__(self, flags: Mapping[int, int]) -> None:
        self._flags = flags
        self._rows: dict[str, tuple[int, int, int, bytes]] = {}

    def flags_of(self, word: str) -> int:
        """Gazetteer flags of a word, 0 when unknown."""
        return self._row(word)[2]

    def is_ordinary(self, word: str) -> bool:
        """Whether people write this word in lower case in ordinary text."""
        return bool(self._row(word)[2] & ORDINARY)

    def arrays(self, texts: Sequence[str], token_lists: Sequence[Sequence[Token]]) -> TokenArrays:
        """Numbers for a batch of tokenised texts."""
        width = max(1, *(len(tokens) for tokens in token_lists))
        count = len(token_lists)
        words = np.zeros((count, width), np.int32)
        trigrams = np.zeros((count, width, TRIGRAM_SLOTS), np.int32)
        forms = np.zeros((count, width, 4), np.int32)
        for i, (text, tokens) in enumerate(zip(texts, token_lists, strict=True)):
            if not tokens:
                continue
            rows = [self._row(token.text) for token in tokens]
            length = len(rows)
            words[i, :length] = [row[0] for row in rows]
            trigrams[i, :length] = np.frombuffer(
                b"".join([row[3] for row in rows]), np.int32
            ).reshape(length, TRIGRAM_SLOTS)
            forms[i, :length, 0] = [row[1] for row in rows]
            forms[i, :length, 1] = _gaps(text, tokens)
            forms[i, :length, 2] = [row[2] for row in rows]
            forms[i, :length, 3] = case_of(tokens)
        return TokenArrays(words, trigrams, forms)

    def _row(self, word: str) -> tuple[int, int, int, bytes]:
        row = self._rows.get(word)
        if row is None:
            if len(self._rows) >= _CACHE_LIMIT:
                self._rows.clear()
            row = self._rows[word] = self._make_row(word)
        return row

    def _make_row(self, word: str) -> tuple[int, int, int, bytes]:
        code = word_hash(word)
        folded = word.casefold()[:20]
        framed = f"<{folded}>"
        grams = [
            1 + zlib.crc32(framed[i : i + 3].encode()) % (TRIGRAM_ROWS - 1)
            for i in range(min(len(framed) - 2, TRIGRAM_SLOTS))
        ]
        grams += [0] * (TRIGRAM_SLOTS - len(grams))
        trigrams = np.array(grams, np.int32).tobytes()
        return 1 + code % (WORD_ROWS - 1), shape_of(word), self._flags.get(code, 0), trigrams


def _gaps(text: str, tokens: Sequence[Token]) -> list[int]:
    """What stands before each token: 0 nothing, 1 a space, 2 a new line or the start."""
    gaps = [2]
    for last, token in itertools.pairwise(tokens):
        between = text[last.end : token.start]
        gaps.append(2 if "\n" in between else int(bool(between)))
    return gaps
