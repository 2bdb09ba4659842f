"""Every store of the coordinator keeps the same promises."""

from __future__ import annotations

import dataclasses

import pytest

from coordinator.core.campaign import CampaignState
from coordinator.core.entries import Funded, chain_digest
from coordinator.core.ledger import GENESIS
from coordinator.core.records import (
    AUDIT_GENESIS,
    COLUMN_WIDTHS,
    AuditRecord,
    CampaignRecord,
    CertificateRecord,
    CounterRecord,
    MachineRecord,
    SegmentRecord,
)
from coordinator.errors import StoreConflict, StoreUnavailable
from coordinator.store import open_store

CAMPAIGN = b"c" * 16
RECORD = CampaignRecord(CAMPAIGN, "digits", CampaignState.ACTIVE, "{}", b"s" * 16, 1_700_000_000)
HEAD = SegmentRecord(
    campaign_id=CAMPAIGN,
    site_id="north",
    agent_name="cam",
    generation=1,
    sequence=1,
    digest=b"d" * 32,
    model_version=1,
    code_book_version=0,
    day=20_000,
    row_count=2,
    new_row_count=2,
    replaces_older_versions=True,
)
COLUMNS = {name: bytes(range(2)) * width for name, width in COLUMN_WIDTHS.items()}


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request, tmp_path):
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/coordinator.db"
    return request.getfixturevalue("fresh_postgres_url")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def durable_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/coordinator.db"
    return request.getfixturevalue("fresh_postgres_url")


@pytest.fixture
def store(store_url):
    opened = open_store(store_url)
    yield opened
    opened.close()


def funded(sequence: int = 1) -> tuple[Funded, bytes]:
    entry = Funded(sequence, 5, CAMPAIGN, 10, 10, 1)
    return entry, chain_digest(GENESIS, entry)


def test_a_record_comes_back_as_it_was_put(store):
    with store.transaction() as writer:
        writer.put(RECORD)
    assert store.get(CampaignRecord, CAMPAIGN) == RECORD


def test_putting_again_replaces_the_record(store):
    paused = dataclasses.replace(RECORD, state=CampaignState.PAUSED)
    with store.transaction() as writer:
        writer.put(RECORD)
        writer.put(paused)
    assert store.find(CampaignRecord) == [paused]


def test_an_unknown_key_gives_none(store):
    assert store.get(MachineRecord, "north", "agent", "cam") is None


def test_adding_a_record_twice_is_a_conflict(store):
    record = CertificateRecord("01", "north", "agent", "cam", 1, 9)
    with store.transaction() as writer:
        writer.add(record)
    with pytest.raises(StoreConflict), store.transaction() as writer:
        writer.add(record)


def test_find_filters_by_fields_and_orders_by_key(store):
    machines = [
        MachineRecord("south", "agent", "a", 1, 1),
        MachineRecord("north", "portal", "p", 1, 1),
        MachineRecord("north", "agent", "b", 1, 1, revoked=True),
    ]
    with store.transaction() as writer:
        for machine in machines:
            writer.add(machine)
    assert store.find(MachineRecord, site_id="north") == [machines[2], machines[1]]
    assert store.find(MachineRecord, revoked=True) == [machines[2]]
    assert len(store.find(MachineRecord)) == 3


def test_a_transaction_that_fails_leaves_nothing(store):
    def fail_half_way() -> None:
        entry, digest = funded()
        with store.transaction() as writer:
            writer.put(RECORD)
            writer.append([entry], [digest])
            writer.add_segment(HEAD, COLUMNS)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert store.find(CampaignRecord) == []
    assert store.entries() == []
    assert store.segments(CAMPAIGN) == []


def test_a_conflict_undoes_what_went_before_it(store):
    record = CounterRecord("bytes", 1)
    with store.transaction() as writer:
        writer.add(record)

    def conflict_after_a_write() -> None:
        with store.transaction() as writer:
            writer.put(RECORD)
            writer.add(record)

    with pytest.raises(StoreConflict):
        conflict_after_a_write()
    assert store.get(CampaignRecord, CAMPAIGN) is None


def test_ledger_entries_come_back_in_order_after_a_position(store):
    first, digest = funded()
    second = dataclasses.replace(first, sequence=2)
    with store.transaction() as writer:
        writer.append([first, second], [digest, b"x" * 32])
    assert store.entries() == [(first, digest), (second, b"x" * 32)]
    assert [entry.sequence for entry, _ in store.entries(after=1)] == [2]


def test_a_ledger_position_is_taken_once(store):
    entry, digest = funded()
    with store.transaction() as writer:
        writer.append([entry], [digest])
    with pytest.raises(StoreConflict), store.transaction() as writer:
        writer.append([entry], [digest])
    assert len(store.entries()) == 1


def test_a_batch_comes_back_column_by_column(store):
    with store.transaction() as writer:
        writer.add_segment(HEAD, COLUMNS)
        writer.add_segment(dataclasses.replace(HEAD, sequence=2, model_version=2), COLUMNS)
    first, second = store.segments(CAMPAIGN)
    assert dataclasses.replace(first, segment_id=0) == HEAD
    assert second.segment_id > first.segment_id > 0
    assert store.segments(CAMPAIGN, model_version=2) == [second]
    assert store.columns([second.segment_id], ["margins", "cell_ids"]) == [
        {"margins": COLUMNS["margins"], "cell_ids": COLUMNS["cell_ids"]}
    ]


def test_the_same_batch_is_stored_once(store):
    with store.transaction() as writer:
        writer.add_segment(HEAD, COLUMNS)
    with pytest.raises(StoreConflict), store.transaction() as writer:
        writer.add_segment(HEAD, COLUMNS)
    assert len(store.segments(CAMPAIGN)) == 1


def test_a_sound_store_finds_nothing_wrong_with_itself(store):
    assert store.check() == []


def test_what_was_committed_is_there_after_reopening(durable_url):
    first = open_store(durable_url)
    with first.transaction() as writer:
        writer.put(RECORD)
        writer.add_segment(HEAD, COLUMNS)
    first.close()
    second = open_store(durable_url)
    assert second.find(CampaignRecord) == [RECORD]
    assert len(second.segments(CAMPAIGN)) == 1
    second.close()


def test_a_folder_in_place_of_the_database_is_a_clear_error(tmp_path):
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path}")


def test_sqlite_commits_survive_power_loss_by_setting(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/coordinator.db")
    (journal,) = opened._rows(__import__("sqlalchemy").text("PRAGMA journal_mode"))
    (synchronous,) = opened._rows(__import__("sqlalchemy").text("PRAGMA synchronous"))
    assert journal["journal_mode"] == "wal"
    assert synchronous["synchronous"] == 2
    opened.close()


@pytest.mark.postgres
def test_one_process_at_a_time_drives_a_shared_database(fresh_postgres_url):
    first, second = open_store(fresh_postgres_url), open_store(fresh_postgres_url)
    first.claim()
    with pytest.raises(StoreConflict, match="another coordinator"):
        second.claim()
    first.close()
    second.claim()
    second.close()


def test_audit_lines_are_chained_in_the_order_they_came(store):
    with store.transaction() as writer:
        writer.note(1, "enrolled", "north/agent/one")
        writer.note(2, "revoked", "north/agent/one")
    first, second = store.find(AuditRecord)
    assert first == AuditRecord(1, 1, "enrolled", "north/agent/one").after(AUDIT_GENESIS)
    assert second == AuditRecord(2, 2, "revoked", "north/agent/one").after(first.digest)


def test_old_records_can_be_discarded_by_a_number(store):
    with store.transaction() as writer:
        for number in (1, 2, 3):
            writer.put(CounterRecord(f"c{number}", number))
        writer.discard(CounterRecord, "total", 3)
    assert store.find(CounterRecord) == [CounterRecord("c3", 3)]
