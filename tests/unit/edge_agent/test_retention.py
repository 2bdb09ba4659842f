"""Samples that are too old go, unless a grant still needs them; positions of sources stay."""

from __future__ import annotations

import secrets

import pytest
from perimeter.v1 import grant_pb2

from edge_agent import audit
from edge_agent.__main__ import main
from edge_agent.audit import AuditLog
from edge_agent.config import parse_config
from edge_agent.errors import ConfigError
from edge_agent.queue.stores import open_stores
from edge_agent.retention import PAUSE_SECONDS, Retention

A, B = b"a" * 16, b"b" * 16
DAY = 86400.0
NOW = 100 * DAY
RELEASED = grant_pb2.OUTCOME_STATE_RELEASED


@pytest.fixture
def stores(tmp_path):
    opened = open_stores(parse_config({"state": "state"}, {}, base=tmp_path))
    yield opened
    opened.database.close()


def keeper(stores, tmp_path, days: int = 30) -> Retention:
    return Retention(stores, AuditLog(tmp_path / "state"), days)


def grant_for(stores, content: bytes, *, settled_at: float = 0.0) -> None:
    candidate = stores.samples.candidate_id(A, content)
    grant = grant_pb2.Grant(
        grant_id=secrets.token_bytes(16), campaign_id=A, candidate_id=candidate, ledger_sequence=1
    )
    stores.grants.add([grant])
    if settled_at:
        stores.grants.settle(grant.grant_id, RELEASED, now=settled_at)


def left(stores) -> set[bytes]:
    rows = stores.database.read("SELECT campaign_id, candidate_id FROM sample")
    return {stores.samples.find(*row).content for row in rows}


def test_what_is_old_goes_and_what_a_grant_needs_stays(stores, tmp_path):
    stores.samples.add(A, "s", [b"old", b"open grant", b"settled now", b"settled then"], now=DAY)
    stores.samples.add(A, "s", [b"new"], now=NOW - DAY)
    stores.samples.add(B, "s", [b"old, too"], now=DAY)
    stores.journal.record_position("s", b"line 7")
    grant_for(stores, b"open grant")
    grant_for(stores, b"settled now", settled_at=NOW - 29 * DAY)
    grant_for(stores, b"settled then", settled_at=NOW - 31 * DAY)
    kept = keeper(stores, tmp_path)
    while kept.turn(NOW):
        pass
    assert left(stores) == {b"open grant", b"settled now", b"new"}
    assert stores.journal.position("s") == b"line 7"
    found = {r.subject: r.detail["samples"] for r in audit.records(tmp_path / "state")}
    assert found == {A.hex(): 2, B.hex(): 1}
    assert audit.verify(tmp_path / "state") == (2, "")


def test_a_sample_that_a_device_chose_for_a_grant_without_one_stays(stores, tmp_path):
    stores.samples.add(A, "s", [b"chosen"], now=DAY)
    grant_for(stores, b"a stand-in")
    ((grant_id,),) = stores.database.read("SELECT grant_id FROM grant_book")
    candidate = stores.samples.candidate_id(A, b"chosen")
    stores.database.write("INSERT INTO binding VALUES (?, ?)", (grant_id, candidate))
    keeper(stores, tmp_path).turn(NOW)
    assert left(stores) == {b"chosen"}


def test_many_old_samples_go_in_batches_past_those_that_stay(stores, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.retention.BATCH_ROWS", 10)
    for number in range(15):
        stores.samples.add(A, "s", [b"needed %d" % number], now=DAY)
        grant_for(stores, b"needed %d" % number)
    stores.samples.add(A, "s", [b"old %d" % number for number in range(25)], now=DAY)
    kept = keeper(stores, tmp_path)
    assert [kept.remove(NOW) for _ in range(4)] == [10, 10, 5, 0]
    assert len(left(stores)) == 15


def test_by_default_nothing_goes_and_an_idle_limit_looks_once_an_hour(stores, tmp_path):
    stores.samples.add(A, "s", [b"old"], now=DAY)
    assert not keeper(stores, tmp_path, days=0).turn(NOW)
    assert left(stores) == {b"old"}
    kept = keeper(stores, tmp_path, days=99)
    assert not kept.turn(NOW)
    stores.samples.add(A, "s", [b"older"], now=0.0)
    assert not kept.turn(NOW + PAUSE_SECONDS - 1)
    assert kept.turn(NOW + PAUSE_SECONDS)


def test_the_log_says_so_before_anything_goes(stores, tmp_path):
    stores.samples.add(A, "s", [b"old"], now=DAY)

    class FullLog(AuditLog):
        def append(self, *_, **__):
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        Retention(stores, FullLog(tmp_path / "state"), 30).turn(NOW)
    assert left(stores) == {b"old"}


def test_the_daemon_keeps_to_the_limit_and_the_command_does_it_now(
    device, coordinator, portal, capsys
):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    device.values["retention_days"] = 30
    device.enroll().put("the pump is loud", "it drips")
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    samples = daemon._parts.stores.samples
    assert sum(samples.counts()[campaign].values()) == 2
    daemon._parts.stores.database.write("UPDATE sample SET arrived_at = 5 WHERE id = 1")
    daemon._parts.retention._next_at = 0.0
    device.until(daemon, lambda: sum(samples.counts()[campaign].values()) == 1)
    assert coordinator.reports
    daemon.close()
    device.daemons.clear()
    config = device.folder / "agent.toml"
    config.write_text('state = "state"\n')
    assert main(["retention", "--config", str(config)]) == 2
    assert "no age limit" in capsys.readouterr().err
    stores = open_stores(device.config)
    stores.database.write("UPDATE sample SET arrived_at = 5")
    stores.database.close()
    assert main(["retention", "--days", "30", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "1 samples removed\n"


def test_a_negative_age_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="retention_days"):
        parse_config({"state": "s", "retention_days": -1}, {}, base=tmp_path)
