"""A portal with a million items: start, memory, the next batch, and every page with a list.

Fills a store with items that the federation asked for, a tenth of them answered, starts
`perimeter-portal serve` on it, and asks for each page as the people who may see it.

    python benchmarks/portal_scale.py --items 1000000

Prints a table and leaves with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from portal_load import (
    CAMPAIGN_ID,
    CLASSES,
    MEMORY_MIB,
    PASSWORD,
    QUEUE_P95,
    START_SECONDS,
    Measured,
    log_in,
    memory_mib,
    rows,
    start,
    table,
)
from sqlalchemy import Connection

from model_bundle.label_schema import LabelSchema
from review_portal.access import Access, read_secret
from review_portal.config import PortalConfig
from review_portal.core.model import Kind, Role
from review_portal.importing import ImportPlan
from review_portal.label_store import LabelStore
from review_portal.store import people, site_totals
from review_portal.store.campaigns import NewCampaign, settings_of
from review_portal.store.items import Intake

PAGE_MS = 100.0
PAGES = {
    "expert-0": ("/label?campaign=load", "/bulk?campaign=load", "/notes?campaign=load", "/account"),
    "judge": ("/adjudicate?campaign=load", "/quality?campaign=load"),
    "lead": ("/site?campaign=load", "/people", "/audit", "/egress", "/api/campaigns"),
}
CHUNK = 5000

GRANTED = (
    "UPDATE item SET grant_id = randomblob(16), grant_reason = 'useful', grant_expire_at = 4e9, "
    "grant_model_version = 1 + item_number % 5, model_version = 1 + item_number % 5, "
    "suggestion_index = item_number % 4, confidence = 0.25 + (item_number % 75) / 100.0, "
    "received_at = received_at - (item_number % 20) * 86400.0"
)
RELEASED = (
    "INSERT INTO outbox (grant_id, campaign_id, state, is_final, send_after, claimed_at, sent_at) "
    "SELECT grant_id, campaign_id, 'RELEASED', 0, received_at, received_at, received_at FROM item"
)
ANSWERED = (
    "INSERT INTO annotation (item_number, campaign_id, slot_id, expert_id, purpose, "
    "schema_version, guideline_digest, class_index, answer_key, reason_code, suggestion_index, "
    "confidence, model_version, suggestion_shown, seconds, client_token, batch_token, created_at) "
    "SELECT item.item_number, item.campaign_id, slot_id, 1 + item.item_number / 10 % 2, 'work', "
    "1, x'00', item.item_number / 10 % 4, item.item_number / 10 % 4, '', suggestion_index, "
    "confidence, model_version, 1, 5.0, 'scale-' || item.item_number, '', received_at + 60 "
    "FROM item JOIN slot ON slot.item_number = item.item_number WHERE item.item_number % 10 = 0"
)
LABELED = (
    "INSERT INTO label (item_number, campaign_id, split, class_index, answer_key, schema_version, "
    "settlement, origin, annotation_ids, model_version, suggestion_index, confidence, grant_id, "
    "created_at) SELECT annotation.item_number, annotation.campaign_id, item.split, "
    "annotation.class_index, annotation.answer_key, 1, 'single', 'expert', '[]', "
    "annotation.model_version, annotation.suggestion_index, annotation.confidence, grant_id, "
    "created_at FROM annotation JOIN item ON item.item_number = annotation.item_number"
)
SETTLED = (
    "UPDATE slot SET state = 2, expert_id = 1 WHERE item_number % 10 = 0",
    "UPDATE item SET state = 'LABELED' WHERE item_number % 10 = 0",
    "UPDATE counter SET value = value * 9 / 10 WHERE name = 'items.OPEN'",
    "INSERT INTO counter SELECT campaign_id, 'items.LABELED', count(*) FROM label GROUP BY 1",
)


def prepare(folder: Path, count: int) -> None:
    """Makes the store."""
    with LabelStore.open(folder) as store:
        campaign = NewCampaign(CAMPAIGN_ID, "load", Kind.TEXT, LabelSchema(CLASSES))
        store.put_campaign(campaign, time.time())
        access = Access(
            store.database, PortalConfig(folder=folder), clock=time.time, secret=read_secret(folder)
        )
        hashed = access.hash_password("load", PASSWORD)
        for name, role in (
            ("expert-0", Role.EXPERT), ("expert-1", Role.EXPERT),
            ("judge", Role.ADJUDICATOR), ("lead", Role.SITE_LEAD),
        ):  # fmt: skip
            new = people.NewPerson(name, name, role, hashed)
            store.database.write(lambda c, new=new: people.add_person(c, new, time.time()))
        plan = ImportPlan(store.campaign("load"), split="train", is_gold=False, clock=time.time)
        settings = store.database.read(lambda c: settings_of(c, CAMPAIGN_ID))
        made = rows(count)
        for _ in range(0, count, CHUNK):
            intake = Intake(plan.campaign, settings, store.keys, time.time())
            chunk = [plan.item_of(row) for row, _ in zip(made, range(CHUNK), strict=False)]
            store.import_items(intake, chunk)
        store.database.write(_work_done)


def _work_done(connection: Connection) -> None:
    for statement in (GRANTED, RELEASED, ANSWERED, LABELED, *SETTLED):
        connection.exec_driver_sql(statement)
    site_totals.recount(connection)


async def visit(url: str, measured: Measured, repeats: int) -> None:
    """Asks for every page, and for batches until 2,000 items are held and given back."""
    for name, paths in PAGES.items():
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            await log_in(client, name)
            for path in paths:
                for _ in range(repeats):
                    began = time.perf_counter()
                    answer = await client.get(path)
                    measured.note(path.partition("?")[0], began)
                    if answer.status_code != 200:
                        measured.failures.append(f"{path}: {answer.status_code}")
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await log_in(client, "expert-1")
        for _ in range(200):
            began = time.perf_counter()
            answer = await client.get("/api/queue", params={"campaign": "load", "count": 20})
            measured.note("queue", began)
            held = [entry["lease_id"] for entry in answer.json()["items"]]
            if len(held) < 20:
                measured.failures.append(f"{len(held)} items in a batch")
            await client.post("/api/leases/release", json={"lease_ids": held})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=10, help="requests of each page")
    arguments = parser.parse_args()
    measured = Measured()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "portal"
        prepare(folder, arguments.items)
        process, url, start_seconds = start(folder)
        try:
            asyncio.run(visit(url, measured, arguments.repeats))
            memory = memory_mib(process.pid)
        finally:
            process.terminate()
            process.wait()
    facts = {
        "seconds to start": (start_seconds, START_SECONDS),
        "resident MiB": (memory, float(MEMORY_MIB)),
        "next batch p95 ms": (measured.quantile("queue", 0.95), QUEUE_P95),
    }
    for paths in PAGES.values():
        for path in (entry.partition("?")[0] for entry in paths):
            facts[f"{path} median ms"] = (statistics.median(measured.took[path]), PAGE_MS)
            facts[f"{path} slowest ms"] = (max(measured.took[path]), PAGE_MS)
    return 0 if table(measured, facts) else 1


if __name__ == "__main__":
    sys.exit(main())
