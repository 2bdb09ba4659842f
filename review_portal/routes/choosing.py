"""Which campaign a page is about."""

from __future__ import annotations

from collections.abc import Collection

from review_portal.core.model import Campaign
from review_portal.portal import Portal


def chosen_campaign(
    portal: Portal, name: str, *, with_work: Collection[bytes] = ()
) -> tuple[tuple[Campaign, ...], Campaign | None]:
    """Returns all campaigns and the one of that name, else the first that runs, else the first.

    Among those that run, the ones `with_work` come first.
    """
    known = portal.store.campaigns()
    running = [*(c for c in known if c.state == "ACTIVE"), *known, None]
    if with_work:
        running = [*(c for c in running if c and c.campaign_id in with_work), *running]
    return known, next((c for c in known if c.name == name), running[0])
