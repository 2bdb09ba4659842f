"""Server-rendered pages."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from review_portal.core.markdown import to_html
from review_portal.core.model import Campaign, ItemState, Role
from review_portal.portal import PACKAGE, Portal
from review_portal.routes.choosing import chosen_campaign
from review_portal.routes.guard import LABELERS, PortalOf, find_visitor, portal_of
from review_portal.store import counters
from review_portal.store.campaigns import settings_of
from review_portal.texts import choose_locale

router = APIRouter(include_in_schema=False)

TEMPLATES = Environment(
    loader=FileSystemLoader(PACKAGE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
NAVIGATION = (
    ("/label", "nav.label", frozenset({Role.EXPERT, Role.ADJUDICATOR})),
    ("/bulk", "nav.bulk", frozenset({Role.EXPERT, Role.ADJUDICATOR})),
    ("/adjudicate", "nav.adjudicate", frozenset({Role.ADJUDICATOR})),
    ("/notes", "nav.notes", frozenset({Role.EXPERT, Role.ADJUDICATOR, Role.SITE_LEAD})),
    ("/unmask", "nav.unmask", frozenset(Role)),
    ("/site", "nav.site", frozenset({Role.SITE_LEAD, Role.AUDITOR})),
    ("/egress", "nav.egress", frozenset({Role.SITE_LEAD, Role.AUDITOR})),
    ("/quality", "nav.quality", frozenset({Role.SITE_LEAD, Role.AUDITOR, Role.ADJUDICATOR})),
    ("/people", "nav.people", frozenset({Role.SITE_LEAD})),
    ("/audit", "nav.audit", frozenset({Role.SITE_LEAD, Role.AUDITOR})),
    ("/account", "nav.account", frozenset(Role)),
)


def compile_templates() -> None:
    """Compiles all templates, so that the first visitor does not wait for it."""
    for name in TEMPLATES.list_templates():
        TEMPLATES.get_template(name)


def locale_of(request: Request, portal: Portal, own: str) -> str:
    """Returns the language of a page."""
    return choose_locale(
        portal.catalogues.locales(),
        own or request.cookies.get("perimeter-locale", ""),
        request.headers.get("accept-language", ""),
        portal.config.locale,
    )


def page(
    request: Request, template: str, context: Mapping[str, Any], *, status_code: int = 200
) -> HTMLResponse:
    """Renders a page in the reader's language."""
    portal = portal_of(request)
    visitor = find_visitor(request)
    person = None if visitor is None else visitor.person
    locale = locale_of(request, portal, "" if person is None else person.locale)

    def text(key: str, **values: object) -> str:
        return portal.catalogues.text(locale, key, values)

    links = [(path, key) for path, key, roles in NAVIGATION if person and person.role in roles]
    shown = TEMPLATES.get_template(template).render(
        {
            "t": text,
            "day": _day,
            "moment": _moment,
            "locale": locale,
            "person": person,
            "links": links,
            "path": request.url.path,
            "site_name": portal.config.site_name,
            "theme": "auto" if person is None else person.preferences.get("theme", "auto"),
            "csrf_token": "" if visitor is None else visitor.csrf_token,
            **context,
        }
    )
    return HTMLResponse(shown, status_code)


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d")


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def texts_for(request: Request, portal: Portal, own: str, prefix: str) -> dict[str, str]:
    """Returns the texts that a page's script needs, in the reader's language."""
    catalogue = portal.catalogues.of(locale_of(request, portal, own))
    return {key: text for key, text in catalogue.items() if key.startswith(prefix)}


def _campaign_facts(portal: Portal, chosen: Campaign | None) -> dict[str, Any]:
    if chosen is None:
        return {"campaign": None}
    wanted = chosen.campaign_id
    settings = portal.store.database.read(lambda c: settings_of(c, wanted))
    return {
        "campaign": chosen.name,
        "kind": chosen.kind.value,
        "classes": chosen.classes,
        "schema_version": chosen.schema_version,
        "answer_mode": settings.answer_mode,
        "unmasking": settings.unmasking,
    }


@router.get("/label")
async def label_page(request: Request, portal: PortalOf, campaign: str = "") -> Response:
    """The labeling loop."""
    visitor = find_visitor(request)
    if visitor is None:
        return RedirectResponse("/login", 303)
    if visitor.person.role not in LABELERS:
        return RedirectResponse("/", 303)
    open_counts = portal.store.database.read(
        lambda c: counters.of_all_campaigns(c, counters.state_name(ItemState.OPEN.value))
    )
    known, chosen = chosen_campaign(portal, campaign, with_work=open_counts)
    locale = locale_of(request, portal, visitor.person.locale)
    texts = texts_for(request, portal, visitor.person.locale, "label.")
    boot = {
        **_campaign_facts(portal, chosen),
        "csrf_token": visitor.csrf_token,
        "person_id": visitor.person.person_id,
        "preferences": dict(visitor.person.preferences),
        "texts": texts,
        "locale": locale,
    }
    guideline = Markup(to_html(chosen.guideline)) if chosen else ""  # noqa: S704  escaped by to_html
    context = {
        "campaigns": known,
        "chosen": chosen,
        "boot": json.dumps(boot),
        "guideline": guideline,
        "open_counts": open_counts,
    }
    return page(request, "label.html", context)
