"""Words that experts found to have got through masking: the alarm, the list, its export."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from sqlalchemy import Connection
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from review_portal.access import Visitor
from review_portal.portal import Portal
from review_portal.routes.guard import PortalOf, SiteLead
from review_portal.routes.pages import page
from review_portal.store import audit, leak_terms, leaks

router = APIRouter(include_in_schema=False)


async def _viewed(portal: Portal, visitor: Visitor, action: str) -> tuple[leak_terms.Term, ...]:
    """Returns the list once the view of it is in the audit log."""
    actor, now = f"person:{visitor.person.person_id}", portal.clock()

    def work(connection: Connection) -> tuple[leak_terms.Term, ...]:
        terms = leak_terms.list_terms(connection, portal.store.keys)
        event = audit.Event(actor, action, "", {"count": len(terms)})
        audit.append(connection, now, event)
        return terms

    return await portal.store.database.write_soon(work)


@router.get("/site/leaks")
async def leaks_page(request: Request, portal: PortalOf, visitor: SiteLead) -> Response:
    """The words that this site masks in whatever comes, for the site lead alone."""
    terms = await _viewed(portal, visitor, "leak.list_viewed")
    found = await portal.store.database.read_soon(leaks.open_reports)
    return page(request, "leaks.html", {"terms": terms, "leaks": found})


@router.get("/site/leaks/export")
async def export_terms(portal: PortalOf, visitor: SiteLead) -> Response:
    """The list as lines for the agents' settings."""
    terms = await _viewed(portal, visitor, "leak.list_exported")
    return PlainTextResponse(
        leak_terms.as_toml(terms),
        headers={"content-disposition": 'attachment; filename="deny.toml"'},
    )


@router.post("/site/leaks/seen")
async def see_report(
    portal: PortalOf,
    visitor: SiteLead,
    report_id: Annotated[int, Form(ge=1, lt=2**63)],
    campaign: Annotated[str, Form(max_length=80)] = "",
) -> Response:
    """Ends the alarm of one report."""
    person_id, now = visitor.person.person_id, portal.clock()
    await portal.store.database.write_soon(
        lambda connection: leaks.mark_seen(connection, report_id, person_id, now)
    )
    return RedirectResponse(f"/site?campaign={campaign}" if campaign else "/site", 303)


@router.post("/site/leaks/remove")
async def remove_term(
    portal: PortalOf,
    visitor: SiteLead,
    term_id: Annotated[str, Form(pattern="^[0-9a-f]{32}$")],
) -> Response:
    """Takes words off the list that were no leak."""
    actor, now = f"person:{visitor.person.person_id}", portal.clock()
    await portal.store.database.write_soon(
        lambda connection: leak_terms.remove(
            connection, bytes.fromhex(term_id), actor=actor, now=now
        )
    )
    return RedirectResponse("/site/leaks", 303)
