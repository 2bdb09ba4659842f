"""Leases by many clients at once: no item is ever in two hands.

Clients take, keep, give back, let run out and answer leases of one store at the same time; a
ledger outside of the store says who holds what and finds every item that somebody else still had.

    python benchmarks/portal_leases.py --clients 50 --leases 100000

Prints the numbers and leaves with 1 when an item was in two hands.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from portal_load import CAMPAIGN_ID, prepare

from review_portal.core.model import Answer, Decision
from review_portal.label_store import LabelStore
from review_portal.store import annotations, queue

LEASE_SECONDS = 600.0


@dataclass
class Ledger:
    """Who holds which item until when, kept apart from the store. Time moves by itself.

    Attributes:
        holders: Item id to (expert, end of the lease).
        leased_count: Leases so far.
        doubles: What was found in two hands.
    """

    holders: dict[bytes, tuple[int, float]] = field(default_factory=dict)
    leased_count: int = 0
    doubles: list[str] = field(default_factory=list)
    now: float = 1e9
    lock: threading.Lock = field(default_factory=threading.Lock)


def client(store: LabelStore, ledger: Ledger, expert_id: int, wanted: int) -> None:
    """One client: leases batches and ends them in every way there is."""
    chance = random.Random(expert_id)
    while ledger.leased_count < wanted:
        _lease(store, ledger, expert_id, chance)
        with ledger.lock:
            mine = [item for item, (who, _) in ledger.holders.items() if who == expert_id]
        for item_id in chance.sample(mine, min(2, len(mine))):
            _answer(store, ledger, expert_id, item_id)
        if chance.randrange(4):
            _give_back(store, ledger, expert_id)


def _lease(store: LabelStore, ledger: Ledger, expert_id: int, chance: random.Random) -> None:
    def work(connection: object) -> None:
        # The ledger is kept inside the transaction, in the order in which the store decided.
        ledger.now += chance.uniform(0, 8)
        now = ledger.now
        request = queue.LeaseRequest(expert_id, CAMPAIGN_ID, 20, now, now + LEASE_SECONDS)
        before = {i for i, (who, end) in ledger.holders.items() if who == expert_id and end > now}
        leased = queue.lease(connection, request)  # type: ignore[arg-type]
        with ledger.lock:
            for entry in leased:
                who, end = ledger.holders.get(entry.item_id, (expert_id, 0.0))
                if who != expert_id and end > now:
                    ledger.doubles.append(f"{entry.item_id.hex()}: {who} and {expert_id}")
                ledger.leased_count += entry.item_id not in before
                ledger.holders[entry.item_id] = (expert_id, entry.lease_until)

    store.database.write(work)


def _answer(store: LabelStore, ledger: Ledger, expert_id: int, item_id: bytes) -> None:
    def work(connection: object) -> None:
        desk = annotations.Desk(expert_id, ledger.now, store.keys)
        decision = Decision(item_id, Answer(0), 1.0, uuid.uuid4().hex)
        annotations.record(connection, desk, decision)  # type: ignore[arg-type]
        with ledger.lock:
            if ledger.holders.get(item_id, (0, 0.0))[0] == expert_id:
                del ledger.holders[item_id]

    store.database.write(work)


def _give_back(store: LabelStore, ledger: Ledger, expert_id: int) -> None:
    def work(connection: object) -> None:
        request = queue.LeaseRequest(
            expert_id, CAMPAIGN_ID, 1, ledger.now, ledger.now + LEASE_SECONDS
        )
        held = queue.lease(connection, request)  # type: ignore[arg-type]
        queue.release(connection, expert_id, [e.lease_id for e in held])  # type: ignore[arg-type]
        with ledger.lock:
            for item in [i for i, (who, _) in ledger.holders.items() if who == expert_id]:
                del ledger.holders[item]

    store.database.write(work)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--leases", type=int, default=100_000)
    arguments = parser.parse_args()
    ledger = Ledger()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "portal"
        prepare(folder, items=arguments.leases // 4 + 2000, experts=0)
        with LabelStore.open(folder) as store:
            clients = [
                threading.Thread(target=client, args=(store, ledger, number, arguments.leases))
                for number in range(1, arguments.clients + 1)
            ]
            began = time.perf_counter()
            for started in clients:
                started.start()
            for started in clients:
                started.join()
            took = time.perf_counter() - began
    print(
        f"{ledger.leased_count} leases by {arguments.clients} clients in {took:.0f} s: "
        f"{len(ledger.doubles)} items in two hands"
    )
    for double in ledger.doubles[:5]:
        print(double)
    return 1 if ledger.doubles else 0


if __name__ == "__main__":
    sys.exit(main())
