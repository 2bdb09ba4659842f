"""Which campaign a page is about."""

from __future__ import annotations

from review_portal.core.model import Campaign
from review_portal.portal import Portal


def chosen_campaign(portal: Portal, name: str) -> tuple[tuple[Campaign, ...], Campaign | None]:
    """Returns all campaigns and the one of that name, else the first, else None."""
    known = portal.store.campaigns()
    chosen = next((c for c in known if c.name == name), known[0] if known else None)
    return known, chosen
