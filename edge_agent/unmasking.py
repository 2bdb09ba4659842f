"""Hands the words behind a placeholder to the own site's portal, for one approved viewing.

The device asks; nothing dials in. It answers only about items that it released itself, only where
its own settings allow it, and only after the answer stands in its audit log.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from perimeter.v1 import grant_pb2, item_pb2

from edge_agent.audit import AuditLog
from edge_agent.config import AgentConfig
from edge_agent.errors import PeerRefused, SealBroken
from edge_agent.portal_client import PortalClient
from edge_agent.queue.samples import StoredSample, View
from edge_agent.queue.stores import Stores

WORDS_MAX = 20
WORD_LENGTH_MAX = 1000
_OLD_PORTAL_SECONDS = 3600.0
_WORD_OF: Mapping[int, str] = {
    item_pb2.UNMASKING_ANSWER_SHOWN: "shown",
    item_pb2.UNMASKING_ANSWER_REFUSED: "refused",
    item_pb2.UNMASKING_ANSWER_GONE: "gone",
    item_pb2.UNMASKING_ANSWER_UNKNOWN: "unknown",
}


def hidden_words(view: View, raw: str, placeholder: str) -> tuple[str, ...]:
    """Returns the different stretches of a text that a placeholder stands for, in their order.

    Args:
        view: The masked text with its report and places.
        raw: The text before masking.
        placeholder: As it stands in the masked text.

    Returns:
        Nothing when masking did not put this placeholder there, or kept no places.

    >>> report = item_pb2.MaskReport(spans=[item_pb2.MaskedSpan(start=3, end=13)])
    >>> view = View(b"Hi <PERSON_1>!", report.SerializeToString(), 0, ((3, 6),))
    >>> hidden_words(view, "Hi Ann!", "<PERSON_1>"), hidden_words(view, "Hi Ann!", "<PERSON_2>")
    (('Ann',), ())
    """
    masked = view.content.decode()
    spans = item_pb2.MaskReport.FromString(view.report).spans
    if len(spans) != len(view.places):
        return ()
    found = [
        raw[start:end]
        for span, (start, end) in zip(spans, view.places, strict=True)
        if masked[span.start : span.end] == placeholder
    ]
    return tuple(dict.fromkeys(found))


class Unmasker:
    """Answers what the portal's people were allowed to ask.

    Args:
        stores: The queue.
        portal: The site's portal.
        audit: The device's log.
        config: Says whether this device answers with words at all.
    """

    def __init__(
        self, stores: Stores, portal: PortalClient, audit: AuditLog, config: AgentConfig
    ) -> None:
        self._stores = stores
        self._portal = portal
        self._audit = audit
        self._config = config
        self._next_at = 0.0

    def turn(self, now: float) -> bool:
        """Asks the portal when it is time to, and answers; never more to do at once.

        Raises:
            PeerError: The portal cannot be reached.
            StorageError: The queue or the audit log cannot be used; nothing was handed over.
        """
        if not self._portal.is_configured or now < self._next_at:
            return False
        self._next_at = now + self._config.timing.unmask_poll_seconds
        try:
            waiting = self._portal.unmaskings()
        except PeerRefused as error:
            if error.reason != "UNIMPLEMENTED":
                raise
            # A portal from before there was unmasking.
            self._next_at = now + _OLD_PORTAL_SECONDS
            return False
        for asked in waiting:
            self._answer(asked, now)
        return False

    def _answer(self, asked: item_pb2.Unmasking, now: float) -> None:
        answer, words = self._decide(asked)
        detail: dict[str, int | str] = {
            "grant": asked.grant_id.hex(),
            "answer": _WORD_OF[answer],
            "word_count": len(words),
        }
        record = self._audit.append("unmasking.answered", _named(asked), detail, at=now)
        self._portal.answer_unmasking(
            item_pb2.AnswerUnmaskingRequest(
                unmasking_id=asked.unmasking_id,
                answer=item_pb2.UnmaskingAnswer.Name(answer),
                words=words,
                device_record=bytes.fromhex(record.digest),
            )
        )

    def _decide(self, asked: item_pb2.Unmasking) -> tuple[int, tuple[str, ...]]:
        if self._config.unmask != "approved":
            return item_pb2.UNMASKING_ANSWER_REFUSED, ()
        held = self._stores.grants.find(asked.grant_id)
        if held is None or held.outcome != grant_pb2.OUTCOME_STATE_RELEASED:
            return item_pb2.UNMASKING_ANSWER_UNKNOWN, ()
        try:
            sample = self._sample(held.grant)
        except SealBroken:
            sample = None
        if sample is None:
            return item_pb2.UNMASKING_ANSWER_GONE, ()
        if sample.view is None:
            return item_pb2.UNMASKING_ANSWER_UNKNOWN, ()
        try:
            words = hidden_words(sample.view, sample.content.decode(), asked.placeholder)
        except UnicodeDecodeError:
            # An image or a series: nothing in it has a placeholder.
            words = ()
        if not 0 < len(words) <= WORDS_MAX or any(len(word) > WORD_LENGTH_MAX for word in words):
            return item_pb2.UNMASKING_ANSWER_UNKNOWN, ()
        return item_pb2.UNMASKING_ANSWER_SHOWN, words

    def _sample(self, grant: grant_pb2.Grant) -> StoredSample | None:
        bound = self._stores.bindings.bound(grant.grant_id)
        return self._stores.samples.find(grant.campaign_id, bound or grant.candidate_id)


def _named(asked: item_pb2.Unmasking) -> str:
    """The id as a UUID; whatever else a portal may send is not written down."""
    raw = asked.unmasking_id
    return str(uuid.UUID(bytes=raw)) if len(raw) == 16 else "malformed"
