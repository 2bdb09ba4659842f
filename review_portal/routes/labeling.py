"""JSON API of the labeling loop."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from review_portal.access import Visitor
from review_portal.core.model import Answer, Campaign, Decision, Receipt, Refusal
from review_portal.portal import Portal
from review_portal.routes import items_view
from review_portal.routes.guard import (
    Labeler,
    PortalOf,
    Refused,
    VisitorOf,
    raise_if_refused,
)
from review_portal.routes.shapes import (
    AnnotationBody,
    AnnotationsBody,
    CampaignBody,
    ExampleBody,
    FlagBody,
    LeasesBody,
    QueueBody,
    ReceiptBody,
    SkipBody,
    UndoBody,
)
from review_portal.store import annotations as decisions
from review_portal.store import counters, flags, leaks, queue, requests_seen, site_view
from review_portal.store.campaigns import (
    find_campaign_named,
    list_campaigns,
    settings_of,
)
from review_portal.store.exemplars import Exemplar, exemplars
from review_portal.store.people import Person

router = APIRouter(prefix="/api", tags=["labeling"])

CAMPAIGN_UNKNOWN = Refusal("CAMPAIGN_UNKNOWN", "this site takes part in no such campaign")
CAMPAIGN_PAUSED = Refusal("CAMPAIGN_PAUSED", "the campaign is paused or completed")


@router.get("/campaigns")
async def campaigns(portal: PortalOf, _: VisitorOf) -> list[CampaignBody]:
    """Campaigns of this site with their counts."""

    def work(connection: Connection) -> list[CampaignBody]:
        return [
            items_view.campaign_body(
                campaign,
                settings_of(connection, campaign.campaign_id),
                counters.counts(connection, campaign.campaign_id),
            )
            for campaign in list_campaigns(connection)
        ]

    return await portal.store.database.read_soon(work)


def may_take(
    connection: Connection, campaign: Campaign, person: Person, now: float
) -> Refusal | None:
    """Returns why a person gets no new items of a campaign now, or None."""
    if campaign.state != "ACTIVE":
        return CAMPAIGN_PAUSED
    skill = settings_of(connection, campaign.campaign_id).skill
    if skill and skill not in person.skills:
        return Refusal("SKILL", f"this campaign is for people with the skill {skill!r}")
    quota = person.daily_quota
    if quota and site_view.decided_today(connection, person.person_id, now) >= quota:
        return Refusal("QUOTA_DONE", f"your {quota} decisions of today are done; thank you")
    return None


@router.get("/queue")
async def fetch_queue(
    portal: PortalOf,
    visitor: Labeler,
    campaign: str,
    count: Annotated[int, Query(ge=1, le=queue.LEASE_COUNT_MAX)] = 20,
    renew: bool = False,
) -> QueueBody:
    """Leases items until the caller holds `count` of them; those held already come first.

    With `renew` those held get new lease ids: a page that opens asks for it, so that the page
    before it, which gives its leases back while it closes, gives none of these back.

    The view of each item is in the audit log before the item is in the answer.
    """
    now = portal.clock()
    person = visitor.person

    def work(
        connection: Connection,
    ) -> tuple[Campaign, tuple[queue.QueuedItem, ...], int] | Refusal:
        found = find_campaign_named(connection, campaign)
        if found is None:
            return CAMPAIGN_UNKNOWN
        refused = may_take(connection, found, person, now)
        if refused is not None:
            return refused
        request = queue.LeaseRequest(
            person.person_id,
            found.campaign_id,
            count,
            now,
            now + portal.config.lease_seconds,
            person.languages,
            renew,
        )
        leased = queue.lease(connection, request)
        if not settings_of(connection, found.campaign_id).confidence_shown:
            leased = queue.without_suggestions(leased)
        waiting = counters.counts(connection, found.campaign_id).get("items.OPEN", 0)
        return found, leased, waiting

    found, leased, waiting = raise_if_refused(await portal.store.database.write_soon(work))
    bodies = [items_view.item_body(portal, found, entry, person.person_id) for entry in leased]
    return QueueBody(
        campaign_id=found.campaign_id.hex(),
        lease_seconds=portal.config.lease_seconds,
        waiting_count=waiting,
        items=bodies,
    )


def decision_of(body: AnnotationBody) -> Decision:
    """Builds the decision behind a request body."""
    indices = tuple(sorted(set(body.class_indices)))
    first = indices[0] if indices and body.class_index is None else body.class_index
    marked = body.spans or ()
    spans = tuple(sorted((s.start, s.end, s.class_index) for s in marked if s.start < s.end))
    is_nothing = body.spans == [] and first is None and not body.reason_code
    return Decision(
        item_id=bytes.fromhex(body.item_id),
        answer=Answer(first, indices, spans, is_nothing),
        seconds=body.seconds,
        client_token=body.client_token,
        lease_id=body.lease_id,
        note=body.note,
        suggestion_shown=body.suggestion_shown,
        reason_code=body.reason_code,
        schema_version=body.schema_version,
        content_sha256=bytes.fromhex(body.content_sha256),
    )


def desk_of(portal: Portal, visitor: Visitor, decision: Decision | None) -> decisions.Desk:
    """Returns where a decision is made, with the check of its lease proof."""
    held_before = False
    if decision is not None and decision.lease_id and "." in decision.lease_id:
        lease_id = decision.lease_id.partition(".")[0]
        person_id = visitor.person.person_id
        proof = items_view.proof_of(portal, person_id, decision.item_id, lease_id)
        held_before = proof == decision.lease_id
    return decisions.Desk(
        expert_id=visitor.person.person_id,
        now=portal.clock(),
        keys=portal.store.keys,
        outcome_delay_seconds=portal.config.outcome_delay_seconds,
        held_before=held_before,
    )


async def _record(portal: Portal, visitor: Visitor, body: AnnotationBody) -> Receipt | Refusal:
    decision = decision_of(body)
    desk = desk_of(portal, visitor, decision)
    return await portal.store.database.write_soon(
        lambda connection: decisions.record(connection, desk, decision)
    )


def _receipt(body: AnnotationBody, outcome: Receipt | Refusal) -> ReceiptBody:
    if isinstance(outcome, Refusal):
        return ReceiptBody(
            stored="refused",
            item_state="",
            annotation_id=0,
            client_token=body.client_token,
            reason=outcome.reason,
            message=outcome.message,
        )
    return ReceiptBody(
        stored=outcome.stored,
        item_state=outcome.item_state,
        annotation_id=outcome.annotation_id,
        client_token=body.client_token,
    )


@router.post("/annotations")
async def annotate(portal: PortalOf, visitor: Labeler, body: AnnotationBody) -> ReceiptBody:
    """Stores a decision, durably. A repeat of `client_token` gets the first answer."""
    return _receipt(body, raise_if_refused(await _record(portal, visitor, body)))


@router.post("/annotations/batch")
async def annotate_batch(
    portal: PortalOf, visitor: Labeler, body: AnnotationsBody
) -> list[ReceiptBody]:
    """Stores decisions that waited in a browser; each is answered for itself."""
    return [_receipt(entry, await _record(portal, visitor, entry)) for entry in body.annotations]


@router.post("/undo")
async def undo(portal: PortalOf, visitor: Labeler, body: UndoBody) -> ReceiptBody:
    """Takes a decision back; its item is leased to the caller again."""
    desk = desk_of(portal, visitor, None)
    until = desk.now + portal.config.lease_seconds
    outcome = await portal.store.database.write_soon(
        lambda connection: decisions.undo(
            connection,
            desk,
            client_token=body.client_token,
            of_token=body.of_token,
            until=until,
        )
    )
    receipt: Receipt = raise_if_refused(outcome)
    return ReceiptBody(
        stored=receipt.stored,
        item_state=receipt.item_state,
        annotation_id=receipt.annotation_id,
        client_token=body.client_token,
    )


@router.post("/leases/release")
async def release_leases(portal: PortalOf, visitor: Labeler, body: LeasesBody) -> dict[str, int]:
    """Gives items back that the caller will not decide now."""
    ids = [lease_id.partition(".")[0] for lease_id in body.lease_ids]
    released = await portal.store.database.write_soon(
        lambda connection: queue.release(connection, visitor.person.person_id, ids)
    )
    return {"released_count": released}


@router.get("/examples")
async def examples(portal: PortalOf, visitor: Labeler, campaign: str) -> list[ExampleBody]:
    """Up to two settled items per class, for the guideline."""
    now, person_id = portal.clock(), visitor.person.person_id

    def work(connection: Connection) -> tuple[Campaign, tuple[Exemplar, ...]] | Refusal:
        found = find_campaign_named(connection, campaign)
        if found is None:
            return CAMPAIGN_UNKNOWN
        return found, exemplars(connection, found.campaign_id, reader_id=person_id, now=now)

    found, shown = raise_if_refused(await portal.store.database.write_soon(work))
    return [items_view.example_body(portal, found.campaign_id, entry) for entry in shown]


@router.post("/skips")
async def skip_item(portal: PortalOf, visitor: Labeler, body: SkipBody) -> dict[str, int]:
    """Puts an item off: somebody else gets it, or the caller tomorrow."""
    now = portal.clock()
    skipped = await portal.store.database.write_soon(
        lambda connection: queue.skip(
            connection, visitor.person.person_id, bytes.fromhex(body.item_id), now
        )
    )
    return {"skipped_count": skipped}


@router.post("/leases/extend")
async def extend_leases(portal: PortalOf, visitor: Labeler) -> dict[str, float]:
    """Extends all leases of the caller."""
    until = portal.clock() + portal.config.lease_seconds
    await portal.store.database.write_soon(
        lambda connection: queue.extend(connection, visitor.person.person_id, until)
    )
    return {"lease_until": until}


@router.post("/flags")
async def flag_item(portal: PortalOf, visitor: Labeler, body: FlagBody) -> dict[str, int]:
    """Tells the site lead that something is wrong with an item; named words go everywhere."""
    flag = flags.NewFlag(
        bytes.fromhex(body.item_id), visitor.person.person_id, body.reason_code, body.note
    )
    asked = requests_seen.Asked(flag.expert_id, body.client_token)
    keys, database = portal.store.keys, portal.store.database
    number = await database.read_soon(lambda c: requests_seen.answered(c, asked))
    if number is None:
        seen = leaks.NOTHING_SEEN
        if body.words.strip():
            surveyed = await run_in_threadpool(leaks.survey, database, keys, flag, body.words)
            seen = raise_if_refused(surveyed)
        when = leaks.Moment(portal.clock(), seen)

        def work(connection: Connection) -> int | Refusal:
            if body.words.strip():
                return leaks.report(connection, keys, flag, body.words, when)
            return flags.raise_flag(connection, keys, flag, when.now)

        done = await database.write_soon(lambda c: requests_seen.once(c, asked, work))
        number = raise_if_refused(done)
    return {"report_id" if body.words.strip() else "flag_id": number}


@router.get("/items/{item_id}/content", responses={200: {"content": {"image/png": {}}}})
async def item_content(portal: PortalOf, visitor: Labeler, item_id: str) -> Response:
    """An image that the caller holds a lease of."""
    try:
        wanted = bytes.fromhex(item_id)
    except ValueError:
        raise Refused(404, Refusal("ITEM_UNKNOWN", "no such item")) from None
    person_id = visitor.person.person_id
    found = await portal.store.database.read_soon(
        lambda connection: flags.held_content(connection, wanted, person_id)
    )
    if found is None:
        raise Refused(404, Refusal("ITEM_UNKNOWN", "you do not hold this item"))
    campaign_id, sealed = found
    content = queue.unseal_item(portal.store.keys, campaign_id, wanted, sealed)
    return Response(content, media_type="image/png")
