"""How a portal stands up to many experts: latency of decisions and of the next items.

Starts `perimeter-portal serve` as a process of its own on a free port, with items in a fresh
folder, and lets experts work through real HTTP, each with a decision every `--pace` seconds.

    python benchmarks/portal_load.py --experts 50 --minutes 30
    python benchmarks/portal_load.py --experts 50 --minutes 5 --import-beside 1000000
        (at least five minutes, and on until the import is finished)
    python benchmarks/portal_load.py --items 1000000 --experts 10 --minutes 1

Prints a table and leaves with 1 when a goal is missed or any request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from model_bundle.label_schema import LabelSchema
from review_portal.access import Access, read_secret
from review_portal.config import PortalConfig
from review_portal.core.model import Kind, Role
from review_portal.importing import ImportPlan, import_rows
from review_portal.interchange.records import ImportedRow
from review_portal.label_store import LabelStore
from review_portal.store import people
from review_portal.store.campaigns import NewCampaign

CAMPAIGN_ID = hashlib.sha256(b"load").digest()[:16]
CLASSES = ("card", "loan", "address", "other")
PASSWORD = "correct horse battery"
DECISION_P95, DECISION_P99, QUEUE_P95, START_SECONDS, MEMORY_MIB = 50.0, 100.0, 20.0, 5.0, 300


@dataclass
class Measured:
    """Milliseconds of every request, by name, and what failed."""

    took: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, name: str, began: float) -> None:
        """Notes one request that began then."""
        self.took.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    def quantile(self, name: str, share: float) -> float:
        """Returns a quantile in milliseconds; 0 without any request."""
        ordered = sorted(self.took.get(name, [0.0]))
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def rows(count: int, start: int = 0) -> Iterator[ImportedRow]:
    words = ("card", "loan", "street", "payment", "transfer", "abroad", "fee", "app", "today")
    chance = random.Random(start)
    for number in range(start, start + count):
        text = f"message {number}: " + " ".join(chance.choice(words) for _ in range(40))
        yield ImportedRow(number + 1, f"row-{number}", Kind.TEXT, text.encode(), None)


def prepare(folder: Path, *, items: int, experts: int) -> None:
    """Makes a store with items and people."""
    with LabelStore.open(folder) as store:
        campaign = NewCampaign(CAMPAIGN_ID, "load", Kind.TEXT, LabelSchema(CLASSES))
        store.put_campaign(campaign, time.time())
        plan = ImportPlan(store.campaign("load"), split="train", is_gold=False, clock=time.time)
        import_rows(store, plan, rows(items), pause=lambda _: None)
        config = PortalConfig(folder=folder)
        access = Access(store.database, config, clock=time.time, secret=read_secret(folder))
        hashed = access.hash_password("load", PASSWORD)
        for number in range(experts):
            new = people.NewPerson(f"expert-{number}", f"Expert {number}", Role.EXPERT, hashed)
            store.database.write(lambda c, new=new: people.add_person(c, new, time.time()))


def start(folder: Path) -> tuple[subprocess.Popen[str], str, float]:
    """Starts the portal. Returns process, address and seconds until it answered."""
    environment = {
        **os.environ,
        "PERIMETER_PORTAL_FOLDER": str(folder),
        "PERIMETER_PORTAL_WEB_PORT": "0",
        "PERIMETER_PORTAL_LOGIN_PER_MINUTE": "1000",
        "PERIMETER_PORTAL_LOGIN_PER_ADDRESS_PER_MINUTE": "10000",
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "review_portal", "serve"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://[\d.:]+", process.stdout.readline())
    assert found is not None
    while True:
        try:
            httpx.get(f"{found[0]}/healthz").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return process, found[0], time.perf_counter() - began


def memory_mib(pid: int) -> float:
    """Returns the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def log_in(client: httpx.AsyncClient, username: str) -> None:
    token = (await client.get("/api/session")).json()["csrf_token"]
    form = {"username": username, "password": PASSWORD, "csrf_token": token}
    answer = await client.post("/login", data=form)
    assert answer.status_code == 303, answer.text
    client.headers["X-CSRF-Token"] = (await client.get("/api/session")).json()["csrf_token"]


async def work(
    client: httpx.AsyncClient,
    measured: Measured,
    *,
    goes_on: Callable[[], bool],
    pace: float,
    seed: int,
) -> int:
    """One expert: a decision every `pace` seconds, new items when ten are left."""
    chance = random.Random(seed)
    ring: list[dict[str, str]] = []
    decided: set[str] = set()
    await asyncio.sleep(chance.uniform(0, pace))
    while goes_on():
        due = time.perf_counter() + pace * chance.uniform(0.8, 1.2)
        if len(ring) <= 10:
            began = time.perf_counter()
            answer = await client.get("/api/queue", params={"campaign": "load", "count": 20})
            measured.note("queue", began)
            if answer.status_code != 200:
                measured.failures.append(answer.text)
                break
            known = decided | {entry["lease_id"] for entry in ring}
            ring += [entry for entry in answer.json()["items"] if entry["lease_id"] not in known]
        if not ring:
            break
        item = ring.pop(0)
        decided.add(item["lease_id"])
        body = {
            "item_id": item["item_id"], "lease_id": item["lease_id"],
            "class_index": chance.randrange(len(CLASSES)), "seconds": pace,
            "client_token": uuid.UUID(int=chance.getrandbits(128)).hex,
        }  # fmt: skip
        began = time.perf_counter()
        answer = await client.post("/api/annotations", json=body)
        measured.note("decision", began)
        if answer.status_code != 200 or answer.json()["stored"] != "stored":
            measured.failures.append(answer.text)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    return len(decided)


async def run(
    url: str,
    arguments: argparse.Namespace,
    measured: Measured,
    beside: subprocess.Popen[bytes] | None = None,
) -> int:
    """Lets all experts work, and on until `beside` ends. Returns how many decisions stand."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    clients = [
        httpx.AsyncClient(base_url=url, timeout=30, limits=limits) for _ in range(arguments.experts)
    ]
    for number, client in enumerate(clients):
        await log_in(client, f"expert-{number}")
    until = time.perf_counter() + arguments.minutes * 60

    def goes_on() -> bool:
        is_importing = beside is not None and beside.poll() is None
        return is_importing or time.perf_counter() < until

    counts = await asyncio.gather(
        *(
            work(client, measured, goes_on=goes_on, pace=arguments.pace, seed=number)
            for number, client in enumerate(clients)
        )
    )
    began = time.perf_counter()
    await clients[0].get("/notes")
    measured.note("page", began)
    for client in clients:
        await client.aclose()
    return sum(counts)


def import_beside(folder: Path, count: int, scratch: Path) -> subprocess.Popen[bytes]:
    """Starts an import in a process of its own."""
    path = scratch / "beside.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for row in rows(count, start=10_000_000):
            lines.write(json.dumps({"id": row.source_id, "text": row.content.decode()}) + "\n")
    environment = {**os.environ, "PERIMETER_PORTAL_FOLDER": str(folder)}
    command = [sys.executable, "-m", "review_portal", "import", "--campaign", "load", "--vouch"]
    return subprocess.Popen([*command, str(path)], env=environment, stdout=subprocess.DEVNULL)


def table(measured: Measured, facts: dict[str, tuple[float, float]]) -> bool:
    """Prints what was measured. Returns whether every goal is met."""
    print(f"{'request':10} {'count':>8} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for name, took in measured.took.items():
        quantiles = [measured.quantile(name, share) for share in (0.5, 0.95, 0.99, 1.0)]
        print(f"{name:10} {len(took):8d} " + " ".join(f"{value:8.1f}" for value in quantiles))
    fine = not measured.failures
    for name, (value, goal) in facts.items():
        met = value <= goal
        fine = fine and met
        print(f"{name:34} {value:9.1f}  goal {goal:g}  {'met' if met else 'MISSED'}")
    for failure in measured.failures[:5]:
        print("failed:", failure)
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--experts", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--pace", type=float, default=2.0, help="seconds a decision")
    parser.add_argument("--items", type=int, default=0, help="0: as many as will be needed")
    parser.add_argument("--import-beside", type=int, default=0, metavar="ROWS")
    parser.add_argument("--json", type=Path, help="write the numbers there as well")
    arguments = parser.parse_args()
    needed = int(arguments.experts * (arguments.minutes * 60 / arguments.pace * 1.3 + 40))
    measured = Measured()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "portal"
        prepare(folder, items=arguments.items or needed, experts=arguments.experts)
        process, url, start_seconds = start(folder)
        beside = None
        if arguments.import_beside:
            beside = import_beside(folder, arguments.import_beside, Path(scratch))
        try:
            acknowledged = asyncio.run(run(url, arguments, measured, beside))
            if beside is not None and beside.poll() != 0:
                measured.failures.append(f"the import ended with {beside.poll()}")
            memory = memory_mib(process.pid)
            busy = cpu_seconds(process.pid)
        finally:
            for started in (beside, process):
                if started is not None:
                    started.terminate()
                    started.wait()
        with LabelStore.open(folder, read_only=True) as store:
            lost = acknowledged - store.expert_label_count(CAMPAIGN_ID)
    facts = {
        "decision p95 ms": (measured.quantile("decision", 0.95), DECISION_P95),
        "decision p99 ms": (measured.quantile("decision", 0.99), DECISION_P99),
        "queue p95 ms": (
            measured.quantile("queue", 0.95), QUEUE_P95 if arguments.experts < 20 else DECISION_P95
        ),
        "acknowledged and lost": (float(lost), 0.0),
        "seconds to start": (start_seconds, START_SECONDS),
        "resident MiB": (memory, float(MEMORY_MIB)),
    }  # fmt: skip
    fine = table(measured, facts)
    requests = sum(len(took) for took in measured.took.values())
    print(f"processor time of the portal: {1000 * busy / max(requests, 1):.1f} ms a request")
    if arguments.json:
        numbers = {"failures": len(measured.failures), **{k: v[0] for k, v in facts.items()}}
        arguments.json.write_text(json.dumps(numbers, indent=2))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
