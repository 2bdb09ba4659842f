"""Fixtures of the portal's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from argon2 import PasswordHasher

sys.path.insert(0, str(Path(__file__).parent))

from portal_bench import Authority, Bench, Clock, Server, serve

from review_portal.access import Access
from review_portal.config import PortalConfig
from review_portal.label_store import LabelStore
from review_portal.portal import open_portal


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "portal") as opened:
        yield opened


@pytest.fixture
def bench(store: LabelStore, clock: Clock) -> Bench:
    made = Bench(store, clock)
    # Checks of experts have tests of their own; elsewhere they would only blur the counts.
    made.set(gold_ratio=0.0, gold_first_count=0, repeat_ratio=0.0)
    return made


@pytest.fixture
def server(bench: Bench, tmp_path: Path, clock: Clock) -> Iterator[Server]:
    config = PortalConfig(
        folder=tmp_path / "portal",
        login_per_minute=1000,
        login_per_address_per_minute=1000,
        outcome_delay_seconds=10,
    )
    portal = open_portal(config, clock=clock, store=bench.store)
    # Strong hashes are tested by themselves; here they would only take time.
    cheap = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)
    access = Access(bench.store.database, config, clock=clock, secret=portal.secret, hasher=cheap)
    running = serve(replace(portal, access=access))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
