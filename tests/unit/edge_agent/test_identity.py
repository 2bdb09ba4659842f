"""A join token becomes an identity once, and a crash in between repeats nothing."""

from __future__ import annotations

import stat

import pytest
from agent_peers import Authority, Coordinator, Portal
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge_agent.enrollment import enroll, parse_token
from edge_agent.errors import IdentityError, PeerUnavailable
from edge_agent.identity import IdentityFolder
from edge_agent.queue.stores import open_stores


def folder_of(device) -> IdentityFolder:
    return IdentityFolder(device.folder / "state" / "identity")


def test_enrolment_writes_an_identity_whose_key_only_the_owner_reads(device):
    device.enroll()
    identity = folder_of(device).load()
    assert (identity.site_id, identity.name) == ("north", "a1")
    assert identity.portal_host == "portal.north.test.perimeter"
    key = device.folder / "state" / "identity" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    left = {path.name for path in key.parent.iterdir()}
    assert left == {"key.pem", "cert.pem", "ca.pem", "release.pub", "grant.pub", "identity.json"}


def test_a_used_token_is_refused_with_the_remedy(device, coordinator, tmp_path):
    token = coordinator.token()
    enroll(device.config, token, device.clock)
    device.values["state"] = str(tmp_path / "second")
    with pytest.raises(IdentityError, match="ask the operator for a new one"):
        enroll(device.config, token, device.clock)
    assert not IdentityFolder(tmp_path / "second" / "identity").is_enrolled()


def test_a_lost_answer_is_repeated_with_the_same_request(device, coordinator):
    """The first answer is lost; the second call is the same request and gets the same answer."""
    token = parse_token(coordinator.token())
    folder = folder_of(device)
    first = folder.pending_request(salt=token.secret)
    assert folder.pending_request(salt=token.secret) == first
    assert folder.pending_request(salt=b"other").request_id != first.request_id


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "not a whole join token"),
        ("pmt1.", "not a whole join token"),
        ("pmt2.e30", "not a whole join token"),
        ("pmt1.e30", "not a whole join token"),
        ("pmt1.%%%", "not a whole join token"),
    ],
)
def test_a_wrong_token_is_named_before_anything_is_sent(token, words):
    with pytest.raises(IdentityError, match=words):
        parse_token(token)


def test_a_cut_token_is_refused(coordinator):
    with pytest.raises(IdentityError, match="one line"):
        parse_token(coordinator.token()[:-40])


def test_a_token_for_another_role_is_refused(coordinator):
    with pytest.raises(IdentityError, match="for a portal"):
        parse_token(coordinator.token(role="portal"))


def test_a_coordinator_with_another_authority_is_not_believed(device, coordinator):
    impostor = Coordinator(Authority())
    token = coordinator.token(enroll=f"127.0.0.1:{impostor.enroll_port}")
    with pytest.raises(PeerUnavailable):
        enroll(device.config, token, device.clock)
    assert impostor.received == []
    impostor.stop()


def test_a_state_folder_belongs_to_one_device(device, coordinator):
    device.enroll()
    with pytest.raises(IdentityError, match="use another state folder"):
        enroll(device.config, coordinator.token(name="a2"), device.clock)


def test_a_device_that_is_not_enrolled_is_told_what_to_do(device):
    with pytest.raises(IdentityError, match="perimeter-agent enroll"):
        device.daemon()


@pytest.mark.parametrize("crash", ["before the key", "before the certificate"])
def test_a_crash_between_two_files_of_a_renewal_is_finished_at_the_next_start(
    device, authority, crash
):
    device.enroll()
    folder = folder_of(device)
    pending = folder.pending_request()
    key = load_pem_private_key((folder.folder / "key.next.pem").read_bytes(), None)
    leaf = authority.issue(key.public_key())
    (folder.folder / "cert.next.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    if crash == "before the certificate":
        (folder.folder / "key.next.pem").replace(folder.folder / "key.pem")
    identity = folder.load()
    assert load_pem_private_key(identity.key_pem, None).public_key() == leaf.public_key()
    assert identity.certificate_pem == leaf.public_bytes(serialization.Encoding.PEM)
    assert folder.pending_request() != pending


def test_a_certificate_for_another_key_is_not_installed(device, authority):
    device.enroll()
    folder = folder_of(device)
    before = folder.load()
    folder.pending_request()
    foreign = authority.issue(authority.key.public_key())
    with pytest.raises(IdentityError, match="another key"):
        folder.install(foreign.public_bytes(serialization.Encoding.DER))
    assert folder.load() == before


def test_enrolling_again_offers_the_whole_pool_again(device, coordinator):
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    device.enroll().put("one", "two", "three")
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    device.enroll()
    stores = open_stores(device.config)
    stores.offer_all_again()
    stores.database.close()
    coordinator.batches.clear()
    again = device.daemon()
    device.until(again, lambda: len(coordinator.rows(campaign)) == 3)


def test_a_portal_of_another_site_gets_nothing(device, coordinator, authority):
    foreign = Portal(authority, site="south")
    device.values["portal"] = f"127.0.0.1:{foreign.port}"
    campaign = coordinator.add_campaign()
    coordinator.publish(campaign, 1)
    device.enroll().put("one")
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    candidate = next(iter(coordinator.rows(campaign)))
    coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    conditions = daemon._parts.stores.conditions
    device.until(daemon, lambda: "portal" in conditions.all())
    assert foreign.deliveries == 0
    foreign.stop()
