"""Unmasking: an expert asks what a placeholder stands for, a second person decides, one viewing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from review_portal.access import Visitor
from review_portal.core.model import Refusal, Role
from review_portal.core.unmasking import NOTE_LENGTH_MAX, NOTE_LENGTH_MIN, REASON_CODES, UnmaskState
from review_portal.portal import Portal
from review_portal.routes.guard import (
    LABELERS,
    Labeler,
    PortalOf,
    Refused,
    SiteLead,
    VisitorOf,
    raise_if_refused,
)
from review_portal.routes.pages import page, texts_for
from review_portal.routes.shapes import UnmaskedBody, UnmaskForm
from review_portal.store import audit, unmask_asking, unmaskings
from review_portal.store.campaigns import (
    find_campaign_named,
    list_campaigns,
    put_settings,
    settings_of,
)

router = APIRouter(include_in_schema=False)

UnmaskingId = Annotated[str, Form(pattern="^[0-9a-f]{32}$")]


def _asker(portal: Portal, visitor: Visitor) -> unmask_asking.Asker:
    policies = portal.config.mask_policy_versions
    return unmask_asking.Asker(visitor.person, policies, portal.clock())


@router.get("/unmask")
async def unmask_page(
    request: Request, portal: PortalOf, visitor: VisitorOf, item: str = ""
) -> Response:
    """Questions about placeholders: one's own, or everybody's for those who oversee them."""
    is_labeler = visitor.person.role in LABELERS
    asker, keys = _asker(portal, visitor), portal.store.keys

    def work(connection: Connection) -> dict[str, object]:
        about = None
        if is_labeler and len(item) == 32 and set(item) <= set("0123456789abcdef"):
            about = unmask_asking.askable(connection, keys, asker, bytes.fromhex(item))
        own = asker.person.person_id if is_labeler else None
        opener = None if asker.person.role is Role.AUDITOR else keys
        switches = [
            (campaign.name, settings_of(connection, campaign.campaign_id).unmasking)
            for campaign in list_campaigns(connection)
        ]
        found = unmaskings.list_all(connection, opener, asker.now, expert_id=own)
        return {"about": about, "listed": found, "switches": switches}

    facts = await portal.store.database.read_soon(work)
    about = facts["about"]
    context = {
        **facts,
        "about": None if isinstance(about, Refusal) else about,
        "problem": about.message if isinstance(about, Refusal) else "",
        "is_labeler": is_labeler,
        "is_lead": visitor.person.role is Role.SITE_LEAD,
        "reasons": REASON_CODES,
        "lengths": (NOTE_LENGTH_MIN, NOTE_LENGTH_MAX),
        "texts": json.dumps(texts_for(request, portal, visitor.person.locale, "unmask.")),
    }
    return page(request, "unmask.html", context)


@router.post("/unmask/ask")
async def ask(portal: PortalOf, visitor: Labeler, form: Annotated[UnmaskForm, Form()]) -> Response:
    """Puts a question to the site lead."""
    question = unmask_asking.Question(
        bytes.fromhex(form.item_id), form.placeholder, form.reason_code, form.note
    )
    asker, keys = _asker(portal, visitor), portal.store.keys
    raise_if_refused(
        await portal.store.database.write_soon(
            lambda connection: unmask_asking.ask(connection, keys, asker, question)
        )
    )
    return RedirectResponse("/unmask", 303)


@router.post("/unmask/decide")
async def decide(
    portal: PortalOf,
    visitor: SiteLead,
    unmasking_id: UnmaskingId,
    decision: Annotated[Literal["approve", "decline"], Form()],
) -> Response:
    """The second person says yes or no."""
    now = portal.clock()
    raise_if_refused(
        await portal.store.database.write_soon(
            lambda connection: unmaskings.decide(
                connection,
                bytes.fromhex(unmasking_id),
                visitor.person,
                yes=decision == "approve",
                now=now,
            )
        )
    )
    return RedirectResponse("/unmask", 303)


@router.post("/unmask/switch")
async def switch(
    portal: PortalOf,
    visitor: SiteLead,
    campaign: Annotated[str, Form(max_length=80)],
    unmasking: Annotated[Literal["on", "off"], Form()],
) -> Response:
    """The site lead allows questions for a campaign, or ends that."""
    actor, now = f"person:{visitor.person.person_id}", portal.clock()

    def work(connection: Connection) -> None:
        found = find_campaign_named(connection, campaign)
        if found is None:
            raise Refused(404, Refusal("CAMPAIGN_UNKNOWN", "no such campaign"))
        settings = replace(settings_of(connection, found.campaign_id), unmasking=unmasking == "on")
        put_settings(connection, found.campaign_id, settings)
        event = audit.Event(actor, "campaign.set", campaign, {"unmasking": settings.unmasking})
        audit.append(connection, now, event)

    await portal.store.database.write_soon(work)
    return RedirectResponse("/unmask", 303)


@router.post("/api/unmaskings/{unmasking_id}/open")
async def open_viewing(portal: PortalOf, visitor: Labeler, unmasking_id: str) -> UnmaskedBody:
    """Begins the one viewing of an approved question."""
    wanted, now = _id_of(unmasking_id), portal.clock()
    person_id = visitor.person.person_id
    raise_if_refused(
        await portal.store.database.write_soon(
            lambda connection: unmaskings.open_viewing(connection, wanted, person_id, now)
        )
    )
    return UnmaskedBody(state=UnmaskState.OPENED.value)


@router.post("/api/unmaskings/{unmasking_id}/view")
async def view(portal: PortalOf, visitor: Labeler, unmasking_id: str) -> UnmaskedBody:
    """Returns how far the viewing is; with the words once, when the device has sent them."""
    wanted, now = _id_of(unmasking_id), portal.clock()
    person_id = visitor.person.person_id
    portal.words.drop_old(now)
    state = await portal.store.database.read_soon(
        lambda connection: unmaskings.state_of(connection, wanted, person_id, now)
    )
    if state is None:
        raise Refused(404, unmaskings.UNKNOWN)
    if state is not UnmaskState.ANSWERED:
        return UnmaskedBody(state=state.value)
    may = await portal.store.database.write_soon(
        lambda connection: unmaskings.shown(connection, wanted, person_id, now)
    )
    words = portal.words.take(wanted, now) if may else None
    if words is None:
        # The portal was started anew meanwhile: the words were nowhere but in its memory.
        return UnmaskedBody(state=UnmaskState.EXPIRED.value)
    return UnmaskedBody(state=UnmaskState.SHOWN.value, words=list(words))


def _id_of(unmasking_id: str) -> bytes:
    try:
        wanted = bytes.fromhex(unmasking_id)
    except ValueError:
        raise Refused(404, unmaskings.UNKNOWN) from None
    return wanted
