"""Near-duplicates on one page: one look, one key, one undo."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from review_portal.access import Visitor
from review_portal.core.model import Campaign, Kind, Refusal
from review_portal.portal import Portal
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import Labeler, PortalOf
from review_portal.routes.items_view import proof_of
from review_portal.routes.labeling import desk_of, may_take
from review_portal.routes.pages import page
from review_portal.routes.shapes import BulkForm, BulkQuery, BulkUndoForm
from review_portal.store import bulk, queue
from review_portal.store.campaigns import settings_of

BLIND = Refusal("BLIND", "look-alikes go by the model's suggestion, which is hidden here")
router = APIRouter(include_in_schema=False)


@router.get("/bulk")
async def bulk_page(
    request: Request, portal: PortalOf, visitor: Labeler, asked: Annotated[BulkQuery, Query()]
) -> Response:
    """Groups among the items that the expert now holds."""
    known, chosen = chosen_campaign(portal, asked.campaign)
    shown: tuple[bulk.Group, ...] | Refusal = ()
    if chosen is not None and chosen.kind in {Kind.TEXT, Kind.RECORD}:
        shown = await _groups(portal, visitor, chosen)
    context = {
        "campaigns": known,
        "chosen": chosen,
        "groups": () if isinstance(shown, Refusal) else shown,
        "refused": shown.message if isinstance(shown, Refusal) else "",
        "token": secrets.token_hex(12),
        "done": asked.done,
        "missed": asked.missed,
        "proof": lambda q: proof_of(portal, visitor.person.person_id, q.item_id, q.lease_id),
    }
    return page(request, "bulk.html", context)


async def _groups(
    portal: Portal, visitor: Visitor, campaign: Campaign
) -> tuple[bulk.Group, ...] | Refusal:
    now = portal.clock()
    request = queue.LeaseRequest(
        visitor.person.person_id,
        campaign.campaign_id,
        queue.LEASE_COUNT_MAX,
        now,
        now + portal.config.lease_seconds,
        visitor.person.languages,
        renew=True,
    )

    def work(connection: Connection) -> tuple[queue.QueuedItem, ...] | Refusal:
        refused = may_take(connection, campaign, visitor.person, now)
        if refused is None and not settings_of(connection, campaign.campaign_id).confidence_shown:
            refused = BLIND
        return refused or queue.lease(connection, request)

    held = await portal.store.database.write_soon(work)
    if isinstance(held, Refusal):
        return held
    opened = [
        (q, queue.unseal_item(portal.store.keys, campaign.campaign_id, q.item_id, q.sealed))
        for q in held
    ]
    return bulk.groups(opened, campaign.kind)


@router.post("/bulk")
async def approve(
    portal: PortalOf, visitor: Labeler, form: Annotated[BulkForm, Form()]
) -> Response:
    """Stores one answer for a whole group and says how many it missed.

    The leases may be over by now: a labeling page that closes gives back what it held, which can
    arrive after this page took the same items. So the form proves that its person was given them.
    """
    wanted = [bytes.fromhex(part) for part in form.item_ids.split(",")]
    desk = replace(
        desk_of(portal, visitor, None),
        batch_token=form.token,
        held_before=_proven(portal, visitor, wanted, form.lease_ids.split(",")),
    )
    stored = await portal.store.database.write_soon(
        lambda c: bulk.approve(c, desk, wanted, form.class_index)
    )
    said = {"campaign": form.campaign, "missed": len(wanted) - stored}
    if stored:
        said["done"] = form.token
    return RedirectResponse(f"/bulk?{urlencode(said)}", 303)


def _proven(
    portal: Portal, visitor: Visitor, item_ids: Sequence[bytes], proofs: Sequence[str]
) -> bool:
    """True when every item comes with the proof that it was this person's."""
    person_id = visitor.person.person_id
    expected = [
        proof_of(portal, person_id, item_id, proof.partition(".")[0])
        for item_id, proof in zip(item_ids, proofs, strict=False)
    ]
    return len(item_ids) == len(proofs) and hmac.compare_digest(
        ",".join(expected), ",".join(proofs)
    )


@router.post("/bulk/undo")
async def undo(
    portal: PortalOf, visitor: Labeler, form: Annotated[BulkUndoForm, Form()]
) -> Response:
    """Takes a whole approval back."""
    desk = desk_of(portal, visitor, None)
    until = desk.now + portal.config.lease_seconds
    await portal.store.database.write_soon(lambda c: bulk.undo(c, desk, form.token, until))
    return RedirectResponse(f"/bulk?{urlencode({'campaign': form.campaign})}", 303)
