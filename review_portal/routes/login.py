"""Logging in and out, for people and for scripts."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from review_portal.access import TOO_MANY, Visitor
from review_portal.core.model import Refusal, Role
from review_portal.portal import Portal
from review_portal.routes.guard import (
    CSRF,
    PortalOf,
    Refused,
    VisitorOf,
    cookie_name,
    find_visitor,
)
from review_portal.routes.pages import page
from review_portal.routes.shapes import SessionBody

router = APIRouter(tags=["session"])

HOMES = {
    Role.EXPERT: "/label",
    Role.ADJUDICATOR: "/label",
    Role.SITE_LEAD: "/site",
    Role.AUDITOR: "/audit",
}


def _visit_cookie(portal: Portal) -> str:
    return "__Host-perimeter-visit" if portal.uses_tls else "perimeter-visit"


def _set_cookie(portal: Portal, response: Response, name: str, value: str) -> None:
    response.set_cookie(
        name, value, httponly=True, samesite="strict", secure=portal.uses_tls, path="/"
    )


def _visit(request: Request, portal: Portal) -> str:
    return request.cookies.get(_visit_cookie(portal)) or secrets.token_urlsafe(24)


def _login_page(request: Request, portal: Portal, refusal: Refusal | None, status: int) -> Response:
    visit = _visit(request, portal)
    context = {
        "csrf_token": portal.access.csrf_token(visit),
        "failure": "" if refusal is None else refusal.reason,
    }
    response = page(request, "login.html", context, status_code=status)
    _set_cookie(portal, response, _visit_cookie(portal), visit)
    return response


@router.get("/login", include_in_schema=False)
async def login_form(request: Request, portal: PortalOf) -> Response:
    """The login page."""
    visitor = find_visitor(request)
    if visitor is not None:
        return RedirectResponse(HOMES[visitor.person.role], 303)
    return _login_page(request, portal, None, 200)


@router.post("/login")
async def log_in(
    request: Request,
    portal: PortalOf,
    username: Annotated[str, Form(max_length=80)],
    password: Annotated[str, Form(max_length=1024)],
    csrf_token: Annotated[str, Form(max_length=200)],
) -> Response:
    """Checks a password. Answers 303 to the person's first page, or 401 and 429 with the form."""
    visit = request.cookies.get(_visit_cookie(portal), "")
    if not visit or not portal.access.csrf_fits(visit, csrf_token):
        return _login_page(request, portal, CSRF, 403)
    address = request.client.host if request.client else ""
    outcome = await asyncio.to_thread(
        portal.access.log_in, username.strip().lower(), password, address=address
    )
    if isinstance(outcome, Refusal):
        return _login_page(request, portal, outcome, 429 if outcome is TOO_MANY else 401)
    response = RedirectResponse(HOMES[outcome.person.role], 303)
    _set_cookie(portal, response, cookie_name(portal), outcome.token)
    return response


@router.post("/logout")
async def log_out(portal: PortalOf, visitor: VisitorOf) -> Response:
    """Ends the session and clears what the browser kept, but for decisions that still wait."""
    await asyncio.to_thread(portal.access.log_out, visitor)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_name(portal), path="/", secure=portal.uses_tls, httponly=True)
    response.headers["clear-site-data"] = '"cache"'
    return response


@router.get("/api/session")
async def session(request: Request, portal: PortalOf, response: Response) -> SessionBody:
    """Who is logged in, and the token that state-changing requests must carry."""
    visitor: Visitor | None = find_visitor(request)
    if visitor is None:
        visit = _visit(request, portal)
        _set_cookie(portal, response, _visit_cookie(portal), visit)
        return SessionBody(authenticated=False, csrf_token=portal.access.csrf_token(visit))
    return SessionBody(
        authenticated=True,
        csrf_token=visitor.csrf_token,
        username=visitor.person.username,
        display_name=visitor.person.display_name,
        role=visitor.person.role.value,
    )


@router.get("/", include_in_schema=False)
async def front_door(request: Request) -> Response:
    """Leads everybody to their first page."""
    visitor = find_visitor(request)
    return RedirectResponse("/login" if visitor is None else HOMES[visitor.person.role], 303)


@router.get("/healthz")
async def health(portal: PortalOf) -> dict[str, bool]:
    """Whether the portal answers and its store can be read."""
    try:
        portal.store.campaigns()
    except Exception as error:
        raise Refused(503, Refusal("STORE", "the label store cannot be read")) from error
    return {"ok": True}
