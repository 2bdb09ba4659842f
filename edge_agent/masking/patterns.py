"""Catch-alls: what is masked by its shape alone, whatever it turns out to be.

Presidio asks whether a number *is* a valid card or phone. A person who must not see personal data
asks the opposite: may this number be shown? Long numbers, anything with an at sign, mixed signs,
secrets and encoded stretches may not.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator

from edge_agent.masking.findings import Finding

VERSION = "catch-alls:1"

_SEPARATOR = r"(?:[ \t\n.\-/_]|\) ?| ?- ?|\r\n)?"
_NUMBER = re.compile(rf"[+(]{{0,2}}(?<!\d)\d(?:{_SEPARATOR}\(?\d){{4,}}")
_EMAIL = re.compile(r"[^\s@<>\"'(),;:\[\]]{1,64}@[^\s@<>\"'(),;:\[\]]{1,253}")
_HANDLE = re.compile(r"(?<![\w@])@\w{2,64}")
_SPELLED_EMAIL = re.compile(
    r"[\w.+-]{1,64}\s*[\[({]?\s*\b(?:at)\b\s*[\])}]?\s*[\w-]{1,63}"
    r"(?:\s*[\[({]?\s*\b(?:dot|punkt|punto)\b\s*[\])}]?\s*[\w-]{1,63}){1,4}",
    re.IGNORECASE,
)
_NUMBER_WORD = (
    r"(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|null|eins|zwei|drei|vier|fünf|sechs|"
    r"sieben|acht|neun|cero|uno|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|double|triple|plus)"
)
_SPOKEN_NUMBER = re.compile(rf"\b{_NUMBER_WORD}(?:[\s,.-]{{1,2}}{_NUMBER_WORD}){{4,}}\b", re.I)
_SECRET = re.compile(
    r"\b(?:password|passwd|passcode|passphrase|pwd|api[_ -]?key|secret|token|passwort|kennwort|"
    r"contraseña|pin(?: code| number)?)\b[\"']?\s*(?:is|was|ist|es|[:=])+\s*[\"']?(?P<value>\S{3,})"
    r"|\b(?P<key>(?:sk|pk|ghp|gho|xox[abp]|AKIA|ASIA|eyJ)[A-Za-z0-9_\-.]{12,})",
    re.IGNORECASE,
)
_MIXED = re.compile(
    r"(?<![\w<])(?=[A-Za-z0-9\-_/]{0,30}\d[A-Za-z\-_/]{0,4}\d)(?=[\d\-_/]{0,30}[A-Za-z])"
    r"[A-Za-z0-9]+(?:[-_/]?[A-Za-z0-9]+)*"
)
_LABELLED = re.compile(
    r"\b(?i:plate|registration|licen[cs]e|vin|kennzeichen|matr[ií]cula|mrn|staff|employee|badge|"
    r"patient|customer|member|policy|passport|account|acct|permit|student|personal)\b"
    r"(?:\s+(?i:id|no|nr|number|num|plate|code|ref)\b)?\.?\s*(?i:is|was|[:#=])?\s*#?"
    r"(?P<value>[A-Z0-9]{1,4}[A-Z0-9 \-]{0,9}\d[A-Z0-9]{0,8}(?![a-z]))"
)
_PLATE = re.compile(r"(?<![\w-])[A-ZÄÖÜ]{1,3}[- ][A-Z]{1,2}[ -]?\d{1,4}[EH]?(?![\w-])")
_POSTCODE = re.compile(
    r"\b(?:[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[ABCEGHJ-NPRSTVXY]\d[A-Z] ?\d[A-Z]\d|\d{4} ?[A-Z]{2})\b"
)
_URL = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"']{2,}", re.IGNORECASE)
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{24,}={0,2}")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:/\d{1,3})?(?![\w:])")
_TRAILING = ".,;:!?)]}>'\""


def luhn_valid(digits: str) -> bool:
    """True when a run of digits passes the Luhn check (ISO/IEC 7812-1, annex B).

    >>> luhn_valid("4111111111111111"), luhn_valid("4111111111111112")
    (True, False)
    """
    total = 0
    for position, sign in enumerate(reversed(digits)):
        value = int(sign) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def find(text: str) -> list[Finding]:
    """Everything that shape alone gives away, in normalised text.

    >>> [f.entity_type for f in find("root@plant7.internal, 4111 1111 1111 1111")]
    ['EMAIL_ADDRESS', 'CREDIT_CARD']
    """
    findings: list[Finding] = []
    has_digit = any(sign in text for sign in "0123456789")
    if "@" in text:
        findings += _matches(_EMAIL, text, "EMAIL_ADDRESS", 0.95)
        findings += _matches(_HANDLE, text, "HANDLE", 0.6)
    if has_digit:
        findings += _numbers(text)
        findings += _matches(_MIXED, text, "ID", 0.5, keep=_is_mixed)
        findings += _grouped(_LABELLED, text, "ID", 0.55)
        findings += _matches(_PLATE, text, "ID", 0.4)
        findings += _matches(_POSTCODE, text, "ZIP_CODE", 0.5)
    if ":" in text:
        findings += _matches(_URL, text, "URL", 0.6)
        findings += _matches(_IPV6, text, "IP_ADDRESS", 0.5, keep=_is_ipv6)
    findings += _without_digits(text)
    return findings


def _without_digits(text: str) -> Iterator[Finding]:
    yield from _grouped(_SECRET, text, "SECRET", 0.8)
    folded = text.casefold()
    if "dot" in folded or "punkt" in folded or "punto" in folded:
        yield from _matches(_SPELLED_EMAIL, text, "EMAIL_ADDRESS", 0.7)
    if "www." in folded:
        yield from _matches(_URL, text, "URL", 0.6)
    yield from _matches(_SPOKEN_NUMBER, text, "NUMBER", 0.6)


def _matches(
    pattern: re.Pattern[str],
    text: str,
    entity_type: str,
    score: float,
    *,
    keep: Callable[[str], bool] | None = None,
) -> Iterator[Finding]:
    for match in pattern.finditer(text):
        value = match[0].rstrip(_TRAILING)
        if value and (keep is None or keep(value)):
            yield Finding(match.start(), match.start() + len(value), entity_type, score)


def _grouped(
    pattern: re.Pattern[str], text: str, entity_type: str, score: float
) -> Iterator[Finding]:
    for match in pattern.finditer(text):
        start, end = match.span(match.lastgroup or 0)
        while end > start and text[end - 1] in _TRAILING:
            end -= 1
        if end > start:
            yield Finding(start, end, entity_type, score)


def _numbers(text: str) -> Iterator[Finding]:
    """Five and more digits, however they are grouped; a card when the Luhn check passes."""
    for match in _NUMBER.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if 12 <= len(digits) <= 19 and luhn_valid(digits):
            yield Finding(match.start(), match.end(), "CREDIT_CARD", 0.9)
        elif not _is_amount(text, match, digits):
            yield Finding(match.start(), match.end(), "NUMBER", 0.3)


def _is_amount(text: str, match: re.Match[str], digits: str) -> bool:
    """A sum of money, or a short enumeration such as `1 2 3 4 5`, is no identifier."""
    before = text[max(0, match.start() - 2) : match.start()]
    if any(sign in before for sign in "$€£¥") and len(digits) <= 9 and match[0].isdecimal():
        return True
    groups = re.findall(r"\d+", match[0])
    return len(digits) < 7 and max(map(len, groups)) < 3 and len(groups) > 3


def _is_mixed(value: str) -> bool:
    digit_count = sum(sign.isdigit() for sign in value)
    letter_count = sum(sign.isalpha() for sign in value)
    if _ORDINAL.fullmatch(value):
        return False
    return digit_count >= 2 and letter_count >= 1 and digit_count + letter_count >= 5


_ORDINAL = re.compile(
    r"\d+(?:st|nd|rd|th|s|ms|kg|km|mg|ml|mm|cm|am|pm|hrs?|min|days?|years?|months?|weeks?|bit|gb|mb|kb"
    r"|[-/ ](?:hour|day|week|month|year|minute)s?)",
    re.IGNORECASE,
)


def _is_ipv6(value: str) -> bool:
    return value.count(":") >= 2 and ("::" in value or value.count(":") == 7) and len(value) > 3


def encoded_stretches(text: str) -> Iterator[tuple[int, int, str]]:
    """Base64 stretches of 24 and more signs that decode to text: start, end, the text.

    >>> list(encoded_stretches("x Ym9iQGV4YW1wbGUuY29tIGlzIG1l y"))
    [(2, 30, 'bob@example.com is me')]
    """
    for match in _BASE64.finditer(text):
        plain = _plain_text(match[0])
        if plain is not None:
            yield match.start(), match.end(), plain


def _plain_text(blob: str) -> str | None:
    body = blob.rstrip("=").replace("-", "+").replace("_", "/")
    if len(body) % 4 == 1:
        return None
    try:
        plain = base64.b64decode(body + "=" * (-len(body) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return plain if all(c.isprintable() or c in "\n\r\t" for c in plain) else None
