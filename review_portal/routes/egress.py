"""What left this site: every message of its devices and of the portal, field by field."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from review_portal.core.model import Refusal
from review_portal.egress import reading
from review_portal.egress.archive import SECONDS_PER_DAY, EgressArchive
from review_portal.egress.decoding import kind_of
from review_portal.portal import Portal
from review_portal.routes.guard import Overseer, PortalOf, Refused
from review_portal.routes.pages import page
from review_portal.store import audit

router = APIRouter(include_in_schema=False)

NO_LEDGER = Refusal("EGRESS_UNKNOWN", "no machine of this name has a ledger here")
_CHUNK_LINES = 200


@dataclass(frozen=True)
class Filters:
    """What the page is asked to show.

    Attributes:
        day: `YYYY-MM-DD`; empty for all days.
        device: `agent/<name>` or `portal/<name>`; empty for all.
        method: gRPC method; empty for all kinds.
        before: Only records before this place in the archive; 0 for the newest.
        verify: Whether to check every ledger.
    """

    day: Annotated[str, Query(pattern="^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")] = ""
    device: Annotated[str, Query(max_length=200)] = ""
    method: Annotated[str, Query(max_length=200)] = ""
    before: Annotated[int, Query(ge=0, lt=2**63)] = 0
    verify: bool = False


@router.get("/egress")
async def egress_page(
    request: Request, portal: PortalOf, _: Overseer, filters: Annotated[Filters, Depends()]
) -> Response:
    """Totals by day, machine and kind; the messages behind them; alarms."""
    context = await run_in_threadpool(_facts, portal.egress, filters)
    return page(request, "egress.html", {**context, "chosen": filters, "kind_of": kind_of})


def _facts(archive: EgressArchive, filters: Filters) -> dict[str, Any]:
    choice = reading.Choice(
        day=_day_number(filters.day), source=filters.device, method=filters.method
    )
    known = reading.sources(archive)
    shown = reading.newest(archive, choice, before=filters.before)
    return {
        "devices": known,
        "methods": reading.methods(archive),
        "totals": reading.totals(archive, choice),
        "alarms": reading.alarms(archive),
        "records": shown,
        "oldest": shown[-1].record_id if len(shown) == reading.PAGE_ROWS else 0,
        "checked": [reading.check(archive, name) for name in known] if filters.verify else [],
        "seconds_per_day": SECONDS_PER_DAY,
    }


@router.get("/egress/export")
async def export_ledger(
    portal: PortalOf, visitor: Overseer, device: Annotated[str, Query(max_length=200)]
) -> Response:
    """One machine's ledger, byte for byte as it stands there."""
    if device not in await run_in_threadpool(reading.sources, portal.egress):
        raise Refused(404, NO_LEDGER)
    event = audit.Event(f"person:{visitor.person.person_id}", "egress.exported", device)
    now = portal.clock()
    await portal.store.database.write_soon(lambda c: audit.append(c, now, event))
    name = re.sub(r"[^A-Za-z0-9._-]", "-", device)
    return StreamingResponse(
        _chunks(portal, device),
        media_type="application/jsonl",
        headers={"content-disposition": f'attachment; filename="egress-{name}.jsonl"'},
    )


def _chunks(portal: Portal, device: str) -> Iterator[bytes]:
    waiting: list[bytes] = []
    for line in reading.lines(portal.egress, device):
        waiting.append(line)
        if len(waiting) == _CHUNK_LINES:
            yield b"".join(waiting)
            waiting.clear()
    yield b"".join(waiting)


def _day_number(text: str) -> int | None:
    if not text:
        return None
    try:
        return datetime.date.fromisoformat(text).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError:
        return None
