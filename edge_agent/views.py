"""The masked view of samples: what a masked campaign scores, shows and trains on.

Anything but a clean answer of the masker means that the sample is held: never scored, never shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from perimeter.v1 import item_pb2

from edge_agent.config import SourceConfig
from edge_agent.errors import AgentError
from edge_agent.masking.images import ImageMasker
from edge_agent.masking.policy import MaskingPolicy
from edge_agent.masking.records import ColumnPolicy, ColumnRule, mask_record
from edge_agent.masking.risk import risk_band
from edge_agent.masking.seam import POLICY_VERSION, Held, HeldReason, Masked, Masker
from edge_agent.queue.samples import View
from edge_agent.sources.decoding import canonical_record

TRANSIENT = frozenset({HeldReason.TIMEOUT, HeldReason.CRASH, HeldReason.MALFORMED_ANSWER})
"""Reasons that may pass by themselves: a sample that they held gets another chance."""
_READ_RULES = frozenset({ColumnRule.KEEP, ColumnRule.FREE_TEXT})
_NO_SOURCE = SourceConfig(name="", campaign="", kind="record", type="push")
_NO_TEXT_DIGEST = hashlib.sha256(b"perimeter: no text, no detectors").digest()


class MaskingUnavailable(AgentError):
    """The masking process cannot start, so nothing can be masked, scored or shown."""

    retryable = True


@dataclass(frozen=True)
class Raw:
    """Canonical content that is to be masked.

    Attributes:
        content: As the kind says.
        kind: text, image, series or record.
        source: Where it came from, with its language and column rules; None when that source is
            no longer configured.
    """

    content: bytes
    kind: str
    source: SourceConfig | None

    @property
    def language(self) -> str:
        """BCP 47 tag of its texts."""
        return self.source.language if self.source else "en"


class DetectingMasker(Masker, Protocol):
    """A masker that states what it detects with."""

    @property
    def digest(self) -> bytes | None:
        """SHA-256 over everything that decides what is masked; None before the first text."""
        ...


class ViewMaker:
    """Makes masked views; the masking process lives only while there is work.

    Args:
        masker: The masking seam.
        policy: What it runs.
    """

    def __init__(self, masker: DetectingMasker, policy: MaskingPolicy) -> None:
        self._masker = masker
        self._policy = policy

    def policy_key(self, source: SourceConfig | None) -> str:
        """Returns a text that changes whenever a sample of the source could be masked differently.

        Raises:
            MaskingUnavailable: The masking process cannot start.
        """
        if self._masker.digest is None:
            answer = self._masker.mask("", language=self._policy.languages[0])
            if self._masker.digest is None:
                why = answer.detail if isinstance(answer, Held) else "no digest"
                raise MaskingUnavailable(f"masking cannot start: {why}; samples wait")
        rules = source or _NO_SOURCE
        parts = [rules.language, rules.has_text, sorted(rules.columns.items())]
        material = (self._masker.digest or b"") + json.dumps(parts).encode()
        return f"{POLICY_VERSION}:{hashlib.sha256(material).hexdigest()}"

    def make(self, raws: Sequence[Raw]) -> list[View | Held]:
        """Returns a view or the reason for holding, for each sample in order."""
        views: dict[int, View | Held] = {}
        texts = [i for i, raw in enumerate(raws) if raw.kind == "text"]
        for language in {raws[i].language for i in texts}:
            chosen = [i for i in texts if raws[i].language == language]
            answers = self._masker.mask_many(
                [raws[i].content.decode() for i in chosen], language=language
            )
            for i, answer in zip(chosen, answers, strict=True):
                views[i] = answer if isinstance(answer, Held) else _text_view(raws[i], answer)
        one = {"record": self._record, "image": self._image, "series": self._series}
        return [views[i] if i in views else one[raw.kind](raw) for i, raw in enumerate(raws)]

    def close(self) -> None:
        """Ends the masking process."""
        self._masker.close()

    def _record(self, raw: Raw) -> View | Held:
        """Column by column as the source's rules say; a text column in doubt holds the record."""
        rules = {
            name: ColumnRule(rule) for name, rule in (raw.source or _NO_SOURCE).columns.items()
        }
        record: dict[str, Any] = json.loads(raw.content)
        policy = ColumnPolicy(rules) if rules else None
        masked = mask_record(record, policy, self._masker, language=raw.language)
        if isinstance(masked, Held):
            return masked
        free = [str(record[c]) for c, rule in rules.items() if c in record and rule in _READ_RULES]
        band = max((risk_band(text) for text in free), default=0)
        return View(canonical_record(masked), self._report(self._policy.level.value), band)

    def _image(self, raw: Raw) -> View | Held:
        source = raw.source or _NO_SOURCE
        if not source.has_text:
            # Canonical images were re-encoded without metadata when they came in.
            return View(raw.content, self._report("none"), 0)
        masker = ImageMasker(self._masker, has_text=True, language=raw.language)
        masked = masker.mask(raw.content)
        if isinstance(masked, Held):
            return masked
        band = min(3, masked.blanked_count)
        return View(masked.content, self._report(self._policy.level.value), band)

    def _series(self, raw: Raw) -> View | Held:
        return View(raw.content, self._report("none"), 0)

    def _report(self, level: str) -> bytes:
        report = item_pb2.MaskReport(
            policy_version=POLICY_VERSION,
            detector_digest=self._masker.digest or _NO_TEXT_DIGEST,
            level=level,
            verified=True,
        )
        return report.SerializeToString(deterministic=True)


def _text_view(raw: Raw, masked: Masked) -> View:
    report = item_pb2.MaskReport(
        policy_version=masked.report.policy_version,
        detector_digest=masked.report.detector_digest,
        level=masked.report.level.value,
        spans=[
            item_pb2.MaskedSpan(start=span.start, end=span.end, entity_type=span.entity_type)
            for span in masked.spans
        ],
        verified=masked.report.verified,
    )
    return View(
        masked.text.encode(),
        report.SerializeToString(deterministic=True),
        risk_band(raw.content.decode()),
        tuple((span.raw_start, span.raw_end) for span in masked.spans),
    )
