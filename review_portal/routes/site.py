"""The site lead's page: what was asked, what left, hold or decline; campaigns' settings."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from review_portal.core.model import Campaign
from review_portal.egress.reading import spent_epsilon
from review_portal.portal import Portal
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import Overseer, PortalOf, SiteLead, raise_if_refused
from review_portal.routes.pages import page
from review_portal.site_report import site_report
from review_portal.store import audit, automatic, counters, leaks, notes, site_view
from review_portal.store.campaigns import put_settings, settings_of

router = APIRouter(include_in_schema=False)


@router.get("/site")
async def site_page(
    request: Request, portal: PortalOf, _: Overseer, campaign: str = ""
) -> Response:
    """Everything that the site lead answers for."""
    known, chosen = chosen_campaign(portal, campaign)
    context: dict[str, Any] = {"campaigns": known, "chosen": chosen, "link": portal.link}
    context["now"] = portal.clock()
    context["leaks"] = await portal.store.database.read_soon(leaks.open_reports)
    if chosen is not None:
        wanted = chosen
        context |= await portal.store.database.read_soon(lambda c: _facts(c, portal, wanted))
        context["days"] = await run_in_threadpool(
            portal.quality.work_by_day, wanted, portal.clock()
        )
        context["epsilons"] = await run_in_threadpool(
            spent_epsilon, portal.egress, wanted.campaign_id
        )
    return page(request, "site.html", context)


def _facts(connection: Connection, portal: Portal, campaign: Campaign) -> dict[str, Any]:
    now, campaign_id = portal.clock(), campaign.campaign_id
    settings = settings_of(connection, campaign_id)
    asked = site_view.asked(connection, campaign_id)
    version = max((row.model_version for row in asked), default=0)
    found = notes.search(connection, portal.store.keys, campaign_id, limit=200)
    return {
        "settings": settings,
        "auto_from": automatic.supported(connection, campaign_id, version, settings),
        "counts": counters.counts(connection, campaign_id),
        "asked": asked,
        "left": site_view.left(connection, campaign_id),
        "oldest": site_view.waiting_seconds(connection, campaign_id, now),
        "latency": site_view.latency_seconds(connection, campaign_id),
        "report": site_report(connection, campaign, now),
        "unsent": site_view.unsent_count(connection),
        "flags": [entry for entry in found if entry.sort == "flag"],
    }


@router.post("/site/allocation")
async def decide_allocation(
    portal: PortalOf,
    visitor: SiteLead,
    campaign: Annotated[str, Form(max_length=80)],
    decision: Annotated[Literal["hold", "flow", "approve", "decline"], Form()],
) -> Response:
    """Holds new items, lets them flow, or says yes or no to those that are held."""
    chosen = portal.store.campaign(campaign)
    actor, now = f"person:{visitor.person.person_id}", portal.clock()

    def work(connection: Connection) -> None:
        if decision == "approve":
            site_view.release_held(connection, chosen.campaign_id, actor=actor, now=now)
        elif decision == "decline":
            site_view.decline_held(connection, chosen.campaign_id, actor=actor, now=now)
        else:
            known = settings_of(connection, chosen.campaign_id)
            held = replace(known, is_held=decision == "hold")
            put_settings(connection, chosen.campaign_id, held)
            event = audit.Event(actor, "campaign.set", campaign, {"is_held": held.is_held})
            audit.append(connection, now, event)

    await portal.store.database.write_soon(work)
    portal.wake()
    return RedirectResponse(f"/site?campaign={campaign}", 303)


@router.post("/site/decline")
async def decline_item(
    portal: PortalOf,
    visitor: SiteLead,
    campaign: Annotated[str, Form(max_length=80)],
    item_id: Annotated[str, Form(pattern="^[0-9a-f]{32}$")],
) -> Response:
    """Takes one flagged item out."""
    actor, now = f"person:{visitor.person.person_id}", portal.clock()
    raise_if_refused(
        await portal.store.database.write_soon(
            lambda c: site_view.decline_item(c, bytes.fromhex(item_id), actor=actor, now=now)
        )
    )
    return RedirectResponse(f"/site?campaign={campaign}", 303)


@router.post("/site/settings")
async def change_settings(request: Request, portal: PortalOf, visitor: SiteLead) -> Response:
    """Changes how a campaign runs at this site."""
    form = await request.form()
    chosen = portal.store.campaign(str(form.get("campaign", "")))
    actor, now = f"person:{visitor.person.person_id}", portal.clock()
    changes: dict[str, Any] = {
        key: min(max(_number(form.get(key)), 0.0), most)
        for key, most in (
            ("double_ratio", 1.0),
            ("gold_ratio", 0.5),
            ("repeat_ratio", 0.5),
            ("auto_threshold", 1.0),
            ("auto_accuracy", 0.999),
            ("auto_audit_ratio", 1.0),
        )
    }
    changes["share_class_index"] = form.get("share_class_index") == "on"
    changes["confidence_shown"] = form.get("confidence_shown") == "on"
    changes["majority"] = form.get("majority") == "on"
    mode = str(form.get("answer_mode", "single"))
    changes["answer_mode"] = mode if mode in {"single", "multi", "spans"} else "single"
    changes["skill"] = str(form.get("skill", ""))[:40].strip()

    def work(connection: Connection) -> None:
        settings = replace(settings_of(connection, chosen.campaign_id), **changes)
        put_settings(connection, chosen.campaign_id, settings)
        audit.append(
            connection, now, audit.Event(actor, "campaign.set", chosen.name, asdict(settings))
        )

    await portal.store.database.write_soon(work)
    return RedirectResponse(f"/site?campaign={chosen.name}", 303)


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0
