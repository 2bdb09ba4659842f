"""What the services answer to machines that are honest, mistaken, or somebody else."""

from __future__ import annotations

import base64
import dataclasses
import ssl
import time
import urllib.request
import uuid

import grpc
import numpy as np
import pytest
from central_harness import (
    TIMEOUT,
    in_phase,
    install_and_offer,
    key_pem,
    make_batch,
    new_key_and_csr,
    open_grants,
    read_token,
    report,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, grant_pb2_grpc, model_pb2

from coordinator.core.records import AuditRecord
from coordinator.enrollment import revoke
from coordinator.identity import pem_of
from coordinator.verification import audit_problems
from edge_agent.padding import padded


def order(central, token, *, csr=None, request_id=None, node_key=b""):
    return enrollment_pb2.EnrollRequest(
        request_id=request_id or uuid.uuid4().bytes,
        join_secret=base64.b64decode(read_token(token)["secret"]),
        csr_der=csr or new_key_and_csr()[1],
        node_public_key_der=node_key,
    )


def first_model(central, **changes):
    campaign_id, campaign = central.create(**changes)
    central.tick_until(in_phase("waiting", 1))
    return campaign_id, campaign


def revoke_one(office, machine):
    assert revoke(office.store, machine, office.clock())


# Enrolment


def test_a_join_token_lets_one_machine_in_once(central, refused):
    token = central.token("north", "agent", "one")
    central.enroll_stub().Enroll(order(central, token), timeout=TIMEOUT)
    again = order(central, token)
    assert refused(lambda: central.enroll_stub().Enroll(again, timeout=TIMEOUT)) == (
        "UNAUTHENTICATED",
        "JOIN_TOKEN_USED",
    )


def test_a_repeated_enrolment_gets_the_first_certificate(central):
    request = order(central, central.token("north", "agent", "one"))
    first = central.enroll_stub().Enroll(request, timeout=TIMEOUT)
    second = central.enroll_stub().Enroll(request, timeout=TIMEOUT)
    assert first == second


def test_a_wrong_join_secret_is_refused(central, refused):
    request = order(central, central.token("north", "agent", "one"))
    request.join_secret = bytes(32)
    assert refused(lambda: central.enroll_stub().Enroll(request, timeout=TIMEOUT)) == (
        "UNAUTHENTICATED",
        "JOIN_TOKEN_UNKNOWN",
    )


def test_a_join_token_ends_after_its_time(central, refused):
    request = order(central, central.token("north", "agent", "one", lifetime=900))
    central.clock.offset += 901
    assert refused(lambda: central.enroll_stub().Enroll(request, timeout=TIMEOUT)) == (
        "UNAUTHENTICATED",
        "JOIN_TOKEN_EXPIRED",
    )


def test_only_the_digest_of_a_join_secret_is_stored(central):
    secret = base64.b64decode(read_token(central.token("north", "agent", "one"))["secret"])
    stored = b"".join(path.read_bytes() for path in central.config.folder.glob("coordinator.db*"))
    assert secret not in stored
    assert secret.hex().encode() not in stored


def test_names_that_a_request_asks_for_are_ignored(central):
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "central")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.example.com")]), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    request = order(central, central.token("north", "agent", "one"), csr=csr)
    answer = central.enroll_stub().Enroll(request, timeout=TIMEOUT)
    certificate = x509.load_der_x509_certificate(answer.certificate_der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "perimeter://perimeter.local/site/north/agent/one"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["agent.north.perimeter.local"]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


def bad_requests():
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    other_curve = ec.generate_private_key(ec.SECP521R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    der = serialization.Encoding.DER
    good = new_key_and_csr()[1]
    return {
        "rsa": builder.sign(weak, hashes.SHA256()).public_bytes(der),
        "other curve": builder.sign(other_curve, hashes.SHA256()).public_bytes(der),
        "cut": good[:-4],
        "changed": good[:-1] + bytes([good[-1] ^ 1]),
        "no request": b"hello",
        "too long": good + bytes(5_000),
    }


@pytest.mark.parametrize("name", sorted(bad_requests()))
def test_a_signing_request_that_is_not_sound_uses_no_token_up(central, refused, name):
    token = central.token("north", "agent", "one")
    bad = order(central, token, csr=bad_requests()[name])
    assert refused(lambda: central.enroll_stub().Enroll(bad, timeout=TIMEOUT)) == (
        "INVALID_ARGUMENT",
        "CSR_INVALID",
    )
    central.enroll_stub().Enroll(order(central, token), timeout=TIMEOUT)


def test_a_node_key_lands_in_the_folder_that_the_federation_reads(central):
    central.enroll("north", "node", "gpu")
    path = central.config.folder / "nodes" / "north.gpu.pub"
    assert path.read_text().startswith("ecdsa-sha2-nistp384 ")
    central.ask(revoke_one, ("north", "node", "gpu"))
    central.enroll("south", "node", "gpu")
    assert not path.exists()


# Access


def test_without_a_client_certificate_no_call_is_served(central):
    credentials = grpc.ssl_channel_credentials(central.authority)
    channel = grpc.secure_channel(f"127.0.0.1:{central.servers.port}", credentials)
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub(channel).ListGrants(grant_pb2.ListGrantsRequest(page_size=1), timeout=15)
    assert caught.value.code() in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }


def grpc_stub(channel):
    return grant_pb2_grpc.GrantServiceStub(channel)


def test_a_certificate_of_another_authority_is_refused_in_the_handshake(central, runner, config):
    foreign = runner.start(
        config.model_copy(update={"folder": config.folder.with_name("elsewhere")})
    ).enroll("north")
    channel = central.mutual_channel(key_pem(foreign.key), pem_of(foreign.certificate_der))
    with pytest.raises(grpc.RpcError) as caught:
        grpc_stub(channel).ListGrants(grant_pb2.ListGrantsRequest(page_size=1), timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_expired_certificate_is_refused_on_an_open_connection(central, refused):
    agent = central.enroll("north")
    assert open_grants(agent) == []
    central.clock.offset += central.config.certificate_lifetime_seconds + 1
    assert refused(lambda: open_grants(agent)) == ("UNAUTHENTICATED", "CERTIFICATE_EXPIRED")


def test_a_certificate_that_has_really_expired_cannot_connect(central):
    central.clock.offset -= 2 * central.config.certificate_lifetime_seconds
    agent = central.enroll("north")
    central.clock.offset = 0
    with pytest.raises(grpc.RpcError) as caught:
        agent.grants.ListGrants(grant_pb2.ListGrantsRequest(page_size=1), timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_revocation_holds_from_the_next_call_on(central, refused):
    agent = central.enroll("north")
    assert open_grants(agent) == []
    central.ask(revoke_one, ("north", "agent", "one"))
    assert refused(lambda: open_grants(agent)) == ("UNAUTHENTICATED", "CERTIFICATE_REVOKED")


def test_revocation_cuts_an_open_stream_at_its_next_batch(waiting):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    sent = []

    def batches():
        for sequence in (1, 2):
            sent.append(sequence)
            yield make_batch(campaign_id, campaign, sequence=sequence)
            if sequence == 1:
                while not acknowledged:
                    time.sleep(0.01)
                central.ask(
                    lambda office: revoke(office.store, ("north", "agent", "one"), office.clock())
                )

    acknowledged: list[int] = []
    stream = agent.candidates.StreamCandidateBatches(batches(), timeout=TIMEOUT)
    with pytest.raises(grpc.RpcError) as caught:
        acknowledged.extend(ack.sequence for ack in stream)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert acknowledged == [1]


def test_a_new_enrolment_of_a_machine_ends_the_old_one(central, refused):
    old = central.enroll("north")
    new = central.enroll("north")
    assert refused(lambda: open_grants(old)) == ("UNAUTHENTICATED", "CERTIFICATE_REVOKED")
    assert open_grants(new) == []


def test_a_renewed_certificate_works_beside_the_old_one(central):
    agent = central.enroll("north")
    key, csr = new_key_and_csr()
    request = enrollment_pb2.RenewCertificateRequest(request_id=uuid.uuid4().bytes, csr_der=csr)
    renewed = agent.identity.RenewCertificate(request)
    assert agent.identity.RenewCertificate(request) == renewed
    assert renewed.expire_time.seconds > time.time() + 80_000
    channel = central.mutual_channel(key_pem(key), pem_of(renewed.certificate_der))
    assert (
        list(grpc_stub(channel).ListGrants(grant_pb2.ListGrantsRequest(page_size=1)).grants) == []
    )
    assert open_grants(agent) == []


def test_a_portal_keeps_its_hosts_when_it_renews(central):
    portal = central.enroll("north", "portal")
    _, csr = new_key_and_csr()
    renewed = portal.identity.RenewCertificate(
        enrollment_pb2.RenewCertificateRequest(request_id=uuid.uuid4().bytes, csr_der=csr)
    )
    for der in (portal.certificate_der, renewed.certificate_der):
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert names.value.get_values_for_type(x509.DNSName) == ["portal.north.perimeter.local"]
        assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


@pytest.mark.parametrize("role", ["portal", "node", "operator"])
def test_only_agents_list_grants(central, refused, role):
    machine = central.enroll("north", role)
    assert refused(lambda: open_grants(machine)) == ("PERMISSION_DENIED", "ROLE_FORBIDDEN")


# Candidates


def test_a_batch_is_durable_when_it_is_acknowledged(waiting):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    (ack,) = agent.send(make_batch(campaign_id, campaign, sequence=1, rows=5))
    assert (ack.sequence, ack.new_row_count) == (1, 5)
    (head,) = central.ask(lambda office: office.store.segments(campaign_id))
    assert head.row_count == 5


def test_a_replayed_batch_changes_nothing(waiting):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    batch = make_batch(campaign_id, campaign, sequence=1)
    first, second = agent.send(batch, batch)
    assert first == second
    assert len(central.ask(lambda office: office.store.segments(campaign_id))) == 1


def test_a_batch_that_comes_again_with_padding_after_an_update_changes_nothing(waiting, refused):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    batch = make_batch(campaign_id, campaign, sequence=1)
    (first,) = agent.send(batch)
    (second,) = agent.send(padded(batch))
    assert first == second
    assert len(central.ask(lambda office: office.store.segments(campaign_id))) == 1
    (fresh,) = agent.send(padded(make_batch(campaign_id, campaign, sequence=2, seed=3)))
    assert fresh.sequence == 2
    spoilt = padded(make_batch(campaign_id, campaign, sequence=3, seed=4))
    spoilt.padding = b"x" + spoilt.padding[1:]
    assert refused(lambda: agent.send(spoilt)) == ("INVALID_ARGUMENT", "FIELD_INVALID")


def test_rows_that_were_seen_before_are_counted_once(waiting):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    same = {"rows": 4, "seed": 7}
    acks = agent.send(
        make_batch(campaign_id, campaign, sequence=1, **same),
        make_batch(campaign_id, campaign, sequence=2, **same),
    )
    assert [ack.new_row_count for ack in acks] == [4, 0]


def test_two_copies_of_one_device_are_noticed(waiting, refused):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    agent.send(make_batch(campaign_id, campaign, sequence=1, seed=1))
    clone = make_batch(campaign_id, campaign, sequence=1, seed=2)
    assert refused(lambda: agent.send(clone)) == ("ABORTED", "BATCH_SEQUENCE_FORK")


def damaged_batches():
    """Name to a change that makes one part of a sound batch wrong."""
    return {
        "a column is short": lambda b: b.update(margins=b["margins"][:-1]),
        "a column is long": lambda b: b.update(cell_ids=b["cell_ids"] + b"\0"),
        "a column is missing": lambda b: b.update(entropies=b""),
        "a score is out of range": lambda b: b.update(margins=b["margins"][:-1] + b"\x40"),
        "a band is out of range": lambda b: b.update(density_cost=b["density_cost"][:-1] + b"\x80"),
        "an id stands twice": lambda b: b.update(
            candidate_ids=b["candidate_ids"][:16] * b["row_count"]
        ),
        "no rows": lambda b: b.update(row_count=0),
        "too many rows": lambda b: b.update(row_count=10_001),
        "no request id": lambda b: b.update(request_id=b""),
        "sequence zero": lambda b: b.update(sequence=0),
        "a far day": lambda b: b.update(day=10_000_000),
        "a short digest": lambda b: b.update(label_schema_digest=bytes(31)),
    }


@pytest.mark.parametrize("name", sorted(damaged_batches()))
def test_a_half_wrong_batch_is_refused_whole(waiting, refused, name):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    sound = make_batch(campaign_id, campaign, sequence=1)
    fields = {descriptor.name: value for descriptor, value in sound.ListFields()}
    damaged_batches()[name](fields)
    batch = candidate_pb2.CandidateBatch(**fields)
    assert refused(lambda: agent.send(batch)) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert central.ask(lambda office: office.store.segments(campaign_id)) == []


def test_an_unknown_field_is_refused(waiting, refused):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    raw = make_batch(campaign_id, campaign, sequence=1).SerializeToString()
    smuggled = candidate_pb2.CandidateBatch.FromString(raw + b"\xfa\x3f\x06secret")
    assert refused(lambda: agent.send(smuggled)) == ("INVALID_ARGUMENT", "FIELD_INVALID")


def test_a_class_outside_the_schema_is_refused(waiting, refused):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    classes = np.full(8, 3, dtype="<u2").tobytes()
    batch = make_batch(campaign_id, campaign, sequence=1, runner_up_classes=classes)
    assert refused(lambda: agent.send(batch)) == ("FAILED_PRECONDITION", "LABEL_SCHEMA_MISMATCH")


def test_a_model_version_that_was_never_released_is_refused(waiting, refused):
    central, campaign_id, campaign = waiting
    agent = central.enroll("north")
    batch = make_batch(campaign_id, campaign, sequence=1, model_version=9)
    assert refused(lambda: agent.send(batch)) == ("FAILED_PRECONDITION", "MODEL_VERSION_UNKNOWN")


def test_a_site_outside_the_campaign_sees_and_sends_nothing(waiting, refused):
    central, campaign_id, campaign = waiting
    stranger = central.enroll("west")
    batch = make_batch(campaign_id, campaign, sequence=1)
    assert refused(lambda: stranger.send(batch)) == ("NOT_FOUND", "CAMPAIGN_UNKNOWN")
    assert not stranger.models.ListCampaigns(model_pb2.ListCampaignsRequest()).campaigns
    request = model_pb2.GetModelVersionRequest(campaign_id=campaign_id)
    assert refused(lambda: stranger.models.GetModelVersion(request))[0] == "NOT_FOUND"
    bundle = model_pb2.DownloadBundleRequest(campaign_id=campaign_id, version=1)
    assert refused(lambda: list(stranger.models.DownloadBundle(bundle)))[0] == "NOT_FOUND"


def test_a_message_larger_than_the_limit_is_refused(runner, config):
    central = runner.start(config.model_copy(update={"message_bytes_max": 1 << 16}))
    campaign_id, campaign = first_model(central)
    agent = central.enroll("north")
    with pytest.raises(grpc.RpcError) as caught:
        agent.send(make_batch(campaign_id, campaign, sequence=1, rows=5_000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# Grants and outcomes


@pytest.fixture
def granted(waiting):
    """Two agents and portals with open grants, by site."""
    central, campaign_id, campaign = waiting
    agents = {site: central.enroll(site) for site in ("north", "south")}
    portals = {site: central.enroll(site, "portal") for site in ("north", "south")}
    for number, agent in enumerate(agents.values()):
        install_and_offer(agent, campaign_id, campaign, 1, seed=number)
    central.tick_until(in_phase("labeling", 1))
    return agents, portals, {site: open_grants(agent) for site, agent in agents.items()}


def test_an_agent_sees_its_own_grants_only(granted):
    agents, _, grants = granted
    ids = {site: {grant.grant_id for grant in found} for site, found in grants.items()}
    assert ids["north"]
    assert ids["south"]
    assert not ids["north"] & ids["south"]
    last = max(grant.ledger_sequence for grant in grants["north"])
    request = grant_pb2.ListGrantsRequest(page_size=10, after_ledger_sequence=last)
    assert not agents["north"].grants.ListGrants(request).grants


def test_a_portal_cannot_settle_grants_of_another_site(waiting, granted, refused):
    central = waiting[0]
    _, portals, grants = granted
    before = central.desk.office.ledger.digest
    mixed = [grants["north"][0], grants["south"][0]]
    assert refused(lambda: report(portals["north"], mixed)) == (
        "PERMISSION_DENIED",
        "GRANT_OF_OTHER_SITE",
    )
    assert central.desk.office.ledger.digest == before


def test_an_agent_cannot_say_that_an_item_was_labeled(granted, refused):
    agents, _, grants = granted
    assert refused(lambda: report(agents["north"], grants["north"][:1])) == (
        "PERMISSION_DENIED",
        "OUTCOME_NOT_YOURS",
    )


def test_an_agent_cannot_settle_the_grants_of_its_neighbour(waiting, granted, refused):
    central = waiting[0]
    _, _, grants = granted
    neighbour = central.enroll("north", "agent", "two")
    state = grant_pb2.OUTCOME_STATE_REFUSED
    assert refused(lambda: report(neighbour, grants["north"][:1], state)) == (
        "PERMISSION_DENIED",
        "OUTCOME_NOT_YOURS",
    )


def test_a_refused_item_gives_its_label_back(waiting, granted):
    central = waiting[0]
    agents, _, grants = granted
    report(agents["north"], grants["north"][:2], grant_pb2.OUTCOME_STATE_REFUSED)
    (campaign_id,) = {grant.campaign_id for grant in grants["north"]}
    total = central.desk.office.ledger.books(campaign_id).total
    assert (total.returned, total.spent, total.reserved) == (2, 0, 8)


def test_the_first_final_state_stands(granted):
    _, portals, grants = granted
    first = report(portals["north"], grants["north"][:1], grant_pb2.OUTCOME_STATE_ABSTAINED)
    second = report(portals["north"], grants["north"][:1])
    assert first.outcomes[0].state == grant_pb2.OUTCOME_STATE_ABSTAINED
    assert second.outcomes[0].state == grant_pb2.OUTCOME_STATE_ABSTAINED


def test_a_repeated_report_gets_the_first_answer_and_moves_nothing(waiting, granted):
    central = waiting[0]
    _, portals, grants = granted
    request_id = uuid.uuid4().bytes
    first = report(portals["north"], grants["north"], request_id=request_id)
    digest = central.desk.office.ledger.digest
    assert report(portals["north"], grants["north"], request_id=request_id) == first
    assert central.desk.office.ledger.digest == digest


def test_a_report_that_comes_again_with_padding_gets_the_first_answer(granted):
    _, portals, grants = granted
    request = grant_pb2.RecordOutcomesRequest(
        request_id=uuid.uuid4().bytes,
        outcomes=[
            grant_pb2.Outcome(grant_id=g.grant_id, state=grant_pb2.OUTCOME_STATE_ABSTAINED)
            for g in grants["north"]
        ],
    )
    first = portals["north"].grants.RecordOutcomes(request)
    assert portals["north"].grants.RecordOutcomes(padded(request)) == first


def test_a_request_id_cannot_be_used_for_something_else(granted, refused):
    _, portals, grants = granted
    request_id = uuid.uuid4().bytes
    report(portals["north"], grants["north"][:1], request_id=request_id)
    other = grants["north"][1:2]
    assert refused(lambda: report(portals["north"], other, request_id=request_id)) == (
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
    )


def test_released_then_labeled_may_come_in_one_report(granted):
    _, portals, grants = granted
    grant_id = grants["north"][0].grant_id
    outcomes = [
        grant_pb2.Outcome(grant_id=grant_id, state=grant_pb2.OUTCOME_STATE_RELEASED),
        grant_pb2.Outcome(grant_id=grant_id, state=grant_pb2.OUTCOME_STATE_LABELED),
    ]
    request = grant_pb2.RecordOutcomesRequest(request_id=uuid.uuid4().bytes, outcomes=outcomes)
    states = [o.state for o in portals["north"].grants.RecordOutcomes(request).outcomes]
    assert states == [grant_pb2.OUTCOME_STATE_RELEASED, grant_pb2.OUTCOME_STATE_LABELED]


def test_an_unknown_grant_does_not_hold_up_the_others(granted):
    _, portals, grants = granted
    outcomes = [
        grant_pb2.Outcome(grant_id=bytes(16), state=grant_pb2.OUTCOME_STATE_LABELED),
        grant_pb2.Outcome(
            grant_id=grants["north"][0].grant_id, state=grant_pb2.OUTCOME_STATE_LABELED
        ),
    ]
    request = grant_pb2.RecordOutcomesRequest(request_id=uuid.uuid4().bytes, outcomes=outcomes)
    states = [o.state for o in portals["north"].grants.RecordOutcomes(request).outcomes]
    assert states == [grant_pb2.OUTCOME_STATE_UNSPECIFIED, grant_pb2.OUTCOME_STATE_LABELED]


# Operator pages


def fetch(central, path):
    url = f"http://127.0.0.1:{central.servers.metrics_port}{path}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def test_metrics_show_accounts_and_what_was_received(waiting, granted):
    central = waiting[0]
    text = fetch(central, "/metrics")
    assert 'perimeter_labels_total{account="reserved",campaign="digits"} 10.0' in text
    received = next(
        line for line in text.splitlines() if line.startswith("perimeter_bytes_received_total ")
    )
    assert float(received.split()[1]) > 500


def test_counters_of_what_was_received_survive_a_restart(runner, config):
    first = runner.start(config)
    agent = first.enroll("north")
    open_grants(agent)
    first.tick()
    runner.stop(first)
    second = runner.start(config)
    assert '"messages": 2' in fetch(second, "/status")


def test_a_campaign_is_described_to_its_sites(central):
    campaign_id, campaign = central.create(
        guideline="Look twice.", class_guidelines={"1": "one stroke"}, overlap_count=2
    )
    portal = central.enroll("north", "portal")
    (told,) = portal.models.ListCampaigns(model_pb2.ListCampaignsRequest()).campaigns
    assert told.campaign_id == campaign_id
    assert told.label_schema_json == campaign.label_schema.canonical_json()
    assert told.guideline == "Look twice.\n\n- **1**: one stroke"
    assert len(told.candidate_key_salt) == 16
    assert dataclasses.asdict(campaign)["overlap_count"] == told.overlap_count == 2


def test_a_renewed_server_certificate_is_used_without_a_restart(central):
    pem = central.config.identity_folder / "server.pem"
    before = pem.read_bytes()
    central.clock.offset += 61 * 86_400
    central.tick()
    central.clock.offset = 0
    assert pem.read_bytes() != before
    served = ssl.get_server_certificate(("127.0.0.1", central.servers.enroll_port))
    assert ssl.PEM_cert_to_DER_cert(served) == ssl.PEM_cert_to_DER_cert(pem.read_text())


def test_the_audit_log_tells_who_came_and_went(central):
    central.enroll("north")
    central.ask(revoke_one, ("north", "agent", "one"))
    lines = central.ask(lambda office: office.store.find(AuditRecord))
    assert [line.action for line in lines] == ["join token made", "enrolled", "revoked"]
    assert lines[-1].subject == "north/agent/one"
    assert central.ask(lambda office: audit_problems(office.store)) == []


def test_a_changed_audit_line_is_found(central):
    central.enroll("north")
    (line, *_) = central.ask(lambda office: office.store.find(AuditRecord))

    def change(office):
        with office.store.transaction() as writer:
            writer.put(dataclasses.replace(line, subject="somebody else"))
        return audit_problems(office.store)

    assert central.ask(change) == ["audit line 1 was changed or is missing"]
