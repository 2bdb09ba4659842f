"""Presidio with an explicit registry and a light engine of our own: no model, no network.

What differs from presidio's defaults, and why:

- Words reach the context enhancer as lower-cased tokens; with a blank pipeline it never fires.
- Each recogniser runs only when the text holds the signs that its patterns need.
- The phone recogniser sees windows of digits only; on whole texts it takes most of the time.
- A pattern that times out is an error here; presidio logs a warning and answers "nothing found".
- The public-suffix list is the packaged one; otherwise the first e-mail asks the network for it.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.masking.errors import DetectorError, MaskingConfigError
from edge_agent.masking.findings import Finding

os.environ["TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS"] = ""
os.environ.setdefault("REGEX_TIMEOUT_SECONDS", "5")

from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer import predefined_recognizers as recognizers
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts

MIN_SCORE = 0.35
CHUNK_CHARS = 2000
OVERLAP_CHARS = 200

_WORD = re.compile(r"\w+|[^\w\s]")
_DIGIT_WINDOW = re.compile(r"[+(]*\d(?:[\s.\-/()]{0,3}\d){5,}")
_PHONE_DIGITS = 15
_NO_ARTIFACTS: Any = None
_PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR", "ES")


@dataclass(frozen=True, slots=True)
class _Gate:
    """A recogniser and the pattern without which it cannot find anything."""

    recognizer: EntityRecognizer
    needs: re.Pattern[str]


class _LightEngine:
    """The two questions that presidio asks an engine while it collects context words."""

    def is_stopword(self, word: str, _language: str) -> bool:
        return len(word) < 2

    def is_punct(self, word: str, _language: str) -> bool:
        return not word[:1].isalnum()


class _TimeoutListener(logging.Handler):
    """Remembers that presidio swallowed a time-out."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard = False

    def emit(self, record: logging.LogRecord) -> None:
        self.heard = self.heard or "timed out" in str(record.msg)


class PresidioDetector:
    """Patterns and checksums of presidio behind one call.

    Args:
        languages: Primary language tags; they add national recognisers.
        entities: Names of entity types to report; empty for all that the registry knows.

    Raises:
        MaskingConfigError: `entities` names a type that no recogniser can find.
    """

    def __init__(self, languages: Sequence[str] = ("en",), entities: Sequence[str] = ()) -> None:
        self._gates = tuple(_gates(languages))
        known = {e for gate in self._gates for e in gate.recognizer.supported_entities}
        if unknown := sorted(set(entities) - known):
            raise MaskingConfigError(
                f"no recogniser finds {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            )
        self._wanted = frozenset(entities) or frozenset(known)
        self._enhancer = LemmaContextAwareEnhancer(context_matching_mode="whole_word")
        self._recognizers = [gate.recognizer for gate in self._gates]
        self._phone: Any = next(
            r for r in self._recognizers if isinstance(r, recognizers.PhoneRecognizer)
        )
        self._listener = _TimeoutListener()
        logger = logging.getLogger("presidio-analyzer")
        logger.addHandler(self._listener)
        logger.propagate = False

    @property
    def description(self) -> str:
        """Names of what runs, for the detector digest."""
        names = ",".join(sorted(type(r).__name__ for r in self._recognizers))
        return f"presidio:{names}:{','.join(sorted(self._wanted))}:{MIN_SCORE}"

    def find(self, text: str) -> list[Finding]:
        """Find structured personal data in normalised text, chunk by chunk.

        Raises:
            DetectorError: A pattern ran out of time, so its answer would be a guess.
        """
        findings = []
        for offset in range(0, max(1, len(text)), CHUNK_CHARS):
            low = max(0, offset - OVERLAP_CHARS)
            findings += self._find_chunk(text[low : offset + CHUNK_CHARS], low)
        return findings

    def _find_chunk(self, text: str, offset: int) -> list[Finding]:
        results: list[RecognizerResult] = []
        self._listener.heard = False
        for gate in self._gates:
            if gate.needs.search(text):
                results += self._run(gate.recognizer, text)
        if self._listener.heard:
            raise DetectorError("a pattern ran out of time")
        if not results:
            return []
        return [
            Finding(r.start + offset, r.end + offset, r.entity_type, float(r.score))
            for r in self._with_context(text, results)
            if r.score >= MIN_SCORE and r.entity_type in self._wanted
        ]

    def _run(self, recognizer: EntityRecognizer, text: str) -> list[RecognizerResult]:
        entities = recognizer.supported_entities
        if recognizer is not self._phone:
            return list(recognizer.analyze(text, entities, _NO_ARTIFACTS))
        results = []
        for low, high in _digit_windows(text):
            found = self._phones(text[low:high])
            for result in found:
                result.start += low
                result.end += low
            results += found
        return results

    def _phones(self, window: str) -> list[RecognizerResult]:
        """Phones in a window: regions in turn until one fits; a plus sign needs no region."""
        if sum(sign.isdigit() for sign in window) > _PHONE_DIGITS and "+" not in window:
            return []
        regions = _PHONE_REGIONS[:1] if window.lstrip().startswith("+") else _PHONE_REGIONS
        for region in regions:
            self._phone.supported_regions = (region,)
            found = list(self._phone.analyze(window, self._phone.supported_entities, _NO_ARTIFACTS))
            if found:
                return found
        return []

    def _with_context(self, text: str, results: list[RecognizerResult]) -> list[RecognizerResult]:
        by_id = {r.id: r for r in self._recognizers}
        identifier = RecognizerResult.RECOGNIZER_IDENTIFIER_KEY
        # Only a weak answer needs context; a sure one would pay for a deep copy.
        weak: list[RecognizerResult] = []
        sure: list[RecognizerResult] = []
        for result in results:
            recognizer = by_id[result.recognition_metadata[identifier]]
            is_weak = result.score < MIN_SCORE and recognizer.context
            (weak if is_weak else sure).append(result)
        if not weak:
            return sure
        artifacts = _artifacts(text)
        return sure + self._enhancer.enhance_using_context(text, weak, artifacts, self._recognizers)


def _artifacts(text: str) -> NlpArtifacts:
    """Tokens, with their lower-cased form as lemma so that context words can match."""
    words = [(m[0], m.start()) for m in _WORD.finditer(text)]
    tokens: Any = [word for word, _ in words]
    return NlpArtifacts(
        entities=[],
        tokens=tokens,
        tokens_indices=[start for _, start in words],
        lemmas=[word.lower() for word, _ in words],
        nlp_engine=_LightEngine(),
        language="en",
    )


def _digit_windows(text: str) -> Iterator[tuple[int, int]]:
    """Stretches with six or more digits, with a little room, merged where they touch."""
    last: tuple[int, int] | None = None
    for match in _DIGIT_WINDOW.finditer(text):
        low, high = max(0, match.start() - 2), min(len(text), match.end() + 12)
        if last is not None and low <= last[1]:
            last = (last[0], high)
            continue
        if last is not None:
            yield last
        last = (low, high)
    if last is not None:
        yield last


def _gates(languages: Sequence[str]) -> Iterator[_Gate]:
    for name, needs in _REGISTRY:
        yield _gate(name, needs)
    for language in languages:
        for name, needs in _NATIONAL.get(language, ()):
            yield _gate(name, needs)


def _gate(name: str, needs: str) -> _Gate:
    recognizer: EntityRecognizer = (
        recognizers.PhoneRecognizer(supported_regions=_PHONE_REGIONS)
        if name == "PhoneRecognizer"
        else getattr(recognizers, name)()
    )
    return _Gate(recognizer, re.compile(needs))


# Driver licences and bank numbers are left out: their patterns match ordinary words, and the
# catch-alls mask every long number and every mixed sign anyway.
_REGISTRY = (
    ("CreditCardRecognizer", r"\d(?:[ -]?\d){11}"),
    ("CryptoRecognizer", r"(?:bc1|[13])[a-zA-HJ-NP-Z0-9]{24}"),
    ("DateRecognizer", r"\d[-/.]\d|\d{1,2}[-/. ]?[A-Za-z]{3}|\d{4}"),
    ("EmailRecognizer", r"@"),
    ("IbanRecognizer", r"[A-Za-z]{2}\d{2}"),
    ("IpRecognizer", r"\d\.\d|:[0-9A-Fa-f]{0,4}:"),
    ("MacAddressRecognizer", r"[0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}"),
    ("PhoneRecognizer", r"\d(?:[^\w\n]{0,3}\d){5}"),
    ("UrlRecognizer", r"\w\.[A-Za-z]{2}"),
    ("UuidRecognizer", r"[0-9A-Fa-f]{8}-"),
    ("MedicalLicenseRecognizer", r"[A-Za-z]{2}\d{7}|[A-Za-z]9\d{7}"),
    ("NhsRecognizer", r"\d{3}[- ]?\d{3}[- ]?\d{4}"),
    ("UsItinRecognizer", r"9\d{2}[- ]?[5-9]\d"),
    ("UsPassportRecognizer", r"\d{8}"),
    ("UsSsnRecognizer", r"\d{3}[-. ]?\d{2}[-. ]?\d{4}|\d{9}"),
)
_NATIONAL = {
    "de": (
        ("DeTaxIdRecognizer", r"\d{2}[ ]?\d{3}[ ]?\d{3}"),
        ("DeSocialSecurityRecognizer", r"\d{8}[A-Za-z]\d{3}|\d{2} \d{6} [A-Za-z]"),
        ("DeKfzRecognizer", r"[A-Za-zÄÖÜäöü]{1,3}[ -][A-Za-z]{1,2}[ -]?\d"),
    ),
    "es": (
        ("EsNifRecognizer", r"\d{7}-?[A-Za-z0-9]"),
        ("EsNieRecognizer", r"[XYZxyz]-?\d{7}"),
    ),
}
