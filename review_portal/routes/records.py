"""Case notes for experts, and the audit log for those who check."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import Connection, Row, select
from starlette.responses import Response

from review_portal.core.model import Role
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import ROLE, Overseer, PortalOf, Refused, VisitorOf
from review_portal.routes.pages import page
from review_portal.store import audit, notes, people
from review_portal.store.tables import audit as audit_rows

router = APIRouter(include_in_schema=False)

PAGE_ROWS = 100


@router.get("/notes")
async def notes_page(
    request: Request, portal: PortalOf, visitor: VisitorOf, campaign: str = "", words: str = ""
) -> Response:
    """The site's case law: reasoning behind hard decisions, searchable."""
    if visitor.person.role is Role.AUDITOR:
        raise Refused(403, ROLE)
    known, chosen = chosen_campaign(portal, campaign)
    found: tuple[notes.ReadNote, ...] = ()
    if chosen is not None:
        wanted = chosen.campaign_id
        found = await portal.store.database.read_soon(
            lambda c: notes.search(c, portal.store.keys, wanted, words=words[:200])
        )
    shown = [entry for entry in found if entry.sort == "note"]
    context = {"campaigns": known, "chosen": chosen, "notes": shown, "words": words[:200]}
    return page(request, "notes.html", context)


@router.get("/audit")
async def audit_page(
    request: Request, portal: PortalOf, _: Overseer, before: int = 0, verify: int = 0
) -> Response:
    """The newest events, page by page, and the check of the whole chain."""

    def work(connection: Connection) -> list[Row[tuple[object, ...]]]:
        query = select(audit_rows).order_by(audit_rows.c.sequence.desc()).limit(PAGE_ROWS)
        if before > 0:
            query = query.where(audit_rows.c.sequence < before)
        return list(connection.execute(query).all())

    rows = await portal.store.database.read_soon(work)
    verified = await portal.store.database.read_soon(audit.verify) if verify else None
    oldest = rows[-1].sequence if rows else 0
    found = await portal.store.database.read_soon(people.list_people)
    names = {f"person:{entry.person_id}": entry.username for entry in found}
    context = {"rows": rows, "oldest": oldest, "verified": verified, "names": names}
    return page(request, "audit.html", context)
