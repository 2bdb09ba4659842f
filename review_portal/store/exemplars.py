"""Examples of each class for the guideline: items whose label is beyond doubt."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, exists, select

from review_portal.core.model import Settlement
from review_portal.store import audit
from review_portal.store.tables import item, item_content, label

PER_CLASS = 2
LOOK_BACK = 2000
CERTAIN = (Settlement.ADJUDICATION.value, Settlement.AGREEMENT.value, Settlement.SINGLE.value)


@dataclass(frozen=True)
class Exemplar:
    """An item that shows what a class means.

    Attributes:
        class_index: Its class.
        item_id: 16 bytes.
        kind: What it shows.
        sealed: Sealed content.
        mask_spans: JSON of (start, end, type).
    """

    class_index: int
    item_id: bytes
    kind: str
    sealed: bytes
    mask_spans: str


def exemplars(
    connection: Connection, campaign_id: bytes, *, reader_id: int, now: float
) -> tuple[Exemplar, ...]:
    """Returns up to two examples per class, adjudicated ones first, never hidden gold.

    Gold stays out, since an example of it would give the answer away. Views are audited.
    """
    rows = connection.execute(
        select(
            label.c.class_index,
            label.c.settlement,
            item.c.item_number,
            item.c.item_id,
            item.c.kind,
            item.c.mask_spans,
        )
        .join(item, item.c.item_number == label.c.item_number)
        .where(
            label.c.campaign_id == campaign_id,
            label.c.superseded_by.is_(None),
            label.c.class_index.is_not(None),
            label.c.settlement.in_(CERTAIN),
            label.c.split == "train",
            ~item.c.is_gold,
            # Content has an age limit; labels stay without it.
            exists().where(item_content.c.item_number == item.c.item_number),
        )
        .order_by(label.c.label_id.desc())
        .limit(LOOK_BACK)
    ).all()
    rows = sorted(rows, key=lambda row: CERTAIN.index(row.settlement))
    chosen = []
    counts: dict[int, int] = {}
    for row in rows:
        counts[row.class_index] = counts.get(row.class_index, 0) + 1
        if counts[row.class_index] <= PER_CLASS:
            chosen.append(row)
    sealed = dict(
        connection.execute(
            select(item_content.c.item_number, item_content.c.sealed).where(
                item_content.c.item_number.in_([row.item_number for row in chosen])
            )
        ).all()
    )
    actor = f"person:{reader_id}"
    audit.append(
        connection, now, *(audit.Event(actor, "example.viewed", r.item_id.hex()) for r in chosen)
    )
    return tuple(
        Exemplar(r.class_index, r.item_id, r.kind, sealed[r.item_number], r.mask_spans)
        for r in chosen
    )
