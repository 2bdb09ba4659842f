"""What the browser tests share: a portal that starts, a watch on the browser, patience."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from argon2 import PasswordHasher
from playwright.sync_api import Page
from portal_bench import Bench, Clock, Server, serve

from review_portal.access import Access
from review_portal.config import PortalConfig
from review_portal.portal import open_portal


def start_server(bench: Bench, tmp_path: Path, clock: Clock, **settings: object) -> Server:
    config = PortalConfig(
        folder=tmp_path / "portal", site_name="Alder hospital",
        **{"login_per_minute": 1000, "login_per_address_per_minute": 1000, **settings},
    )  # fmt: skip
    portal = open_portal(config, clock=clock, store=bench.store)
    cheap = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)
    access = Access(bench.store.database, config, clock=clock, secret=portal.secret, hasher=cheap)
    return serve(replace(portal, access=access))


@dataclass
class Watch:
    """What a browser did that nobody sees: foreign requests, refused scripts, errors."""

    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def listen(page: Page, server: Server, watch: Watch) -> None:
    def on_request(request: object) -> None:
        url = request.url  # type: ignore[attr-defined]
        if not url.startswith((server.url, "blob:", "data:")):
            watch.foreign.append(url)

    def on_console(message: object) -> None:
        if message.type in {"error", "warning"}:  # type: ignore[attr-defined]
            watch.complaints.append(message.text)  # type: ignore[attr-defined]

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: watch.complaints.append(str(error)))


def settle(check: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until something holds."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if check():
            return
        pause.wait(0.05)
    raise AssertionError("did not settle in time")
