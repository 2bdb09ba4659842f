"""Items with words that got through, reports of them, and what is in the store afterwards."""

from __future__ import annotations

import hashlib

from portal_bench import new_item
from sqlalchemy import select

from review_portal.core.model import MaskView
from review_portal.store import flags, items, leaks
from review_portal.store.tables import item, item_content


def plain_item(number: int, text: str, **changes):
    mask = MaskView("perimeter-masking-1", "strict", True, changes.pop("spans", ()))
    return new_item(number, content=text.encode(), mask=mask, **changes)


def report(bench, expert_id: int, item_id: bytes, words: str, note: str = ""):
    flag = flags.NewFlag(item_id, expert_id, "personal_information", note)
    return bench.store.database.write(
        lambda c: leaks.report(c, bench.store.keys, flag, words, leaks.Moment(bench.clock()))
    )


def content_of(bench, item_id: bytes) -> str:
    def work(c):
        query = select(item, item_content.c.sealed).join(
            item_content, item_content.c.item_number == item.c.item_number
        )
        return c.execute(query.where(item.c.item_id == item_id)).one()

    row = bench.store.database.read(work)
    opened = bench.store.keys.unseal(row.campaign_id, items.content_row(item_id), row.sealed)
    assert hashlib.sha256(opened).digest() == row.content_sha256
    return opened.decode()
