"""Which campaign a page is about."""

from __future__ import annotations

from review_portal.core.model import Campaign
from review_portal.portal import Portal


def chosen_campaign(portal: Portal, name: str) -> tuple[tuple[Campaign, ...], Campaign | None]:
    """Returns all campaigns and the one of that name, else the first that runs, else the first."""
    known = portal.store.campaigns()
    running = [*(c for c in known if c.state == "ACTIVE"), *known, None]
    return known, next((c for c in known if c.name == name), running[0])
