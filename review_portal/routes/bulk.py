"""Near-duplicates on one page: one look, one key, one undo."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from review_portal.access import Visitor
from review_portal.core.model import Campaign, Kind
from review_portal.portal import Portal
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import Labeler, PortalOf
from review_portal.routes.labeling import desk_of
from review_portal.routes.pages import page
from review_portal.routes.shapes import BulkForm, BulkUndoForm
from review_portal.store import bulk, queue

router = APIRouter(include_in_schema=False)


@router.get("/bulk")
async def bulk_page(
    request: Request, portal: PortalOf, visitor: Labeler, campaign: str = "", done: str = ""
) -> Response:
    """Groups among the items that the expert now holds."""
    known, chosen = chosen_campaign(portal, campaign)
    shown: tuple[bulk.Group, ...] = ()
    if chosen is not None and chosen.kind in {Kind.TEXT, Kind.RECORD}:
        shown = await _groups(portal, visitor, chosen)
    context = {
        "campaigns": known,
        "chosen": chosen,
        "groups": shown,
        "token": secrets.token_hex(12),
        "done": done if done.isalnum() else "",
    }
    return page(request, "bulk.html", context)


async def _groups(portal: Portal, visitor: Visitor, campaign: Campaign) -> tuple[bulk.Group, ...]:
    now = portal.clock()
    request = queue.LeaseRequest(
        visitor.person.person_id,
        campaign.campaign_id,
        queue.LEASE_COUNT_MAX,
        now,
        now + portal.config.lease_seconds,
        visitor.person.languages,
    )
    held = await portal.store.database.write_soon(lambda c: queue.lease(c, request))
    opened = [
        (q, queue.unseal_item(portal.store.keys, campaign.campaign_id, q.item_id, q.sealed))
        for q in held
    ]
    return bulk.groups(opened, campaign.kind)


@router.post("/bulk")
async def approve(
    portal: PortalOf, visitor: Labeler, form: Annotated[BulkForm, Form()]
) -> Response:
    """Stores one answer for a whole group."""
    wanted = [bytes.fromhex(part) for part in form.item_ids.split(",")]
    desk = replace(desk_of(portal, visitor, None), batch_token=form.token)
    await portal.store.database.write_soon(
        lambda c: bulk.approve(c, desk, wanted, form.class_index)
    )
    return RedirectResponse(f"/bulk?campaign={form.campaign}&done={form.token}", 303)


@router.post("/bulk/undo")
async def undo(
    portal: PortalOf, visitor: Labeler, form: Annotated[BulkUndoForm, Form()]
) -> Response:
    """Takes a whole approval back."""
    desk = desk_of(portal, visitor, None)
    until = desk.now + portal.config.lease_seconds
    await portal.store.database.write_soon(lambda c: bulk.undo(c, desk, form.token, until))
    return RedirectResponse(f"/bulk?campaign={form.campaign}", 303)
