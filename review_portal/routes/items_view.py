"""How items and campaigns look in JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

from review_portal.core.model import Campaign, Kind
from review_portal.portal import Portal
from review_portal.routes.shapes import CampaignBody, ExampleBody, ItemBody, SuggestionBody
from review_portal.store.campaigns import CampaignSettings
from review_portal.store.exemplars import Exemplar
from review_portal.store.items import unpack_probabilities
from review_portal.store.queue import QueuedItem, lease_proof, unseal_item
from review_portal.wire import read_series

INLINE_IMAGE_BYTES_MAX = 256 << 10


def campaign_body(
    campaign: Campaign, settings: CampaignSettings, counted: dict[str, int]
) -> CampaignBody:
    """Returns a campaign with its counts."""
    return CampaignBody(
        campaign_id=campaign.campaign_id.hex(),
        name=campaign.name,
        kind=campaign.kind.value,
        state=campaign.state,
        answer_mode=settings.answer_mode,
        classes=list(campaign.classes),
        schema_version=campaign.schema_version,
        guideline=campaign.guideline,
        open_count=counted.get("items.OPEN", 0),
        labeled_count=counted.get("items.LABELED", 0),
        disputed_count=counted.get("items.DISPUTED", 0),
        held_count=counted.get("items.HELD", 0),
    )


def item_body(portal: Portal, campaign: Campaign, queued: QueuedItem, expert_id: int) -> ItemBody:
    """Returns an item as its expert sees it, content unsealed."""
    content = unseal_item(portal.store.keys, campaign.campaign_id, queued.item_id, queued.sealed)
    suggestion = None
    if queued.suggestion_index is not None and queued.confidence is not None:
        suggestion = _suggestion(portal, campaign, queued)
    return ItemBody(
        item_id=queued.item_id.hex(),
        lease_id=proof_of(portal, expert_id, queued.item_id, queued.lease_id),
        lease_until=queued.lease_until,
        kind=queued.kind,
        **content_fields(Kind(queued.kind), content, queued.item_id),
        suggestion=suggestion,
        probabilities=[round(p, 4) for p in unpack_probabilities(queued.probabilities)],
        prototype_class=queued.prototype_class,
        reason=queued.reason,
        margin=queued.margin,
        model_version=queued.model_version,
        language=queued.language,
        mask_level=queued.mask_level,
        mask_spans=list(queued.mask_spans),
        evidence=_evidence(portal, campaign, queued, content),
        candidate_id=queued.candidate_id.hex(),
        content_sha256=queued.content_sha256.hex(),
    )


def proof_of(portal: Portal, expert_id: int, item_id: bytes, lease_id: str) -> str:
    """Returns a lease id that proves, even after the lease, that an expert was given an item."""
    return lease_proof(portal.secret, expert_id=expert_id, item_id=item_id, lease_id=lease_id)


def _evidence(
    portal: Portal, campaign: Campaign, queued: QueuedItem, content: bytes
) -> list[tuple[int, int]]:
    if queued.kind != Kind.TEXT.value or portal.hints is None or queued.suggestion_index is None:
        return []
    text = content.decode("utf-8", "replace")
    return portal.hints.evidence(campaign, text, queued.suggestion_index)


def _suggestion(portal: Portal, campaign: Campaign, queued: QueuedItem) -> SuggestionBody:
    raw = queued.confidence or 0.0
    shown = raw
    if portal.hints is not None:
        shown = portal.hints.confidence(campaign, queued.model_version, raw)
    return SuggestionBody(
        class_index=queued.suggestion_index or 0,
        confidence=round(shown, 4),
        raw_confidence=round(raw, 4),
    )


def example_body(portal: Portal, campaign_id: bytes, entry: Exemplar) -> ExampleBody:
    """Returns an example of a class, content unsealed."""
    content = unseal_item(portal.store.keys, campaign_id, entry.item_id, entry.sealed)
    return ExampleBody(
        class_index=entry.class_index,
        kind=entry.kind,
        mask_spans=json.loads(entry.mask_spans),
        **content_fields(Kind(entry.kind), content, entry.item_id),
    )


def content_fields(kind: Kind, content: bytes, item_id: bytes) -> dict[str, Any]:
    """Returns the JSON fields that show content.

    >>> content_fields(Kind.TEXT, b"hello", bytes(16))
    {'text': 'hello'}
    """
    if kind is Kind.TEXT:
        return {"text": content.decode("utf-8", "replace")}
    if kind is Kind.RECORD:
        return {"record": json.loads(content)}
    if kind is Kind.SERIES:
        return {"series": [list(step) for step in read_series(content)]}
    if len(content) > INLINE_IMAGE_BYTES_MAX:
        return {"content_url": f"/api/items/{item_id.hex()}/content"}
    return {"image_png": base64.b64encode(content).decode()}
