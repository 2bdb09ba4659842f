"""People of the site, and everybody's own account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from review_portal.core.model import Refusal, Role
from review_portal.errors import AccessError
from review_portal.routes.guard import PortalOf, Refused, SiteLead, VisitorOf
from review_portal.routes.pages import page
from review_portal.routes.shapes import NewPersonForm, PersonForm, PreferencesBody
from review_portal.store import audit, people

router = APIRouter()
TOKEN_DAYS = 90
KEYS = {
    "accept": ("Enter", " "), "cannot_tell": ("0", "x"), "undo": ("u", "Backspace"), "skip": ("s",),
    "note": ("n",), "flag": ("f",), "guideline": ("g",), "evidence": ("e",), "search": ("/",),
    "help": ("?",),
}  # fmt: skip
"""Keys of somebody who changed none; the same as in `static/label.js`."""


@router.get("/people", include_in_schema=False)
async def people_page(request: Request, portal: PortalOf, _: SiteLead) -> Response:
    """Everybody with a login."""
    found = await portal.store.database.read_soon(people.list_people)
    context = {"people": found, "roles": list(Role)}
    return page(request, "people.html", context)


@router.post("/people", include_in_schema=False)
async def add_person(
    portal: PortalOf, _: SiteLead, form: Annotated[NewPersonForm, Form()]
) -> Response:
    """Gives somebody a login."""
    try:
        await asyncio.to_thread(
            portal.access.add_person,
            form.username.strip().lower(),
            form.password,
            role=form.role,
            display_name=form.display_name.strip(),
        )
    except AccessError as error:
        raise Refused(409, Refusal("PERSON", str(error))) from None
    return RedirectResponse("/people", 303)


@router.post("/people/{person_id}", include_in_schema=False)
async def change_person(
    portal: PortalOf, visitor: SiteLead, person_id: int, form: Annotated[PersonForm, Form()]
) -> Response:
    """Changes somebody's role, hours, quota, languages and skills, or locks them out."""
    if person_id == visitor.person.person_id:
        raise Refused(409, Refusal("OWN_RIGHTS", "somebody else must change your own rights"))
    changes: dict[str, Any] = {
        "role": form.role.value,
        "hours_per_day": form.hours_per_day,
        "daily_quota": form.daily_quota,
        "languages": _listed(form.languages),
        "skills": _listed(form.skills),
        "is_disabled": form.is_disabled == "on",
    }
    now, actor = portal.clock(), f"person:{visitor.person.person_id}"

    def work(connection: Connection) -> None:
        known = people.find_person(connection, person_id)
        if known is None:
            return
        # Only a real change of rights ends somebody's sessions.
        if known.role.value == changes["role"] and known.is_disabled == changes["is_disabled"]:
            del changes["role"], changes["is_disabled"]
        people.change_person(connection, person_id, changes)
        audit.append(connection, now, audit.Event(actor, "person.changed", str(person_id), changes))

    await portal.store.database.write_soon(work)
    return RedirectResponse("/people", 303)


def _listed(value: object) -> list[str]:
    return [part.strip() for part in str(value or "").split(",") if part.strip()][:20]


@router.get("/account", include_in_schema=False)
async def account_page(request: Request, portal: PortalOf, visitor: VisitorOf) -> Response:
    """One's own language, look, keys and API tokens."""
    return await _account(request, portal, visitor, "")


async def _account(request: Request, portal: PortalOf, visitor: VisitorOf, made: str) -> Response:
    person_id = visitor.person.person_id
    tokens = await portal.store.database.read_soon(lambda c: people.list_api_tokens(c, person_id))
    context = {
        "tokens": tokens,
        "made": made,
        "locales": portal.catalogues.locales(),
        "preferences": dict(visitor.person.preferences),
        "keys": _key_texts(visitor.person.preferences.get("keys", {})),
        "now": portal.clock(),
    }
    return page(request, "account.html", context)


@router.post("/account", include_in_schema=False)
async def change_account(
    request: Request,
    portal: PortalOf,
    visitor: VisitorOf,
    locale: Annotated[str, Form(max_length=5)] = "",
    theme: Annotated[Literal["auto", "light", "dark"], Form()] = "auto",
) -> Response:
    """Stores language, look and keys."""
    form = await request.form()
    keys = {
        name.removeprefix("key_"): [part for part in str(value).split(" ") if part][:3]
        for name, value in form.items()
        if name.removeprefix("key_") in KEYS
    }
    preferences = {
        "theme": theme,
        "single_keys": form.get("single_keys") == "on",
        "suggestions": form.get("suggestions") == "on",
        "evidence": form.get("evidence") == "on",
        "keys": {name: [_key(k) for k in bound] for name, bound in keys.items()},
    }
    known = locale if locale in portal.catalogues.locales() else ""
    changes = {"preferences": preferences, "locale": known}
    person_id = visitor.person.person_id
    await portal.store.database.write_soon(lambda c: people.change_person(c, person_id, changes))
    return RedirectResponse("/account", 303)


def _key_texts(own: Mapping[str, list[str]]) -> dict[str, str]:
    bound = {name: own.get(name, default) for name, default in KEYS.items()}
    return {name: " ".join(_key_name(key) for key in found) for name, found in bound.items()}


def _key_name(key: str) -> str:
    return "Space" if key == " " else key


def _key(name: str) -> str:
    return {"Space": " "}.get(name, name)[:20]


@router.post("/account/password", include_in_schema=False)
async def change_password(
    portal: PortalOf,
    visitor: VisitorOf,
    old: Annotated[str, Form(max_length=256)],
    new: Annotated[str, Form(max_length=256)],
) -> Response:
    """Changes one's own password; every session ends, this one too."""
    person = visitor.person
    try:
        done = await asyncio.to_thread(
            portal.access.change_password, person.person_id, person.username, old=old, new=new
        )
    except AccessError as error:
        raise Refused(409, Refusal("PASSWORD_WEAK", str(error))) from None
    if not done:
        raise Refused(409, Refusal("PASSWORD_WRONG", "the old password is wrong"))
    return RedirectResponse("/login", 303)


@router.put("/api/preferences", tags=["session"])
async def put_preferences(
    portal: PortalOf, visitor: VisitorOf, body: PreferencesBody
) -> dict[str, bool]:
    """Stores keys and other choices of one's own."""
    merged = {**visitor.person.preferences, **body.model_dump(exclude_none=True)}
    person_id = visitor.person.person_id
    await portal.store.database.write_soon(
        lambda c: people.change_person(c, person_id, {"preferences": merged})
    )
    return {"stored": True}


@router.post("/account/tokens", include_in_schema=False)
async def make_token(
    request: Request,
    portal: PortalOf,
    visitor: VisitorOf,
    purpose: Annotated[str, Form(min_length=1, max_length=80)],
) -> Response:
    """Makes an API token and shows it once."""
    made = await asyncio.to_thread(
        portal.access.make_api_token, visitor.person.person_id, purpose, days=TOKEN_DAYS
    )
    return await _account(request, portal, visitor, made)


@router.post("/account/tokens/{token_id}/revoke", include_in_schema=False)
async def revoke_token(portal: PortalOf, visitor: VisitorOf, token_id: int) -> Response:
    """Ends an API token."""
    person_id, now = visitor.person.person_id, portal.clock()
    await portal.store.database.write_soon(
        lambda c: people.revoke_api_token(c, person_id, token_id, now)
    )
    return RedirectResponse("/account", 303)
