"""Reads everything that a site knows about its items, for export."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from review_portal.core.model import Campaign, Kind
from review_portal.interchange.records import (
    ExportedAnnotation,
    ExportedItem,
    ExportedLabel,
    ExportedSuggestion,
)
from review_portal.label_store import LabelStore
from review_portal.store.items import content_row
from review_portal.store.present import parse_answer
from review_portal.store.tables import annotation, item, item_content, label

PAGE_ROWS = 500


def exported_items(
    store: LabelStore, campaign: Campaign, *, split: str | None, secret: bytes
) -> Iterator[ExportedItem]:
    """Yields all labeled items of a campaign with label, answers and provenance.

    Args:
        store: Where they are.
        campaign: Which ones.
        split: train or test; None for both.
        secret: Keys the pseudonyms of experts.
    """
    after = 0
    while True:
        page = store.database.read(_page(campaign.campaign_id, split, after))
        answers = store.database.read(_answers([row.item_number for row in page]))
        for row in page:
            yield _exported(store, campaign, row, answers.get(row.item_number, ()), secret)
        if len(page) < PAGE_ROWS:
            return
        after = page[-1].label_id


def _page(
    campaign_id: bytes, split: str | None, after: int
) -> Callable[[Connection], Sequence[Row[Any]]]:
    query = (
        select(
            label.c.label_id,
            label.c.answer_key,
            label.c.settlement,
            label.c.origin,
            label.c.schema_version.label("label_schema_version"),
            label.c.created_at,
            item,
            item_content.c.sealed,
        )
        .join(item, item.c.item_number == label.c.item_number)
        .join(item_content, item_content.c.item_number == label.c.item_number)
        .where(
            label.c.campaign_id == campaign_id,
            label.c.superseded_by.is_(None),
            label.c.settlement != "withdrawn",
            label.c.label_id > after,
        )
        .order_by(label.c.label_id)
        .limit(PAGE_ROWS)
    )
    if split is not None:
        query = query.where(label.c.split == split)
    return lambda connection: connection.execute(query).all()


def _answers(numbers: list[int]) -> Callable[[Connection], dict[int, list[Row[Any]]]]:
    def work(connection: Connection) -> dict[int, list[Row[Any]]]:
        rows = connection.execute(
            select(annotation)
            .where(annotation.c.item_number.in_(numbers))
            .order_by(annotation.c.annotation_id)
        ).all()
        gone = {row.withdraws for row in rows}
        by_item: dict[int, list[Row[Any]]] = {}
        for row in rows:
            if row.withdraws is None and row.annotation_id not in gone:
                by_item.setdefault(row.item_number, []).append(row)
        return by_item

    return work


def _exported(
    store: LabelStore,
    campaign: Campaign,
    row: Row[Any],
    answers: Sequence[Row[Any]],
    secret: bytes,
) -> ExportedItem:
    suggestion = None
    if row.suggestion_index is not None:
        suggestion = ExportedSuggestion(row.suggestion_index, row.confidence, row.model_version)
    return ExportedItem(
        item_id=row.item_id.hex(),
        kind=Kind(row.kind),
        content=store.keys.unseal(campaign.campaign_id, content_row(row.item_id), row.sealed),
        label=ExportedLabel(
            parse_answer(row.answer_key),
            row.settlement,
            row.label_schema_version,
            _iso(row.created_at),
        ),
        annotations=tuple(_annotation(entry, secret) for entry in answers),
        suggestion=suggestion,
        split=row.split,
        provenance=(
            ("campaign", campaign.name),
            ("origin", row.origin),
            ("grant_id", row.grant_id.hex() if row.grant_id else ""),
            ("grant_reason", row.grant_reason),
            ("mask_policy", row.mask_policy),
            ("mask_level", row.mask_level),
        ),
    )


def _annotation(row: Row[Any], secret: bytes) -> ExportedAnnotation:
    return ExportedAnnotation(
        annotator=pseudonym(secret, row.expert_id),
        answer=parse_answer(row.answer_key),
        active_seconds=row.seconds,
        decided_at=_iso(row.created_at),
        purpose=row.purpose,
        suggestion_shown=row.suggestion_shown,
    )


def pseudonym(secret: bytes, expert_id: int) -> str:
    """Returns the name under which an expert appears in exports; the same every time.

    >>> pseudonym(b"k", 1)
    'expert-918cd18c'
    """
    digest = hmac.new(secret, f"expert:{expert_id}".encode(), hashlib.sha256).hexdigest()
    return f"expert-{digest[:8]}"


def _iso(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")
