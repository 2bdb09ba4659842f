"""What stands before every route: response headers, origin checks, sessions, roles, CSRF."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from review_portal.access import API_TOKEN_PREFIX, Visitor
from review_portal.core.model import Refusal, Role
from review_portal.portal import Portal

BODY_BYTES_MAX = 2 << 20
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LABELERS = frozenset({Role.EXPERT, Role.ADJUDICATOR})
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "object-src 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    # Not `no-referrer`: that makes browsers send "Origin: null" with forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Refused(HTTPException):
    """A refusal on its way out: status code, stable reason, sentence."""

    def __init__(self, status_code: int, refusal: Refusal) -> None:
        super().__init__(status_code, detail=refusal.message)
        self.refusal = refusal


NOT_LOGGED_IN = Refusal("NOT_LOGGED_IN", "log in first")
CSRF = Refusal("CSRF", "the request lacks this session's token; reload the page")
FOREIGN_ORIGIN = Refusal("FOREIGN_ORIGIN", "requests from other origins are refused")
TOO_LARGE = Refusal("TOO_LARGE", f"a request has at most {BODY_BYTES_MAX} bytes")
ROLE = Refusal("ROLE", "your role does not allow this")


def error_body(refusal: Refusal) -> dict[str, str]:
    """Returns the JSON of a refusal."""
    return {"reason": refusal.reason, "message": refusal.message}


class Perimeter:
    """ASGI middleware: strict headers on each response, no requests from other origins.

    Args:
        app: What lies behind it.
        tls: Whether browsers come over HTTPS.
    """

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        self._app = app
        self._tls = tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = _check_request(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(scope, MutableHeaders(scope=message))
            await send(message)

        if refused is not None:
            status = 413 if refused is TOO_LARGE else 403
            await JSONResponse(error_body(refused), status)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _add_headers(self, scope: Scope, headers: MutableHeaders) -> None:
        for name, value in HEADERS.items():
            headers[name] = value
        if not scope["path"].startswith("/static/"):
            headers["cache-control"] = "no-store"
        if self._tls:
            headers["strict-transport-security"] = "max-age=31536000"


def _check_request(scope: Scope) -> Refusal | None:
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > BODY_BYTES_MAX:
        return TOO_LARGE
    # A page elsewhere may link here, but neither change anything nor fetch anything.
    site = headers.get("sec-fetch-site", "none")
    is_navigation = headers.get("sec-fetch-mode", "") == "navigate"
    if scope["method"] in SAFE_METHODS:
        foreign = site in {"cross-site", "same-site"} and not is_navigation
        return FOREIGN_ORIGIN if foreign else None
    if site not in {"none", "same-origin"}:
        return FOREIGN_ORIGIN
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
        return FOREIGN_ORIGIN
    if "chunked" in headers.get("transfer-encoding", ""):
        return TOO_LARGE
    return None


def portal_of(request: Request) -> Portal:
    """Returns the portal behind an app."""
    found: Portal = request.app.state.portal
    return found


PortalOf = Annotated[Portal, Depends(portal_of)]


def cookie_name(portal: Portal) -> str:
    """Returns the name of the session cookie; `__Host-` binds it to this very host."""
    return "__Host-perimeter" if portal.uses_tls else "perimeter"


def find_visitor(request: Request) -> Visitor | None:
    """Returns who is logged in, by cookie or by API token, or None."""
    portal = portal_of(request)
    authorization = request.headers.get("authorization", "")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token.startswith(API_TOKEN_PREFIX):
        return portal.access.api_visitor(token)
    cookie = request.cookies.get(cookie_name(portal))
    return portal.access.visitor(cookie) if cookie else None


async def visitor_of(request: Request, portal: PortalOf) -> Visitor:
    """Returns who is logged in, and checks the CSRF token of state-changing requests.

    Raises:
        Refused: Nobody is, or the token does not fit.
    """
    visitor = find_visitor(request)
    if visitor is None:
        raise Refused(401, NOT_LOGGED_IN)
    if request.method not in SAFE_METHODS and visitor.token:
        given = request.headers.get("x-csrf-token") or await _form_token(request)
        if not portal.access.csrf_fits(visitor.token, given):
            raise Refused(403, CSRF)
    return visitor


async def _form_token(request: Request) -> str:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return ""
    form = await request.form()
    return str(form.get("csrf_token", ""))


VisitorOf = Annotated[Visitor, Depends(visitor_of)]


def allow(*roles: Role) -> Callable[[Visitor], Awaitable[Visitor]]:
    """Returns a dependency that lets only some roles in."""

    async def check(visitor: VisitorOf) -> Visitor:
        if visitor.person.role not in roles:
            raise Refused(403, ROLE)
        return visitor

    return check


Labeler = Annotated[Visitor, Depends(allow(Role.EXPERT, Role.ADJUDICATOR))]
Adjudicator = Annotated[Visitor, Depends(allow(Role.ADJUDICATOR))]
SiteLead = Annotated[Visitor, Depends(allow(Role.SITE_LEAD))]
Overseer = Annotated[Visitor, Depends(allow(Role.SITE_LEAD, Role.AUDITOR))]
Quality = Annotated[Visitor, Depends(allow(Role.SITE_LEAD, Role.AUDITOR, Role.ADJUDICATOR))]


def json_refused(_: Request, error: Refused) -> JSONResponse:
    """Turns a refusal into its JSON."""
    return JSONResponse(error_body(error.refusal), error.status_code)


STATUS_OF: dict[str, int] = {"ITEM_UNKNOWN": 404, "CAMPAIGN_UNKNOWN": 404, "NOT_LEASED": 409}


def raise_if_refused(outcome: Any) -> Any:
    """Passes a value through and raises a refusal."""
    if isinstance(outcome, Refusal):
        raise Refused(STATUS_OF.get(outcome.reason, 409), outcome)
    return outcome
