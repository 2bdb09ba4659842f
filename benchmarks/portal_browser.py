"""The labeling page in chromium: time from key to next item, time to the first, a killed browser.

Starts `perimeter-portal serve` and drives Debian's chromium with real key presses.

    python benchmarks/portal_browser.py --decisions 1000

Painted means: the frame after the key is drawn, from the time stamp of the key event to the task
after that frame. Prints a table and leaves with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright
from portal_load import CAMPAIGN_ID, PASSWORD, Measured, prepare, start, table

from review_portal.label_store import LabelStore

PAINTED_P50, PAINTED_P95, INTERACTIVE_MS, LABEL_SECONDS = 20.0, 50.0, 1000.0, 60.0
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
KILLS = 4
WATCH = """() => {
  window.painted = [];
  const channel = new MessageChannel();
  let began = 0;
  channel.port1.onmessage = () => window.painted.push(performance.now() - began);
  document.addEventListener('keydown', (event) => {
    const at = event.timeStamp;
    requestAnimationFrame(() => { began = at; channel.port2.postMessage(0); });
  }, true);
}"""
READY = """() => {
  const seen = new MutationObserver(() => {
    if (document.querySelector('[data-ready]')) window.readyAt ??= performance.now();
  });
  seen.observe(document, { subtree: true, attributes: true, attributeFilter: ['data-ready'] });
}"""


def open_context(playwright: Playwright, profile: Path) -> BrowserContext:
    """Starts a browser with a profile of its own."""
    return playwright.chromium.launch_persistent_context(
        str(profile), executable_path=os.environ.get("PERIMETER_CHROMIUM")
        or shutil.which("chromium"), args=ARGUMENTS, viewport={"width": 1280, "height": 800},
    )  # fmt: skip


def log_in(page: Page, url: str, username: str) -> None:
    """Fills the form in, without a click."""
    page.goto(f"{url}/login")
    page.fill("#username", username)
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_selector("[data-ready]")


def keys(page: Page, count: int) -> list[float]:
    """Decides by one key each. Returns milliseconds until the next item was painted."""
    page.evaluate(f"({WATCH})()")
    for number in range(count):
        before = page.get_attribute("#desk", "data-item")
        page.keyboard.press("1234"[number % 4])
        page.wait_for_function(
            "(id) => document.getElementById('desk').dataset.item !== id", arg=before
        )
        page.wait_for_selector("#desk:not([data-item=''])")
        page.wait_for_timeout(20)
    page.wait_for_selector("#sync[data-state=saved]", timeout=60_000)
    return list(page.evaluate("() => window.painted"))


def first_pages(playwright: Playwright, url: str, scratch: Path, count: int) -> list[float]:
    """Opens the page with an empty cache, over and over. Returns milliseconds until it is ready."""
    found = []
    before = open_context(playwright, scratch / "login")
    log_in(before.new_page(), url, "expert-1")
    session = before.cookies()
    before.close()
    for number in range(count):
        context = open_context(playwright, scratch / f"first-{number}")
        context.add_cookies(session)
        context.add_init_script(f"({READY})()")
        page = context.new_page()
        page.goto(f"{url}/label")
        page.wait_for_function("() => window.readyAt > 0")
        found.append(float(page.evaluate("() => window.readyAt")))
        context.close()
    return found


def killed(playwright: Playwright, url: str, scratch: Path, each: int) -> int:
    """Decides without a network, kills the browser, comes back. Returns decisions kept on disk."""
    kept = 0
    profile = scratch / "killed"
    for _ in range(KILLS):
        context = open_context(playwright, profile)
        page = context.new_page()
        log_in(page, url, "expert-2")
        page.wait_for_selector("#sync[data-state=saved]", timeout=60_000)
        page.route("**/api/**", lambda route: route.abort())
        for _ in range(each):
            page.keyboard.press("1")
        page.wait_for_selector(f"#sync[data-state=offline]:has-text('{each}')")
        page.wait_for_function(ON_DISK, arg=each)
        kept += each
        for pid in browser_pids(profile):
            os.kill(pid, signal.SIGKILL)
        time.sleep(1)
    context = open_context(playwright, profile)
    page = context.new_page()
    log_in(page, url, "expert-2")
    page.wait_for_selector("#sync[data-state=saved]", timeout=60_000)
    context.close()
    return kept


ON_DISK = """(count) => new Promise((done) => {
  const open = indexedDB.open('perimeter-outbox', 1);
  open.onsuccess = () => {
    const all = open.result.transaction('entries').objectStore('entries').count();
    all.onsuccess = () => { open.result.close(); done(all.result === count); };
  };
})"""


def browser_pids(profile: Path) -> list[int]:
    """Returns the processes of the browser with this profile."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"--user-data-dir={profile}".encode() in command:
                found.append(int(entry.name))
    return found


def new_expert(playwright: Playwright, url: str, scratch: Path) -> float:
    """Returns seconds from the login page to the first label, with one click."""
    context = open_context(playwright, scratch / "new")
    page = context.new_page()
    began = time.perf_counter()
    log_in(page, url, "expert-3")
    page.locator("#classes button").first.click()
    page.wait_for_selector("#progress:has-text('1 done')")
    page.wait_for_selector("#sync[data-state=saved]")
    took = time.perf_counter() - began
    context.close()
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--decisions", type=int, default=500)
    parser.add_argument("--kept", type=int, default=15, help="decisions before each kill, up to 19")
    parser.add_argument("--first-pages", type=int, default=8)
    arguments = parser.parse_args()
    measured = Measured()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = scratch / "portal"
        prepare(folder, items=arguments.decisions + 500, experts=4)
        process, url, _ = start(folder)
        try:
            with sync_playwright() as playwright:
                context = open_context(playwright, scratch / "keys")
                page = context.new_page()
                log_in(page, url, "expert-0")
                measured.took["key"] = keys(page, arguments.decisions)
                context.close()
                measured.took["first page"] = first_pages(
                    playwright, url, scratch, arguments.first_pages
                )
                seconds = new_expert(playwright, url, scratch)
                kept = killed(playwright, url, scratch, arguments.kept)
        finally:
            process.terminate()
            process.wait()
        with LabelStore.open(folder, read_only=True) as store:
            stored = store.expert_label_count(CAMPAIGN_ID)
    facts = {
        "key to next item painted p50 ms": (measured.quantile("key", 0.5), PAINTED_P50),
        "key to next item painted p95 ms": (measured.quantile("key", 0.95), PAINTED_P95),
        "first page interactive, worst ms": (max(measured.took["first page"]), INTERACTIVE_MS),
        "login to first label, seconds": (seconds, LABEL_SECONDS),
        f"lost of {kept} kept, {KILLS} kills": (
            float(arguments.decisions + 1 + kept - stored), 0.0
        ),
    }  # fmt: skip
    return 0 if table(measured, facts) else 1


if __name__ == "__main__":
    sys.exit(main())
