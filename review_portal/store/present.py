"""Items and answers that came under an older label schema, in the classes of the present one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from review_portal.core.model import NOTHING, Answer, Campaign, Decision, Refusal
from review_portal.core.schema_mapping import (
    Mapping,
    moved_class,
    moved_key,
    moved_probabilities,
)
from review_portal.store.campaigns import find_campaign, mapping_to_current
from review_portal.store.items import pack_probabilities, unpack_probabilities

if TYPE_CHECKING:
    from review_portal.store.queue import QueuedItem

_VERSION = "SELECT schema_version FROM campaign WHERE campaign_id = ?"


def version_of(connection: Connection, campaign_id: bytes) -> int:
    """Returns the number of a campaign's present label schema, 0 for an unknown campaign."""
    return int(connection.exec_driver_sql(_VERSION, (campaign_id,)).scalar() or 0)


def _mapping(connection: Connection, campaign_id: bytes, version: int) -> Mapping:
    if version == version_of(connection, campaign_id):
        return None
    return mapping_to_current(connection, campaign_id, version)


def key_of(connection: Connection, annotation: Any) -> str | None:
    """Returns the key of an annotation's answer in the present schema."""
    mapping = _mapping(connection, annotation.campaign_id, annotation.schema_version)
    return moved_key(annotation.answer_key, mapping)


def suggestion_of(connection: Connection, row: Any) -> int | None:
    """Returns the suggested class of an item's row in the present schema."""
    return moved_class(
        row.suggestion_index, _mapping(connection, row.campaign_id, row.schema_version)
    )


def decision_of(
    connection: Connection, campaign: Campaign, decision: Decision
) -> Decision | Refusal:
    """Returns a decision in the present schema, or a refusal when nothing of it is left."""
    if decision.schema_version in {0, campaign.schema_version}:
        return decision
    mapping = mapping_to_current(connection, campaign.campaign_id, decision.schema_version)
    key = moved_key(decision.answer.key, mapping)
    if key is None and decision.answer.key is not None:
        return Refusal("CLASS_GONE", "the classes have changed and this one went; decide again")
    return replace(decision, answer=parse_answer(key))


def queued(
    connection: Connection, entries: Sequence[QueuedItem], campaign_id: bytes
) -> tuple[QueuedItem, ...]:
    """Returns leased items with their suggestions in the present schema."""
    version = version_of(connection, campaign_id)
    if all(entry.schema_version == version for entry in entries):
        return tuple(entries)
    campaign = find_campaign(connection, campaign_id)
    class_count = len(campaign.classes) if campaign else 0
    return tuple(_queued(connection, entry, campaign_id, class_count) for entry in entries)


def _queued(
    connection: Connection, entry: QueuedItem, campaign_id: bytes, class_count: int
) -> QueuedItem:
    mapping = _mapping(connection, campaign_id, entry.schema_version)
    suggestion = moved_class(entry.suggestion_index, mapping)
    given = unpack_probabilities(entry.probabilities)
    return replace(
        entry,
        suggestion_index=suggestion,
        confidence=None if suggestion is None else entry.confidence,
        prototype_class=moved_class(entry.prototype_class, mapping),
        probabilities=pack_probabilities(moved_probabilities(given, mapping, class_count)),
    )


def parse_answer(answer_key: str | None) -> Answer:
    """Returns the answer behind a key.

    >>> parse_answer("1,4").class_indices, parse_answer("0-3:2").spans, parse_answer(None).key
    ((1, 4), ((0, 3, 2),), None)
    >>> parse_answer("none").is_nothing
    True
    """
    if answer_key is None:
        return Answer(None)
    if answer_key == NOTHING:
        return Answer(None, is_nothing=True)
    if ":" in answer_key:
        parts = (part.replace("-", ":").split(":") for part in answer_key.split(";"))
        spans = tuple((int(s), int(e), int(c)) for s, e, c in parts)
        return Answer(None, spans=spans)
    if "," in answer_key:
        indices = tuple(int(index) for index in answer_key.split(","))
        return Answer(indices[0], class_indices=indices)
    return Answer(int(answer_key))
