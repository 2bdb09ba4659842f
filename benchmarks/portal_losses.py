"""Decisions under a server that is killed, away for hours, and whose clock jumps: none is lost.

Experts decide through real HTTP and repeat what was not acknowledged, as the page does. Meanwhile
the server is killed with SIGKILL every few seconds and comes back after an outage with its clock
set eight hours forth or back, so that sessions and leases end as well.

    python benchmarks/portal_losses.py --decisions 10000

Prints the numbers and leaves with 1 when an acknowledged decision is not in the store once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from portal_load import log_in, prepare

from review_portal.label_store import LabelStore

SKEWS = (0, 8 * 3600, 2 * 3600, 16 * 3600, -8 * 3600, 8 * 3600)
BATCH = 10
# The server's clock is shifted as if somebody had set the machine's.
SERVE = (
    "import sys, time; real = time.time; time.time = lambda: real() + float(sys.argv[1]); "
    "from review_portal.__main__ import main; sys.exit(main(['serve']))"
)


@dataclass
class Run:
    """What went on.

    Attributes:
        acknowledged: Client token of each decision that was answered stored, late or duplicate.
        refused: What was refused, with its reason.
        kills: How often the server was killed.
        retries: Requests that failed and were repeated.
    """

    wanted: int
    acknowledged: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    kills: int = 0
    retries: int = 0

    @property
    def is_over(self) -> bool:
        """Whether enough was acknowledged."""
        return len(self.acknowledged) >= self.wanted


def serve(folder: Path, port: int, skew: float) -> tuple[subprocess.Popen[str], int]:
    """Starts the portal with a shifted clock. Returns process and port."""
    environment = {
        **os.environ,
        "PERIMETER_PORTAL_FOLDER": str(folder),
        "PERIMETER_PORTAL_WEB_PORT": str(port),
        "PERIMETER_PORTAL_LOGIN_PER_MINUTE": "1000",
        "PERIMETER_PORTAL_LOGIN_PER_ADDRESS_PER_MINUTE": "10000",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(skew)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://[\d.]+:(\d+)", process.stdout.readline())
    assert found is not None, "the portal did not start"
    return process, int(found[1])


async def expert(url: str, name: str, run: Run) -> None:
    """Leases items and sends decisions in batches until they are answered."""
    chance = random.Random(name)
    waiting: list[dict[str, object]] = []
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        while not run.is_over:
            try:
                if not waiting:
                    waiting = await _decide(client, chance)
                answer = await client.post(
                    "/api/annotations/batch", json={"annotations": waiting[:BATCH]}
                )
                if answer.status_code in {401, 403}:
                    await log_in(client, name)
                    continue
                answer.raise_for_status()
            except (httpx.HTTPError, AssertionError, KeyError):
                run.retries += 1
                await asyncio.sleep(0.3)
                continue
            for receipt in answer.json():
                if receipt["stored"] == "refused":
                    run.refused.append(receipt["reason"])
                else:
                    run.acknowledged.add(receipt["client_token"])
            waiting = waiting[BATCH:]


async def _decide(client: httpx.AsyncClient, chance: random.Random) -> list[dict[str, object]]:
    answer = await client.get("/api/queue", params={"campaign": "load", "count": 50})
    answer.raise_for_status() if answer.status_code not in {401, 403} else None
    return [
        {
            "item_id": item["item_id"], "lease_id": item["lease_id"],
            "class_index": chance.randrange(4), "seconds": 1.0, "client_token": uuid.uuid4().hex,
        }
        for item in answer.json().get("items", [])
    ] or [_ping()]  # fmt: skip


def _ping() -> dict[str, object]:
    # Without a session the answer is 401 and leads to a login; with one it is refused.
    return {"item_id": "0" * 32, "class_index": 0, "client_token": uuid.uuid4().hex}


async def trouble(
    restart: Callable[[float], subprocess.Popen[str]], first: subprocess.Popen[str], run: Run
) -> subprocess.Popen[str]:
    """Kills the server again and again. Returns the last one."""
    process = first
    while not run.is_over:
        await asyncio.sleep(4)
        process.kill()
        process.wait()
        run.kills += 1
        await asyncio.sleep(1)
        process = await asyncio.to_thread(restart, SKEWS[run.kills % len(SKEWS)])
    return process


async def play(folder: Path, run: Run, experts: int) -> None:
    """Lets experts work against the troubled server."""
    first, port = serve(folder, 0, 0)
    url = f"http://127.0.0.1:{port}"
    troubled = asyncio.create_task(trouble(lambda skew: serve(folder, port, skew)[0], first, run))
    await asyncio.gather(*(expert(url, f"expert-{number}", run) for number in range(experts)))
    last = await troubled
    last.kill()
    last.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--experts", type=int, default=8)
    arguments = parser.parse_args()
    run = Run(arguments.decisions)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "portal"
        prepare(folder, items=2 * arguments.decisions, experts=arguments.experts)
        asyncio.run(play(folder, run, arguments.experts))
        with LabelStore.open(folder, read_only=True) as store:
            tokens = store.database.read(
                lambda c: list(c.exec_driver_sql("SELECT client_token FROM annotation").scalars())
            )
    lost, doubled = len(run.acknowledged - set(tokens)), len(tokens) - len(set(tokens))
    real = [reason for reason in run.refused if reason != "ITEM_UNKNOWN"]
    print(
        f"{len(run.acknowledged)} decisions acknowledged in {time.perf_counter() - began:.0f} s, "
        f"{run.kills} kills, {run.retries} repeated requests, {len(real)} refused: "
        f"{lost} lost, {doubled} stored twice"
    )
    return 1 if lost or doubled or real else 0


if __name__ == "__main__":
    sys.exit(main())
