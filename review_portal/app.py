"""The web application: routes, pages, and the guard before them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from review_portal.portal import PACKAGE, Portal
from review_portal.routes import labeling, login, pages
from review_portal.routes.guard import Perimeter, Refused, json_refused

DESCRIPTION = "Labeling of masked items at a site. See docs/portal-api.md."


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
    app.add_exception_handler(Refused, json_refused)
    for router in (login.router, labeling.router, pages.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=PACKAGE / "static"), name="static")
    app.add_middleware(Perimeter, tls=portal.uses_tls)
    return app
