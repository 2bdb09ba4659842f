"""The adjudicator's page: answers that differ, and the decision that ends each dispute."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from review_portal.core.model import Answer, Decision, Kind
from review_portal.portal import Portal
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import Adjudicator, PortalOf, raise_if_refused
from review_portal.routes.items_view import content_fields
from review_portal.routes.labeling import desk_of
from review_portal.routes.pages import page, texts_for
from review_portal.routes.shapes import AdjudicationForm, AnnotationBody, ReceiptBody
from review_portal.store import adjudicating
from review_portal.store.annotations import parse_answer
from review_portal.store.queue import unseal_item

router = APIRouter()


@router.get("/adjudicate", include_in_schema=False)
async def adjudicate_page(
    request: Request, portal: PortalOf, visitor: Adjudicator, campaign: str = ""
) -> Response:
    """All open disputes of a campaign."""
    known, chosen = chosen_campaign(portal, campaign)
    found: tuple[adjudicating.Dispute, ...] = ()
    if chosen is not None:
        now, reader, wanted = portal.clock(), visitor.person.person_id, chosen.campaign_id
        found = await portal.store.database.write_soon(
            lambda c: adjudicating.disputes(c, wanted, reader, now=now)
        )
    shown = [_shown(portal, chosen.campaign_id, entry) for entry in found] if chosen else []
    context = {
        "campaigns": known,
        "chosen": chosen,
        "disputes": shown,
        "texts": json.dumps(texts_for(request, portal, visitor.person.locale, "label.")),
    }
    return page(request, "adjudicate.html", context)


def _shown(portal: Portal, campaign_id: bytes, entry: adjudicating.Dispute) -> dict[str, Any]:
    content = unseal_item(portal.store.keys, campaign_id, entry.item_id, entry.sealed)
    item = {
        "kind": entry.kind,
        "mask_spans": list(entry.mask_spans),
        "language": "",
        **content_fields(Kind(entry.kind), content, entry.item_id),
    }
    answers = [
        {
            "letter": answer.letter,
            "classes": list(parse_answer(answer.answer_key).class_indices)
            or [parse_answer(answer.answer_key).class_index],
            "seconds": answer.seconds,
        }
        for answer in entry.answers
    ]
    return {
        "item_id": entry.item_id.hex(),
        "item": json.dumps(item),
        "answers": answers,
        "is_own": entry.is_own,
    }


@router.post("/adjudicate", include_in_schema=False)
async def adjudicate_form(
    portal: PortalOf, visitor: Adjudicator, form: Annotated[AdjudicationForm, Form()]
) -> Response:
    """Takes the form of one dispute; class -1 is "nobody can tell"."""
    answer = Answer(form.class_index if form.class_index >= 0 else None)
    decision = Decision(
        bytes.fromhex(form.item_id), answer, 0.0, f"adjudicate-{form.item_id}", note=form.note
    )
    desk = desk_of(portal, visitor, None)
    raise_if_refused(
        await portal.store.database.write_soon(lambda c: adjudicating.adjudicate(c, desk, decision))
    )
    return RedirectResponse(f"/adjudicate?campaign={form.campaign}", 303)


@router.post("/api/adjudications", tags=["quality"])
async def adjudicate(portal: PortalOf, visitor: Adjudicator, body: AnnotationBody) -> ReceiptBody:
    """Ends a dispute. A note is required; who answered before may not decide."""
    decision = Decision(
        bytes.fromhex(body.item_id),
        Answer(body.class_index),
        body.seconds,
        body.client_token,
        note=body.note,
    )
    desk = desk_of(portal, visitor, None)
    receipt = raise_if_refused(
        await portal.store.database.write_soon(lambda c: adjudicating.adjudicate(c, desk, decision))
    )
    return ReceiptBody(
        stored=receipt.stored,
        item_state=receipt.item_state,
        annotation_id=receipt.annotation_id,
        client_token=body.client_token,
    )
