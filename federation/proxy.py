"""`perimeter-federation proxy`: publishes the SuperLink's fleet paths over TLS, and nothing else.

The SuperLink serves fleet, control and runtime on one port, and its control paths ask for no
credential. So only POST requests to `/v1/fleet/<words>` are passed on; everything else answers 404
here and never reaches the SuperLink. Who a node is, is the SuperLink's to check: each fleet
request carries a signature of the node's key.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from federation.file_watch import FileWatch
from federation.settings import ProxySettings, split_address

FLEET_PATH = re.compile(r"/v1/fleet/[a-z0-9]+(-[a-z0-9]+)*")
FORWARDED_HEADERS = ("content-type", "accept", "content-encoding")
FORWARDED_PREFIXES = ("flwr-", "flower-", "x-flwr-", "x-flower-", "traceparent")
HOP_HEADERS = frozenset(
    {"connection", "transfer-encoding", "keep-alive", "content-length", "server"}
)
UPSTREAM_SECONDS = 60.0
RENEW_SECONDS = 10.0
_log = logging.getLogger(__name__)


def is_published(method: str, path: str) -> bool:
    """Whether a request is passed on.

    >>> is_published("POST", "/v1/fleet/pull-messages")
    True
    >>> is_published("POST", "/v1/fleet/../control/start-run")
    False
    """
    return method == "POST" and FLEET_PATH.fullmatch(path) is not None


def make_app(settings: ProxySettings, renew: Callable[[], None] = lambda: None) -> Starlette:
    """Returns the proxy as an ASGI application; `renew` is called now and then while it serves."""
    context = ssl.create_default_context(cafile=str(settings.authority))
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=64)
    client = httpx.AsyncClient(
        base_url=f"https://{settings.superlink}",
        verify=context,
        limits=limits,
        timeout=UPSTREAM_SECONDS,
        trust_env=False,
    )

    async def forward(request: Request) -> Response:
        # The raw path, so that no decoding can turn a refused path into a published one.
        path = request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        if not is_published(request.method, path) or request.url.query:
            return PlainTextResponse("not found", status_code=404)
        body = await _body(request, settings.body_bytes_max)
        if body is None:
            return PlainTextResponse("too large", status_code=413)
        return await _pass_on(client, path, body, request)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        task = asyncio.create_task(_repeat(renew))
        yield
        task.cancel()
        await client.aclose()

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    route = Route("/{path:path}", forward, methods=methods)
    return Starlette(routes=[route], lifespan=lifespan)


async def _pass_on(client: httpx.AsyncClient, path: str, body: bytes, request: Request) -> Response:
    try:
        reply = await client.post(path, content=body, headers=_kept_headers(request))
    except httpx.HTTPError as error:
        _log.warning("the superlink does not answer: %s", type(error).__name__)
        return PlainTextResponse("the superlink does not answer", status_code=503)
    kept = {k: v for k, v in reply.headers.items() if k.lower() not in HOP_HEADERS}
    kept.pop("content-encoding", None)
    return Response(reply.content, status_code=reply.status_code, headers=kept)


def _kept_headers(request: Request) -> dict[str, str]:
    return {
        name: value
        for name, value in request.headers.items()
        if name in FORWARDED_HEADERS or name.startswith(FORWARDED_PREFIXES)
    }


async def _body(request: Request, bytes_max: int) -> bytes | None:
    """Returns the request's body, None when it is larger than allowed."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > bytes_max:
        return None
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > bytes_max:
            return None
    return bytes(parts)


async def _repeat(renew: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        renew()


def run(settings: ProxySettings) -> None:
    """Serves until SIGTERM or SIGINT; takes up a renewed certificate at the next handshake."""
    host, port = split_address(settings.address)
    watch = FileWatch(settings.certificate)

    def renew() -> None:
        if isinstance(config.ssl, ssl.SSLContext) and watch.changed():
            config.ssl.load_cert_chain(settings.certificate, settings.private_key)

    config = uvicorn.Config(
        make_app(settings, renew),
        host=host,
        port=port,
        ssl_certfile=str(settings.certificate),
        ssl_keyfile=str(settings.private_key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        access_log=False,
        log_level="warning",
        h11_max_incomplete_event_size=64 << 10,
        limit_concurrency=512,
        timeout_keep_alive=30,
        server_header=False,
    )
    uvicorn.Server(config).run()
