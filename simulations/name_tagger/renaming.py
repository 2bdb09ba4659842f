"""Gives real sentences other names, so that their contexts teach more names than they hold."""

import random

from simulations.name_tagger.generator import Sentence
from simulations.name_tagger.lexicon import Lexicon
from simulations.name_tagger.slots import Slots

_RENAMED_SHARE = 0.6
_UNKNOWN_SHARE = 0.35
_MADE_UP_SHARE = 0.6
_FIRST_SHARE = 0.7
_WORDS_MAX = 3


class Renamer:
    """Draws new names for persons.

    A third of the new names are in no list, made up or an ordinary word, so that a tagger learns
    to know a name by what stands around it.

    Args:
        lexicon: Word lists.
        chance: Seeded source of chance.
    """

    def __init__(self, lexicon: Lexicon, chance: random.Random) -> None:
        self._slots = Slots(lexicon, chance)
        self._chance = chance
        self._words = sorted(lexicon.ordinary)

    def rename(self, sentence: Sentence) -> Sentence:
        """Replaces the persons of most sentences; handles, tags and long names stay."""
        if self._chance.random() >= _RENAMED_SHARE:
            return sentence
        pieces: list[str] = []
        spans: list[tuple[int, int, str]] = []
        done = length = 0
        for start, end, label in sorted(sentence.spans):
            if start < done:
                continue
            value = sentence.text[start:end]
            if label == "PERSON" and not value.startswith(("@", "#")):
                value = self._other_name(value)
            pieces += [sentence.text[done:start], value]
            length += start - done
            spans.append((length, length + len(value), label))
            length, done = length + len(value), end
        pieces.append(sentence.text[done:])
        return Sentence("".join(pieces), tuple(spans), sentence.is_real)

    def _other_name(self, old: str) -> str:
        words = len(old.split())
        if words > _WORDS_MAX:
            return old
        if words == 1:
            name = self._name(is_first=self._chance.random() < _FIRST_SHARE)
        else:
            name = f"{self._name(is_first=True)} {self._name(is_first=False)}"
        if old.islower():
            return name.lower()
        return name.upper() if old.isupper() and len(old) > 1 else name

    def _name(self, *, is_first: bool) -> str:
        if self._chance.random() < _UNKNOWN_SHARE:
            if self._chance.random() < _MADE_UP_SHARE:
                return self._slots.made_up()
            return self._chance.choice(self._words).capitalize()
        return self._slots.first() if is_first else self._slots.last()
