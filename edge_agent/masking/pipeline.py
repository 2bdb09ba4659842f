"""The built-in chain in this process: normalise, detect, unite, replace, verify."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from importlib import metadata

from edge_agent.masking import patterns
from edge_agent.masking.detectors import Detector, load_detector
from edge_agent.masking.findings import (
    Finding,
    every_occurrence,
    join_neighbours,
    join_pairs,
    occurrences,
    small_letters,
    union,
    values_of,
    whole_words,
    without_allowed,
)
from edge_agent.masking.gazetteer import RuleDetector
from edge_agent.masking.normalise import Normalised, normalise, without_tags
from edge_agent.masking.pack import Pack, Threshold, load_pack
from edge_agent.masking.placeholders import raw_span, replace, without_placeholders
from edge_agent.masking.policy import MaskingPolicy
from edge_agent.masking.presidio_engine import PresidioDetector
from edge_agent.masking.seam import (
    POLICY_VERSION,
    Held,
    HeldReason,
    Masked,
    MaskedSpan,
    MaskReport,
    count_band,
)
from edge_agent.masking.tagger import NameTagger
from edge_agent.masking.tokens import Featurizer, Token, tokenize

_FOREIGN_SHARE = 0.3
_UNSTATED = Threshold(0.5, 0.5, 0.5, 0.5)


class BuiltinMasker:
    """Masks in the calling process. The daemon uses it through a child process.

    Args:
        policy: What to mask and how eagerly.

    Raises:
        PackError: The model pack is missing or altered.
        MaskingConfigError: The policy names an unknown entity type or detector.
    """

    def __init__(self, policy: MaskingPolicy) -> None:
        self._policy = policy
        self._pack = load_pack(policy.pack_folder, expected_sha256=policy.pack_sha256)
        self._featurizer = Featurizer(self._pack.flags)
        self._presidio = PresidioDetector(policy.languages, policy.entities)
        self._rules = RuleDetector(self._featurizer)
        self._tagger = _tagger_of(self._pack, self._featurizer)
        self._threshold = self._pack.thresholds.get(policy.level.value, _UNSTATED)
        self._extra: Detector | None = load_detector(policy.detector, policy.detector_sha256)
        self._allowed = [small_letters(term.strip()) for term in policy.allow if term.strip()]
        self._denied = [small_letters(term.strip()) for term in policy.deny if term.strip()]
        self._digest = self._make_digest()
        self._closed = False

    @property
    def digest(self) -> bytes:
        """SHA-256 over everything that decides what is masked; 32 bytes."""
        return self._digest

    def mask(self, text: str, *, language: str = "en") -> Masked | Held:
        """Mask one text; see `Masker.mask`."""
        return self.mask_many([text], language=language)[0]

    def mask_many(self, texts: Sequence[str], *, language: str = "en") -> list[Masked | Held]:
        """Mask a batch; see `Masker.mask_many`."""
        answers: list[Masked | Held | None] = [self._refusal(text, language) for text in texts]
        waiting = [i for i, answer in enumerate(answers) if answer is None]
        views = {i: normalise(texts[i]) for i in waiting}
        for i in waiting:
            answers[i] = _hold_by_view(views[i])
        waiting = [i for i in waiting if answers[i] is None]
        token_lists = [tokenize(views[i].text) for i in waiting]
        try:
            named = self._named([views[i].text for i in waiting], token_lists)
        except Exception:  # noqa: BLE001
            # The tagger failed on the batch: alone, only the culprit fails.
            if len(texts) > 1:
                return [self.mask(text, language=language) for text in texts]
            return [Held(HeldReason.DETECTOR_FAILED, "the name tagger failed")]
        for i, tokens, names in zip(waiting, token_lists, named, strict=True):
            answers[i] = self._finish(texts[i], views[i], tokens, names)
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """Later calls answer `Held(CLOSED)`."""
        self._closed = True

    def _refusal(self, text: str, language: str) -> Held | None:
        limit = self._policy.limits.max_chars
        if self._closed:
            return Held(HeldReason.CLOSED, "the masker is closed")
        if language.split("-", 1)[0].lower() not in self._policy.languages:
            return Held(HeldReason.UNKNOWN_LANGUAGE, "the policy does not cover this language")
        if len(text) > limit:
            return Held(HeldReason.OVER_LENGTH, f"longer than {limit} characters")
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            return Held(HeldReason.UNREADABLE, "holds broken characters")
        return None

    def _named(self, texts: list[str], token_lists: list[list[Token]]) -> list[list[Finding]]:
        if self._tagger is None or not texts:
            return [[] for _ in texts]
        return self._tagger.find(texts, token_lists, self._threshold)

    def _finish(
        self, raw: str, view: Normalised, tokens: list[Token], names: list[Finding]
    ) -> Masked | Held:
        try:
            findings = self._detect(view, tokens) + names
            masked = self._assemble(raw, view, findings)
            leftovers = self._leftovers(masked)
            if leftovers:
                masked = self._assemble(raw, view, findings, leftovers)
                leftovers = self._leftovers(masked)
        except Exception as error:  # noqa: BLE001
            # Whatever a detector raises, the text is not shown; its message may hold content.
            return Held(HeldReason.DETECTOR_FAILED, f"a detector raised {type(error).__name__}")
        if leftovers or self._shows_values(raw, masked):
            return Held(HeldReason.VERIFY_FAILED, "a second pass still found personal data")
        return masked

    def _detect(self, view: Normalised, tokens: Sequence[Token]) -> list[Finding]:
        text = view.text
        findings = self._structured(text) + self._rules.find(text, tokens)
        for start, end, _ in occurrences(text, self._denied):
            findings.append(Finding(start, end, "SITE_TERM", 1.0))
        for start, end, plain in patterns.encoded_stretches(text):
            inner = self._structured(plain) + self._rules.find(plain, tokenize(plain))
            if inner:
                best = max(inner, key=lambda found: found.score)
                findings.append(Finding(start, end, best.entity_type, best.score))
        if self._extra is not None:
            findings += self._extra.find(text)
        return findings

    def _structured(self, text: str) -> list[Finding]:
        findings = self._presidio.find(text) + patterns.find(text)
        bare = without_tags(Normalised(text, None))
        if bare is not None:
            for found in self._presidio.find(bare.text) + patterns.find(bare.text):
                findings.append(_moved(bare, found))
        return findings

    def _assemble(
        self,
        raw: str,
        view: Normalised,
        findings: Sequence[Finding],
        leftovers: Sequence[Finding] = (),
    ) -> Masked:
        kept = without_allowed(view.text, findings, self._allowed)
        whole = join_neighbours(view.text, union(whole_words(view.text, f) for f in kept))
        whole = every_occurrence(view.text, whole, self._is_ordinary)
        whole = join_pairs(view.text, whole)
        in_raw = union([*(_moved(view, found) for found in whole), *leftovers])
        text, spans = replace(raw, in_raw)
        counts = Counter(span.entity_type for span in spans)
        report = MaskReport(
            policy_version=POLICY_VERSION,
            detector_digest=self._digest,
            level=self._policy.level,
            counts=tuple((name, count_band(n)) for name, n in sorted(counts.items())),
            verified=True,
        )
        return Masked(text, spans, report)

    def _leftovers(self, masked: Masked) -> list[Finding]:
        """Personal data that the masked text still shows, in raw offsets."""
        view = normalise(masked.text)
        found = self._presidio.find(view.text) + patterns.find(view.text)
        found = [f for f in found if f.entity_type != "URL"]
        rest = [
            f
            for f in (_moved(view, f) for f in without_allowed(view.text, found, self._allowed))
            if not _is_inside(f, masked.spans)
        ]
        return [
            f._replace(start=low, end=high)
            for f in rest
            for low, high in [raw_span(masked.spans, f.start, f.end)]
        ]

    def _shows_values(self, raw: str, masked: Masked) -> bool:
        """True when a hidden value still stands somewhere in the masked text."""
        values = {
            value
            for span in masked.spans
            for value in values_of(
                raw[span.raw_start : span.raw_end], span.entity_type, self._is_ordinary
            )[:1]
            if len(value) >= 4
        }
        kept = without_placeholders(masked.text, masked.spans)
        return any(True for stretch in kept for _ in occurrences(stretch, values))

    def _is_ordinary(self, word: str) -> bool:
        return self._featurizer.is_ordinary(word)

    def _make_digest(self) -> bytes:
        policy = self._policy
        parts = {
            "policy": POLICY_VERSION,
            "presidio": metadata.version("presidio-analyzer"),
            "phonenumbers": metadata.version("phonenumbers"),
            "detectors": [self._presidio.description, self._rules.description, patterns.VERSION],
            "extra": [policy.detector, policy.detector_sha256],
            "pack": self._pack.digest.hex(),
            "level": policy.level.value,
            "threshold": self._threshold,
            "languages": sorted(policy.languages),
            "allow": sorted(policy.allow),
            "deny": sorted(policy.deny),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def _tagger_of(pack: Pack, featurizer: Featurizer) -> NameTagger | None:
    return NameTagger(pack.tagger, pack.labels, featurizer) if pack.tagger else None


def _moved(view: Normalised, found: Finding) -> Finding:
    start, end = view.raw_span(found.start, found.end)
    return found._replace(start=start, end=end)


def _is_inside(found: Finding, spans: Sequence[MaskedSpan]) -> bool:
    return any(span.start <= found.start and found.end <= span.end for span in spans)


def _hold_by_view(view: Normalised) -> Held | None:
    """Signs that reorder what a reader sees, and scripts that no detector here can read."""
    if view.has_bidi_control:
        return Held(HeldReason.BIDI_CONTROL, "holds signs that reorder the text")
    if view.text.isascii():
        return None
    letters = [c for c in view.text if c.isalpha()]
    foreign = sum(c > "\u024f" and not "\u1e00" <= c <= "\u1eff" for c in letters)
    if foreign > 8 and foreign > _FOREIGN_SHARE * len(letters):
        return Held(HeldReason.UNKNOWN_LANGUAGE, "is mostly in a script without detectors")
    return None
