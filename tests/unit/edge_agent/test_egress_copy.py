"""The device's ledger arrives at a real portal over mutual TLS, byte for byte."""

from __future__ import annotations

import json
import shutil

import pytest
from agent_peers import SITE, TRUST_DOMAIN, Authority, pem
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.egress_copy import EgressCopy
from edge_agent.egress_ledger import EgressLedger, ledger_files
from edge_agent.errors import PeerUnavailable
from review_portal.config import PortalConfig
from review_portal.egress import reading
from review_portal.egress.archive import EgressArchive
from review_portal.identity import load_identity
from review_portal.intake import IntakeDesk, start_intake
from review_portal.label_store import LabelStore

METHOD = "perimeter.v1.GrantService/ListGrants"


class RealPortal:
    """The intake of a portal, on its own folder and certificate."""

    def __init__(self, folder, authority: Authority, grant_key: bytes) -> None:
        identity = folder / "identity"
        identity.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = authority.issue(key.public_key(), "portal", "main", SITE)
        (identity / "key.pem").write_bytes(pem(key))
        (identity / "cert.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        (identity / "ca.pem").write_bytes(authority.pem)
        (identity / "grant.pub").write_bytes(grant_key)
        fields = {
            "site_id": SITE, "role": "portal", "name": "main", "coordinator": "",
            "trust_domain": TRUST_DOMAIN,
        }  # fmt: skip
        (identity / "identity.json").write_text(json.dumps(fields))
        self.archive = EgressArchive(folder)
        self._store = LabelStore.open(folder)
        self._identity = load_identity(identity)
        self._config = PortalConfig(folder=folder, intake_host="127.0.0.1", intake_port=0)
        self.port = 0
        self.start()

    def start(self) -> None:
        config = self._config.model_copy(update={"intake_port": self.port})
        desk = IntakeDesk(self._store, config, self._identity, lambda: 7.0, self.archive)
        self._server, self.port = start_intake(desk)

    def stop(self) -> None:
        self._server.stop(None).wait()

    def close(self) -> None:
        self.stop()
        self.archive.close()
        self._store.close()

    def copy(self) -> bytes:
        return b"".join(reading.lines(self.archive, "agent/a1"))


@pytest.fixture
def portal(tmp_path, authority, coordinator):
    public = coordinator.grant_key.public_key().public_bytes_raw()
    made = RealPortal(tmp_path / "portal", authority, public)
    yield made
    made.close()


def on_disk(folder) -> bytes:
    return b"".join(path.read_bytes() for path in ledger_files(folder))


def test_what_a_device_sent_stands_at_the_portal_byte_for_byte(device, coordinator, portal):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    device.values["limits"]["egress_file_bytes"] = 2000
    device.enroll().put(*(f"invoice {n} is wrong" for n in range(20)))
    daemon = device.daemon()
    ledger = device.folder / "state" / "egress"
    device.until(daemon, lambda: coordinator.reports)
    device.until(daemon, lambda: on_disk(ledger) == portal.copy() != b"")
    assert len(ledger_files(ledger)) > 1, "the copy crosses from file to file"
    checked = reading.check(portal.archive, "agent/a1")
    assert (checked.faults, reading.alarms(portal.archive)) == ((), ())
    kinds = {shown.record.method for shown in reading.newest(portal.archive, reading.Choice())}
    assert "perimeter.v1.CandidateService/StreamCandidateBatches" in kinds
    assert "perimeter.v1.EnrollmentService/Enroll" in kinds


def test_a_copy_goes_on_after_the_portal_was_away_and_the_device_restarted(
    device, coordinator, portal
):
    coordinator.publish(coordinator.add_campaign(), 1)
    daemon = device.enroll().daemon()
    ledger = device.folder / "state" / "egress"
    device.until(daemon, lambda: on_disk(ledger) == portal.copy() != b"")
    portal.stop()
    device.put("one", "two")
    device.until(daemon, lambda: coordinator.reports)
    assert on_disk(ledger) != portal.copy()
    daemon.close()
    device.daemons.clear()
    portal.start()
    again = device.daemon()
    device.until(again, lambda: on_disk(ledger) == portal.copy(), ticks=2000)
    assert reading.alarms(portal.archive) == ()


class Taker:
    """Stands where the portal's client stands, in front of a real archive."""

    is_configured = True

    def __init__(self, archive: EgressArchive) -> None:
        self.archive = archive
        self.asked = 0
        self.lose_answers = 0

    def record_egress(self, lines):
        self.asked += 1
        taken = self.archive.take("agent/a1", lines, 7.0)
        if self.lose_answers:
            self.lose_answers -= 1
            raise PeerUnavailable("the answer was lost", reason="UNAVAILABLE")
        return taken.last_sequence, bytes.fromhex(taken.last_digest)


@pytest.fixture
def taker(tmp_path):
    made = Taker(EgressArchive(tmp_path / "archive"))
    yield made
    made.archive.close()


def copied(taker: Taker) -> bytes:
    return b"".join(reading.lines(taker.archive, "agent/a1"))


def test_lines_whose_answer_was_lost_are_there_once(tmp_path, taker):
    ledger = EgressLedger(tmp_path / "egress")
    copy = EgressCopy(tmp_path / "egress", taker)
    for number in range(5):
        ledger.append("coordinator", METHOD, b"x", at=number)
    copy._place = copy._place_after(0, b"")
    taker.lose_answers = 1
    with pytest.raises(PeerUnavailable):
        copy.turn()
    copy.turn()
    assert copied(taker) == on_disk(tmp_path / "egress")


def test_an_idle_ledger_asks_nothing_of_the_portal(tmp_path, taker):
    ledger = EgressLedger(tmp_path / "egress")
    copy = EgressCopy(tmp_path / "egress", taker)
    ledger.append("coordinator", METHOD, b"x", at=1)
    copy.turn()
    asked = taker.asked
    for _ in range(10):
        assert not copy.turn()
    assert taker.asked == asked
    ledger.append("coordinator", METHOD, b"y", at=2)
    copy.turn()
    assert copied(taker) == on_disk(tmp_path / "egress")


def test_many_and_long_lines_travel_in_batches(tmp_path, taker):
    ledger = EgressLedger(tmp_path / "egress", file_bytes_max=1 << 20)
    for number in range(8):
        ledger.append("coordinator", METHOD, bytes(300_000), at=number)
    copy = EgressCopy(tmp_path / "egress", taker)
    turns = 1
    while copy.turn():
        turns += 1
    assert turns > 3
    assert copied(taker) == on_disk(tmp_path / "egress")


def test_a_device_put_back_to_an_older_state_shows_as_a_fork(tmp_path, taker):
    folder = tmp_path / "egress"
    ledger = EgressLedger(folder)
    for number in range(3):
        ledger.append("coordinator", METHOD, b"x", at=number)
    shutil.copytree(folder, tmp_path / "backup")
    ledger.append("coordinator", METHOD, b"hidden", at=4)
    EgressCopy(folder, taker).turn()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    EgressLedger(folder).append("coordinator", METHOD, b"other", at=5)
    EgressCopy(folder, taker).turn()
    assert [(a.sort, a.sequence) for a in reading.alarms(taker.archive)] == [("FORK", 4)]
    assert reading.check(taker.archive, "agent/a1").message_count == 5


def test_a_device_without_a_portal_keeps_its_ledger_and_raises_no_alarm(
    device, coordinator, portal
):
    coordinator.publish(coordinator.add_campaign(), 1)
    device.values["portal"] = ""
    daemon = device.enroll().daemon()
    device.until(daemon, lambda: coordinator.reports)
    assert daemon._parts.stores.conditions.all() == {}
