"""A real portal and a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit" / "review_portal")]

from browser_bench import Watch, listen, start_server  # noqa: E402
from portal_bench import PASSWORD, Bench, Clock, Server  # noqa: E402

from review_portal.label_store import LabelStore  # noqa: E402

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium_path() -> str:
    """Where chromium is: PERIMETER_CHROMIUM, or on the path."""
    named = os.environ.get("PERIMETER_CHROMIUM") or shutil.which("chromium")
    if not named:
        pytest.skip("no chromium: install Debian's package or set PERIMETER_CHROMIUM")
    return named


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """Source of axe-core; fetched from npm once, as a test asset."""
    source = HERE / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(
                "axe-core is absent and there is no npm: run `npm install` in tests/browser"
            )
        subprocess.run(
            [npm, "install", "--no-audit", "--no-fund"], cwd=HERE, check=True, capture_output=True
        )
    return source.read_text("utf-8")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bench(tmp_path: Path, clock: Clock) -> Iterator[Bench]:
    with LabelStore.open(tmp_path / "portal") as store:
        made = Bench(store, clock)
        made.set(gold_ratio=0.0, gold_first_count=0, repeat_ratio=0.0)
        yield made


@pytest.fixture
def server(bench: Bench, tmp_path: Path, clock: Clock) -> Iterator[Server]:
    running = start_server(bench, tmp_path, clock)
    yield running
    running.stop()


@pytest.fixture
def watch() -> Watch:
    return Watch()


Login = Callable[..., Page]


@pytest.fixture
def login(browser: Browser, server: Server, watch: Watch) -> Iterator[Login]:
    contexts: list[BrowserContext] = []

    def open_page(username: str, path: str = "/label", **options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        listen(page, server, watch)
        page.goto(f"{server.url}/login")
        page.fill("#username", username)
        page.fill("#password", PASSWORD)
        page.press("#password", "Enter")
        page.wait_for_url(re.compile(r"/(label|site|audit)"))
        if path != "/label":
            page.goto(server.url + path)
        if path.startswith("/label"):
            page.wait_for_selector("[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
