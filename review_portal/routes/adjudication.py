"""The adjudicator's page: answers that differ, and the decision that ends each dispute."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from review_portal.core.model import Answer, Campaign, Decision, Kind, Receipt, Refusal
from review_portal.portal import Portal
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import Adjudicator, PortalOf, raise_if_refused
from review_portal.routes.items_view import content_fields
from review_portal.routes.labeling import desk_of
from review_portal.routes.pages import page, texts_for
from review_portal.routes.shapes import AdjudicationForm, AnnotationBody, ReceiptBody
from review_portal.store import adjudicating
from review_portal.store.present import parse_answer
from review_portal.store.queue import unseal_item

router = APIRouter()

ANSWER_UNKNOWN = Refusal("ANSWER_UNKNOWN", "no answer stands under this letter; reload the page")


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
    shown = [_shown(portal, chosen, entry) for entry in found] if chosen else []
    context = {
        "campaigns": known,
        "chosen": chosen,
        "disputes": shown,
        "spans": any(":" in (a.answer_key or "") for entry in found for a in entry.answers),
        "texts": json.dumps(texts_for(request, portal, visitor.person.locale, "label.")),
    }
    return page(request, "adjudicate.html", context)


def _shown(portal: Portal, campaign: Campaign, entry: adjudicating.Dispute) -> dict[str, Any]:
    content = unseal_item(portal.store.keys, campaign.campaign_id, entry.item_id, entry.sealed)
    item = {
        "kind": entry.kind,
        "mask_spans": list(entry.mask_spans),
        "language": "",
        **content_fields(Kind(entry.kind), content, entry.item_id),
    }
    answers = [
        {
            "letter": answer.letter,
            "words": _words(
                parse_answer(answer.answer_key), campaign.classes, item.get("text", "")
            ),
            "seconds": answer.seconds,
            # One class is offered by its name; other answers are chosen by their letter.
            "is_whole": answer.answer_key is not None and not answer.answer_key.isdigit(),
        }
        for answer in entry.answers
    ]
    return {
        "item_id": entry.item_id.hex(),
        "item": json.dumps(item),
        "answers": answers,
        "is_own": entry.is_own,
    }


def _words(answer: Answer, classes: tuple[str, ...], text: str) -> str:
    """Returns an answer as people read it; empty for "can't tell".

    >>> _words(Answer(None, spans=((3, 7, 1),)), ("loan", "card"), "my card")
    '“card”: card'
    >>> _words(Answer(0, (0, 1)), ("loan", "card"), "")
    'loan, card'
    """
    if answer.spans:
        return ", ".join(f"“{text[start:end]}”: {classes[c]}" for start, end, c in answer.spans)
    indices = answer.class_indices or (answer.class_index,)
    return ", ".join(classes[index] for index in indices if index is not None)


@router.post("/adjudicate", include_in_schema=False)
async def adjudicate_form(
    portal: PortalOf, visitor: Adjudicator, form: Annotated[AdjudicationForm, Form()]
) -> Response:
    """Takes the form of one dispute."""
    item_id = bytes.fromhex(form.item_id)
    desk = desk_of(portal, visitor, None)

    def work(connection: Connection) -> Receipt | Refusal:
        answer: Answer | None = Answer(None)
        if form.choice.isalpha():
            answer = adjudicating.answer_of(connection, item_id, form.choice)
        elif form.choice != "-1":
            answer = Answer(int(form.choice))
        if answer is None:
            return ANSWER_UNKNOWN
        token = f"adjudicate-{form.item_id}"
        return adjudicating.adjudicate(
            connection, desk, Decision(item_id, answer, 0.0, token, note=form.note)
        )

    raise_if_refused(await portal.store.database.write_soon(work))
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
