"""What detectors read: the text without disguises, and a map back to the raw text.

Zero-width signs, full-width letters, foreign digits, look-alike letters, no-break spaces, unusual
dashes and inline escapes (`%40`, `&#64;`, a backslash-u escape) hide an address from a pattern but
not from a reader. Every character of the normalised text remembers where it came from.
"""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00b4": "'"}
_FOLDED = {**dict.fromkeys(_DASHES, "-"), **_QUOTES}
_INVISIBLE = frozenset("\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0")
_CONFUSABLES = dict(
    zip(
        "асеорхуѕіјԁһӏкмтвнАВЕКМНОРСТХУЅІЈοαειρτυνκΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
        "aceopxysijdhlkmtbhABEKMHOPCTXYSIJoaeiptuvkABEZHIKMNOPTYX",
        strict=True,
    )
)
_ESCAPE = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+"
    r"|&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});"
    r"|(?:\\u[0-9A-Fa-f]{4})+|\\x[0-9A-Fa-f]{2}"
)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>|<!--[^<>]{0,200}-->")
_RUN = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Normalised:
    """Text as detectors read it.

    Attributes:
        text: Normalised text.
        starts: Raw offset of each normalised character, and the raw length at the end; None when
            the text is its own normal form.
        has_bidi_control: True when the raw text holds signs that reorder what a reader sees.
    """

    text: str
    starts: Sequence[int] | None
    has_bidi_control: bool = False

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """Raw offsets of a normalised span; dropped signs inside and behind are included."""
        if self.starts is None:
            return start, end
        stop = end
        # One raw sign may have become several: never cut through it.
        while stop + 1 < len(self.starts) and self.starts[stop] == self.starts[end - 1]:
            stop += 1
        return self.starts[start], self.starts[stop]


def normalise(raw: str) -> Normalised:
    """Undo disguises and keep an index map.

    >>> normalise("bo\u200bb％40x.com").text
    'bob@x.com'
    >>> n = normalise("a\u200bb"); n.raw_span(1, 2)
    (2, 3)
    """
    if raw.isascii() and not _ESCAPE.search(raw):
        return Normalised(raw, None)
    folded = _fold_characters(raw)
    folded = _fold_look_alikes(folded)
    return _unescape(folded)


def without_tags(view: Normalised) -> Normalised | None:
    """The same text without markup tags, or None when it holds none.

    >>> without_tags(Normalised("41<b>11</b>", None)).text
    '4111'
    """
    if "<" not in view.text or not _TAG.search(view.text):
        return None
    return _replace(view, [(m.start(), m.end(), "") for m in _TAG.finditer(view.text)])


@lru_cache(maxsize=8192)
def _fold(character: str) -> str:
    category = unicodedata.category(character)
    is_variation = "\ufe00" <= character <= "\ufe0f"
    if category == "Cf" or is_variation or character in _INVISIBLE:
        return ""
    if category == "Zs":
        return " "
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    return _FOLDED.get(character) or unicodedata.normalize("NFKC", character)


def _fold_characters(raw: str) -> Normalised:
    if raw.isascii():
        return Normalised(raw, None)
    pieces: list[str] = []
    starts: list[int] = []
    for position, character in enumerate(raw):
        piece = character if character < "\x80" else _fold(character)
        pieces.append(piece)
        starts.extend([position] * len(piece))
    starts.append(len(raw))
    return Normalised("".join(pieces), starts, not _BIDI.isdisjoint(raw))


def _fold_look_alikes(view: Normalised) -> Normalised:
    """Map look-alike letters, only in runs that hold plain Latin letters as well."""
    if view.text.isascii():
        return view

    def latin(match: re.Match[str]) -> str:
        run = match[0]
        if run.isascii() or not any("a" <= c.lower() <= "z" for c in run):
            return run
        return "".join(_CONFUSABLES.get(c, c) for c in run)

    return Normalised(_RUN.sub(latin, view.text), view.starts, view.has_bidi_control)


def _unescape(view: Normalised) -> Normalised:
    edits = []
    for match in _ESCAPE.finditer(view.text):
        plain = _decoded(match[0])
        if plain is not None:
            edits.append((match.start(), match.end(), plain))
    return _replace(view, edits) if edits else view


def _decoded(escape: str) -> str | None:
    try:
        if escape[0] == "%":
            return bytes.fromhex(escape.replace("%", "")).decode()
        if escape[0] == "&":
            plain = html.unescape(escape)
            return None if plain == escape else plain
        if escape[1] == "x":
            return chr(int(escape[2:], 16))
        units = bytes.fromhex(escape.replace("\\u", ""))
        return units.decode("utf-16-be")
    except ValueError:
        return None


def _replace(view: Normalised, edits: Sequence[tuple[int, int, str]]) -> Normalised:
    """Apply edits to a view; each new character points at the start of what it replaces."""
    starts = view.starts if view.starts is not None else range(len(view.text) + 1)
    pieces: list[str] = []
    mapped: list[int] = []
    done = 0
    for start, end, plain in edits:
        pieces += [view.text[done:start], plain]
        mapped += list(starts[done:start]) + [starts[start]] * len(plain)
        done = end
    pieces.append(view.text[done:])
    mapped += list(starts[done:])
    return Normalised("".join(pieces), mapped, view.has_bidi_control)
