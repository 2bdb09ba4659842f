"""Labelled sentences from templates: exact spans, exact seed, as many as wanted."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from simulations.name_tagger.lexicon import Lexicon
from simulations.name_tagger.slots import LABEL_OF_SLOT, Slots

_FOLDER = Path(__file__).parent / "templates"
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_LANGUAGE_SHARES = {"en": 0.80, "de": 0.12, "es": 0.08}
_NEGATIVE_SHARE, _COMMENT_SHARE = 0.28, 0.20
_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text with labelled stretches: start, end (exclusive), label.

    Attributes:
        text: The text.
        spans: Labelled stretches.
        is_real: Whether a person wrote it; training then varies the names in it.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...]
    is_real: bool = False


@cache
def templates(name: str) -> tuple[str, ...]:
    """Template lines of a file in the templates folder."""
    lines = (_FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    return tuple(
        line.replace("\\n", "\n").replace("\\t", "\t")
        for line in lines
        if line and not line.startswith("# ")
    )


def generate(
    lexicon: Lexicon, *, count: int, seed: int, languages: dict[str, float] | None = None
) -> Iterator[Sentence]:
    """Make labelled texts of one to three sentences.

    Args:
        lexicon: Word lists.
        count: How many texts.
        seed: Same seed, same texts.
        languages: Share of each language; English mostly by default.
    """
    chance = random.Random(seed)
    shares = languages or _LANGUAGE_SHARES
    slots = {language: Slots(lexicon, chance, language) for language in shares}
    for _ in range(count):
        language = chance.choices(tuple(shares), tuple(shares.values()))[0]
        yield disguise(_text(slots[language], chance, language), chance)


def fill(template: str, slots: Slots, chance: random.Random) -> Sentence:
    """Fill one template.

    A slot that occurs twice gets two values, except `first`, which repeats half of the time.
    """
    plain = _CHOICE.sub(lambda m: chance.choice(m[1].split("|")), template)
    plain = plain.replace("{{", "\x01").replace("}}", "\x02")
    pieces: list[str] = []
    spans: list[tuple[int, int, str]] = []
    done = length = 0
    known_first = ""
    for match in _SLOT.finditer(plain):
        value = slots.fill(match[1])
        if match[1] == "first":
            value = known_first if known_first and chance.random() < 0.5 else value
            known_first = value
        literal = plain[done : match.start()]
        pieces += [literal, value]
        length += len(literal)
        label = LABEL_OF_SLOT.get(match[1])
        if label is not None:
            spans.append((length, length + len(value), label))
        length += len(value)
        done = match.end()
    pieces.append(plain[done:])
    text = "".join(pieces).replace("\x01", "{").replace("\x02", "}")
    return Sentence(text, tuple(spans))


def disguise(sentence: Sentence, chance: random.Random) -> Sentence:
    """Write a text as hurried people do: small letters, capitals, no signs, typing errors."""
    roll = chance.random()
    if roll < 0.22:
        changed = sentence.text.lower()
    elif roll < 0.26:
        changed = sentence.text.upper()
    elif roll < 0.30:
        changed = re.sub(r"[.,!?;:]", " ", sentence.text)
    elif roll < 0.37:
        changed = _names_in_small_letters(sentence)
    elif roll < 0.39:
        changed = sentence.text.title()
    elif roll < 0.47:
        changed = _mistyped(sentence, chance)
    else:
        return sentence
    # A few letters change their length with their case; such texts stay as they are.
    return replace(sentence, text=changed) if len(changed) == len(sentence.text) else sentence


def _names_in_small_letters(sentence: Sentence) -> str:
    text = sentence.text
    for start, end, label in sentence.spans:
        if label == "PERSON":
            text = text[:start] + text[start:end].lower() + text[end:]
    return text


def _mistyped(sentence: Sentence, chance: random.Random) -> str:
    """Two letters of some harmless words change places, so that an odd word is no name yet."""
    letters = list(sentence.text)
    for match in _WORD.finditer(sentence.text):
        is_labelled = any(a < match.end() and match.start() < b for a, b, _ in sentence.spans)
        if not is_labelled and chance.random() < 0.25:
            first = chance.randint(match.start() + 1, match.end() - 2)
            letters[first], letters[first + 1] = letters[first + 1], letters[first]
    return "".join(letters)


def _text(slots: Slots, chance: random.Random, language: str) -> Sentence:
    count = chance.choices((1, 2, 3), (0.72, 0.2, 0.08))[0]
    parts = [_sentence(slots, chance, language) for _ in range(count)]
    text = ""
    spans: list[tuple[int, int, str]] = []
    for part in parts:
        text += chance.choice((" ", " ", "\n")) if text else ""
        spans += [(a + len(text), b + len(text), label) for a, b, label in part.spans]
        text += part.text
    return Sentence(text, tuple(spans))


def _sentence(slots: Slots, chance: random.Random, language: str) -> Sentence:
    kind = language
    if language == "en":
        roll = chance.random()
        is_negative, is_comment = roll < _NEGATIVE_SHARE, roll < _NEGATIVE_SHARE + _COMMENT_SHARE
        kind = "negatives" if is_negative else "comments" if is_comment else "en"
    return fill(chance.choice(templates(kind)), slots, chance)
