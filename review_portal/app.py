"""The web application: routes, pages, and the guard before them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from review_portal.core.model import Refusal
from review_portal.errors import StoreError, StoreMissing
from review_portal.portal import PACKAGE, Portal
from review_portal.routes import (
    adjudication,
    bulk,
    egress,
    labeling,
    leaks,
    login,
    pages,
    people_pages,
    quality,
    records,
    site,
    unmasking,
)
from review_portal.routes.guard import Perimeter, Refused, json_refused

MODULES = (
    login, labeling, adjudication, quality, people_pages, pages, bulk, site, leaks, egress, records,
    unmasking,
)  # fmt: skip
DESCRIPTION = "Labeling of masked items at a site. See docs/portal-api.md."


def refused(request: Request, error: Exception) -> Response:
    """Answers a refusal: JSON to scripts, a page or the login to people."""
    assert isinstance(error, Refused)
    is_page = "text/html" in request.headers.get("accept", "")
    if not is_page or request.url.path.startswith("/api/"):
        return json_refused(request, error)
    if error.status_code == 401 and request.method == "GET":
        return RedirectResponse("/login", 303)
    context = {"message": error.refusal.message, "reason": error.refusal.reason}
    return pages.page(request, "problem.html", context, status_code=error.status_code)


def absent(request: Request, error: Exception) -> Response:
    """Answers a path that leads nowhere, in words to people; a refusal keeps its own reason."""
    if isinstance(error, Refused):  # a handler of a status comes before that of a class
        return refused(request, error)
    assert isinstance(error, HTTPException)
    nowhere = Refusal("PAGE_UNKNOWN", "there is no such page")
    return refused(request, Refused(error.status_code, nowhere))


def store_failed(request: Request, error: Exception) -> Response:
    """Answers an error of the store with its sentence; nothing was half-written."""
    status = 404 if isinstance(error, StoreMissing) else 503
    return refused(request, Refused(status, Refusal("STORE", str(error))))


def create_app(portal: Portal) -> FastAPI:
    """Builds the application around one portal."""
    app = FastAPI(
        title="Perimeter review portal",
        description=DESCRIPTION,
        version="1",
        # The built-in pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.portal = portal
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(StoreError, store_failed)
    app.add_exception_handler(404, absent)
    for module in MODULES:
        app.include_router(module.router)
    pages.compile_templates()
    app.mount("/static", StaticFiles(directory=PACKAGE / "static"), name="static")
    app.add_middleware(Perimeter, tls=portal.uses_tls)
    return app
