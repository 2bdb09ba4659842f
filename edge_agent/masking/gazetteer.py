"""Names and places known by hash, and rules that need no model.

The pack holds 32-bit hashes only, so nobody reads a name list out of it. A word may be a name and
an ordinary word at once ("Rose", "Mark"); flags say so, and rules ask for more evidence then.
"""

import io
import re
from collections.abc import Mapping, Sequence
from enum import IntFlag

import numpy as np

from edge_agent.masking import tokens as token_rules
from edge_agent.masking.findings import Finding
from edge_agent.masking.peoples import find_peoples
from edge_agent.masking.tokens import Featurizer, Token


class Flag(IntFlag):
    """What a word may be."""

    FIRST_NAME = 1
    LAST_NAME = 2
    PLACE = 4
    ORDINARY = token_rules.ORDINARY
    ORGANIZATION = 16


# Plain integers: flag arithmetic on enum members takes most of the time otherwise.
_FIRST, _LAST, _PLACE, _ORDINARY = (
    int(flag) for flag in (Flag.FIRST_NAME, Flag.LAST_NAME, Flag.PLACE, Flag.ORDINARY)
)

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|januar|februar|märz|mai|juni|juli|oktober|dezember|enero|"
    r"febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre)"
)
# Only words with the first letter of a month are tried, which takes half the time.
_DATE = re.compile(
    r"\b(?=[\djfmasonde])(?:"
    rf"\d{{1,2}}(?:st|nd|rd|th|\.)?\s+(?:of\s+|de\s+)?{_MONTH}\b\.?(?:,?\s+(?:de\s+)?(?:19|20)\d\d)?"
    rf"|{_MONTH}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s+(?:19|20)\d\d)?"
    rf"|{_MONTH}\.?,?\s+(?:19|20)\d\d\b"
    r"|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b(?:[T ]\d{1,2}:\d{2}(?::\d{2})?)?)",
    re.IGNORECASE,
)
_WEEKDAY = re.compile(
    r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b"
)
_YEAR = re.compile(r"(?<![\d.,$€£#-])(?:19[0-9]{2}|20[0-4][0-9])(?!\d|[.,]\d|-?(?:bit|px|ms|kg))")
_AGE = re.compile(
    r"\b(?P<a>\d{1,3})(?=[ -]?(?:years?|yrs?|months?)[ -](?:olds?|of age)\b|[ -]?y/?o\b)"
    r"|\b(?:aged?|turned|turning|turns|alter|edad(?: de)?)\s*:?\s+(?:of )?(?P<b>\d{1,3})\b"
    r"|\b(?:(?:i|he|she|they) (?:am|is|are|was|were)|i'm|he's|she's)\s+(?P<c>\d{2})\b"
    r"(?![:%.]\d|\s*(?:%|am|pm|minutes|hours|km|kg|miles|percent))"
    r"|\b(?P<d>\d{1,3})(?: Jahre alt|-jährig| años)\b",
    re.IGNORECASE,
)
_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sir|Herr|Frau|Señor|Señora|Sr|Sra)\b\.?(?=\s+\w)")
_ZIP = re.compile(
    r"\b(?:zip(?: ?code)?|post(?:al)? ?code|postcode|plz)\b\s*(?:is|was|[:#=])?\s*"
    r"(?P<v>[\w-]*\d[\w-]*(?: \d{2,4}| [A-Z]{2})?)",
    re.IGNORECASE,
)
_BOX = re.compile(
    r"\b(?:P\.? ?O\.? Box|PSC \d+,? Box|Unit \d+ Box|Apt\.?|Apartment|Suite|Flat)\s*#?\d+\b"
    r"(?:\s*,?\s*(?:[AFD]PO)\s+[A-Z]{2}\b)?",
    re.IGNORECASE,
)
_STREET = re.compile(
    r"\b\d{1,6}[A-Za-z]?,?\s+(?:[A-ZÀ-Þ][\w.'’-]*\s+){1,4}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|"
    r"Drive|Dr|Court|Ct|Place|Pl|Way|Boulevard|Blvd|Terrace|Square|Sq|Close|Crescent|Highway|Hwy|"
    r"Parkway)\b\.?"
    r"|\b[A-ZÀ-Þ][\w-]*(?:straße|strasse|str\.|weg|gasse|allee|platz|straat|laan|gatan|vägen|vej|"
    r"gade)\s+\d{1,4}\w?\b"
    r"|\b(?:Calle|Avenida|Avda\.?|Rue|Via|Rua|Plaza|Piazza|Paseo)\s+(?:\w+\s+){1,4}\d{1,4}\b"
)
_CORNER = re.compile(r"\b(?:[Tt]he )?[Cc]orner of (?=\d|[A-ZÀ-Þ]|ul\.)")
_INTRODUCED = re.compile(
    r"\b(?i:my name is|name's|i am called|call me|this is|name\s*:|dear|hi|hello|hey|regards,?|"
    r"sincerely,?|thanks,?|cheers,?|signed,?|patient\s*:?|customer\s*:?|"
    r"mein name ist|ich heiße|liebe[r]?|me llamo|mi nombre es|estimad[oa]|contact\s*:?|"
    r"attn\.?:?|cc\s*:|from\s*:|to\s*:|c/o)\s+"
    r"(?P<name>[A-ZÀ-Þ][\w'’-]+"
    r"(?:[ \t]+(?:[A-ZÀ-Þ][\w'’-]+|[A-ZÀ-Þ]\b\.?|(?:van|von|de|der|la|bin|al)\b)){0,3})"
)


class RuleDetector:
    """Finds names, places, dates, ages and addresses by word lists and patterns.

    Args:
        featurizer: Knows the gazetteer flags of words.
    """

    description = "rules:2"

    def __init__(self, featurizer: Featurizer) -> None:
        self._featurizer = featurizer

    def find(self, text: str, tokens: Sequence[Token]) -> list[Finding]:
        """Findings in normalised text, given its tokens."""
        findings = list(_pattern_findings(text))
        findings += find_peoples(text)
        findings += self._names(text, tokens)
        for match in _INTRODUCED.finditer(text):
            if self._may_be_name(match["name"]):
                findings.append(Finding(*match.span("name"), "PERSON", 0.6))
        return findings

    def _may_be_name(self, phrase: str) -> bool:
        first = re.match(r"[^\W\d_]+", phrase)
        return first is not None and not self._featurizer.flags_of(first[0]) & _ORDINARY

    def _names(self, text: str, tokens: Sequence[Token]) -> list[Finding]:
        """First name then capitalised word, two listed names in a row, lone listed places."""
        flags = [self._featurizer.flags_of(token.text) for token in tokens]
        findings = []
        for here, token in enumerate(tokens):
            if not flags[here] & (_FIRST | _LAST | _PLACE):
                continue
            there = _next_name_part(text, tokens, here)
            if there is None:
                if _is_lone_place(flags[here], token.text):
                    findings.append(Finding(token.start, token.end, "LOCATION", 0.35))
                continue
            if _is_pair(flags[here], flags[there], token.text, tokens[there].text):
                findings.append(Finding(token.start, tokens[there].end, "PERSON", 0.5))
        return findings


def _pattern_findings(text: str) -> list[Finding]:
    findings = []
    for pattern, entity_type, score in _PATTERNS:
        for match in pattern.finditer(text):
            start, end = match.span(match.lastgroup or 0)
            findings.append(Finding(start, end, entity_type, score))
    return findings


_PATTERNS = (
    (_DATE, "DATE_TIME", 0.5),
    (_WEEKDAY, "DATE_TIME", 0.3),
    (_YEAR, "DATE_TIME", 0.3),
    (_AGE, "AGE", 0.5),
    (_TITLE, "TITLE", 0.4),
    (_ZIP, "ZIP_CODE", 0.6),
    (_BOX, "LOCATION", 0.6),
    (_STREET, "LOCATION", 0.6),
    (_CORNER, "LOCATION", 0.3),
)


def _next_name_part(text: str, tokens: Sequence[Token], here: int) -> int | None:
    """Index of the word that may follow as a last name; an initial in between is skipped."""
    there = here + 1
    if there < len(tokens) and len(tokens[there].text) == 1 and tokens[there].text.isalpha():
        there += 1
        if there < len(tokens) and tokens[there].text == ".":
            there += 1
    if there >= len(tokens) or not tokens[there].text[0].isalpha():
        return None
    between = text[tokens[here].end : tokens[there].start]
    return there if len(between) <= 4 and "\n" not in between else None


def _is_pair(first: int, second: int, word: str, following: str) -> bool:
    if word[0].isupper() and following[0].isupper() and first & (_FIRST | _LAST):
        return bool(first & _FIRST and not (first & second & _ORDINARY)) or bool(
            second & _LAST and not first & _ORDINARY
        )
    both_listed = first & _FIRST and second & _LAST
    return bool(both_listed) and not (first | second) & _ORDINARY


def _is_lone_place(flags: int, word: str) -> bool:
    return flags & ~_LAST == _PLACE and len(word) > 3 and word[0].isupper()


def save_flags(flags: Mapping[int, int]) -> bytes:
    """Serialise a gazetteer: sorted hashes and flags, compressed NumPy archive."""
    codes = np.array(sorted(flags), np.uint32)
    values = np.array([flags[int(code)] for code in codes], np.uint8)
    target = io.BytesIO()
    np.savez_compressed(target, codes=codes, values=values)
    return target.getvalue()


def load_flags(content: bytes) -> dict[int, int]:
    """Read a gazetteer that `save_flags` wrote.

    >>> load_flags(save_flags({7: 1, 3: 8}))
    {3: 8, 7: 1}
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(zip(archive["codes"].tolist(), archive["values"].tolist(), strict=True))
