"""Agreement, hidden checks and calibration, for those who answer for quality."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from review_portal.core.agreement_intervals import Estimate
from review_portal.core.agreement_quality import DEFAULT_RULES, AlertKind
from review_portal.core.model import Refusal
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import PortalOf, Quality, Refused
from review_portal.routes.pages import page

router = APIRouter()


def estimate_text(estimate: Estimate | None) -> str:
    """Returns an estimate as people read it: value, interval, number of units.

    >>> estimate_text(None)
    '–'
    """
    if estimate is None or estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f} (n = {estimate.unit_count})"
    interval = f"{estimate.low:.2f} – {estimate.high:.2f}"
    return f"{estimate.value:.2f} ({interval}, n = {estimate.unit_count})"


def estimate_parts(estimate: Estimate) -> tuple[str, str]:
    """Returns value and interval apart, for where one is large and the other small.

    >>> estimate_parts(Estimate(0.5, 0.25, 0.75, 8))
    ('0.50', '0.25 – 0.75, n = 8')
    """
    value, _, rest = estimate_text(estimate).partition(" (")
    return value, rest.removesuffix(")")


@router.get("/quality", include_in_schema=False)
async def quality_page(
    request: Request, portal: PortalOf, _: Quality, campaign: str = ""
) -> Response:
    """Agreement, hidden checks and calibration of a campaign."""
    known, chosen = chosen_campaign(portal, campaign)
    found = None
    if chosen is not None:
        found = await run_in_threadpool(portal.quality.of, chosen)
    context = {
        "campaigns": known,
        "chosen": chosen,
        "report": found,
        "estimate": estimate_text,
        "parts_of": estimate_parts,
        "rules": DEFAULT_RULES,
        "kinds": {
            AlertKind.AGREEMENT: "quality.alert.agreement",
            AlertKind.GOLD: "quality.alert.gold",
            AlertKind.CONSISTENCY: "quality.alert.consistency",
        },
    }
    return page(request, "quality.html", context)


@router.get("/api/quality", tags=["quality"])
async def quality_json(portal: PortalOf, _: Quality, campaign: str) -> dict[str, Any]:
    """The same as JSON. Experts are named by their user names; keep it inside the site."""
    known, _chosen = chosen_campaign(portal, campaign)
    wanted = next((c for c in known if c.name == campaign), None)
    if wanted is None:
        raise Refused(404, Refusal("CAMPAIGN_UNKNOWN", "this site takes part in no such campaign"))
    found = await run_in_threadpool(portal.quality.of, wanted)
    shown = asdict(found)
    shown["alerts"] = [{**asdict(a), "kind": a.kind.value} for a in found.alerts]
    return shown
