"""The link to the coordinator and enrolment, against a real gRPC peer with mutual TLS."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from perimeter.v1 import (
    candidate_pb2,
    candidate_pb2_grpc,
    enrollment_pb2,
    enrollment_pb2_grpc,
    grant_pb2,
    grant_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from portal_bench import CAMPAIGN_ID, CLASSES, Authority, new_item, tls_server
from test_label_store import decide, lease, undo

from model_bundle.label_schema import LabelSchema
from review_portal.coordinator_link import CoordinatorLink
from review_portal.core.model import GrantReason
from review_portal.egress.archive import EgressArchive
from review_portal.egress.guard import EgressGuard
from review_portal.egress.reading import Choice, check, newest
from review_portal.enrollment import enroll, parse_join_token
from review_portal.errors import EnrollmentFailed
from review_portal.identity import load_identity, peer_of

SECRET = b"s" * 32


class Coordinator(
    grant_pb2_grpc.GrantServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
    candidate_pb2_grpc.CandidateServiceServicer,
    enrollment_pb2_grpc.EnrollmentServiceServicer,
    enrollment_pb2_grpc.IdentityServiceServicer,
):
    """Keeps the first final state of each grant, as the ledger does."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.final: dict[bytes, grant_pb2.Outcome] = {}
        self.released: set[bytes] = set()
        self.calls = 0
        self.reports: list[candidate_pb2.ReportSiteRequest] = []
        self.lose_answers = 0
        self.renewals = 0

    def ListCampaigns(self, request, context):
        campaign = model_pb2.Campaign(
            campaign_id=CAMPAIGN_ID,
            name="tickets",
            state=model_pb2.CAMPAIGN_STATE_ACTIVE,
            label_schema_json=LabelSchema(CLASSES).canonical_json(),
            kind="text",
            view="masked",
            overlap_count=1,
            guideline="# Card",
        )
        return model_pb2.ListCampaignsResponse(campaigns=[campaign])

    def RecordOutcomes(self, request, context):
        self.calls += 1
        answered = []
        for outcome in request.outcomes:
            if outcome.state == grant_pb2.OUTCOME_STATE_RELEASED:
                self.released.add(outcome.grant_id)
                state = outcome.state
            else:
                state = self.final.setdefault(outcome.grant_id, outcome).state
            answered.append(grant_pb2.RecordedOutcome(grant_id=outcome.grant_id, state=state))
        if self.lose_answers:
            self.lose_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return grant_pb2.RecordOutcomesResponse(outcomes=answered)

    def ReportSite(self, request, context):
        self.reports.append(request)
        return candidate_pb2.ReportSiteResponse()

    def Enroll(self, request, context):
        if request.join_secret != SECRET:
            context.set_trailing_metadata((("perimeter-reason", "TOKEN_USED"),))
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the join token was used before")
        return enrollment_pb2.EnrollResponse(
            certificate_der=self._issue(request.csr_der),
            authority_der=self.authority.certificate.public_bytes(serialization.Encoding.DER),
            site_id="alder",
            name="main",
            release_public_key=bytes(32),
            grant_public_key=self.authority.grant_key.public_key().public_bytes_raw(),
        )

    def RenewCertificate(self, request, context):
        self.renewals += 1
        return enrollment_pb2.RenewCertificateResponse(certificate_der=self._issue(request.csr_der))

    def _issue(self, csr_der: bytes) -> bytes:
        csr = x509.load_der_x509_csr(csr_der)
        assert csr.is_signature_valid
        uri = "perimeter://test/site/alder/portal/main"
        _, pem = self.authority.leaf(uri, csr.public_key())
        leaf = x509.load_pem_x509_certificate(pem)
        return leaf.public_bytes(serialization.Encoding.DER)


def register(coordinator: Coordinator):
    def add(server: grpc.Server) -> None:
        grant_pb2_grpc.add_GrantServiceServicer_to_server(coordinator, server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(coordinator, server)
        candidate_pb2_grpc.add_CandidateServiceServicer_to_server(coordinator, server)
        enrollment_pb2_grpc.add_EnrollmentServiceServicer_to_server(coordinator, server)
        enrollment_pb2_grpc.add_IdentityServiceServicer_to_server(coordinator, server)

    return add


@pytest.fixture
def coordinator(authority):
    made = Coordinator(authority)
    server, made.address = tls_server(authority, register(made), mutual=True)
    made.server = server
    yield made
    server.stop(None).wait()


def guard_of(folder, clock) -> EgressGuard:
    return EgressGuard(EgressArchive(folder / "portal"), "portal/main", clock)


@pytest.fixture
def link(bench, authority, coordinator, tmp_path):
    identity = authority.identity(tmp_path / "identity", coordinator=coordinator.address)
    guard = guard_of(tmp_path, bench.clock)
    made = CoordinatorLink(bench.store, identity, bench.clock, 1.0, 60.0, lambda: 0.5, guard)
    yield made
    made.stop()


def states(coordinator: Coordinator) -> list[str]:
    return [grant_pb2.OutcomeState.Name(o.state) for o in coordinator.final.values()]


def test_campaigns_outcomes_and_totals_travel_in_one_turn(bench, link, coordinator) -> None:
    made = bench.fill(2)
    lease(bench, 1)
    decide(bench, 1, made[0].item_id, 2)
    decide(bench, 1, made[1].item_id, None)
    bench.clock.now += 11
    assert link.turn()
    assert coordinator.released == {entry.item_id for entry in made}
    outcome = coordinator.final[made[0].item_id]
    assert outcome.state == grant_pb2.OUTCOME_STATE_LABELED
    assert outcome.suggestion == grant_pb2.SUGGESTION_VERDICT_CORRECTED
    assert (outcome.decision_seconds, outcome.class_index_plus_one) == (2, 3)
    assert coordinator.final[made[1].item_id].state == grant_pb2.OUTCOME_STATE_ABSTAINED
    assert coordinator.reports[0].label_count == 1
    assert coordinator.reports[0].label_counts == b"\0" * 8 + b"\1\0\0\0"
    assert bench.store.campaign("tickets").guideline == "# Card"


def test_an_outcome_waits_for_the_undo_before_it_is_sent(bench, link, coordinator) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 1)
    link.turn()
    assert coordinator.final == {}
    undo(bench, 1)
    bench.clock.now += 11
    link.turn()
    assert coordinator.final == {}
    decide(bench, 1, made.item_id, 2)
    bench.clock.now += 11
    link.turn()
    assert coordinator.final[made.item_id].class_index_plus_one == 3


def test_an_outcome_whose_answer_was_lost_is_sent_again_and_counted_once(
    bench, link, coordinator
) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 1)
    bench.clock.now += 11
    coordinator.lose_answers = 1
    assert not link.turn()
    assert link.state.last_error == "UNAVAILABLE"
    assert link.turn()
    assert states(coordinator) == ["OUTCOME_STATE_LABELED"]
    calls = coordinator.calls
    link.turn()
    assert coordinator.calls == calls


def test_outcomes_wait_while_the_coordinator_is_away(bench, link, coordinator) -> None:
    made = bench.fill(3)
    coordinator.server.stop(None).wait()
    lease(bench, 1)
    for entry in made:
        decide(bench, 1, entry.item_id)
    bench.clock.now += 11
    assert not link.turn()
    assert link.state.failed_count == 1
    server, address = tls_server(coordinator.authority, register(coordinator), mutual=True)
    fields = json.loads((link.identity.folder / "identity.json").read_text())
    (link.identity.folder / "identity.json").write_text(
        json.dumps({**fields, "coordinator": address})
    )
    identity = load_identity(link.identity.folder)
    back = CoordinatorLink(bench.store, identity, bench.clock, 1.0, 60.0, lambda: 0.5, link.guard)
    assert back.turn()
    back.stop()
    server.stop(None).wait()
    assert states(coordinator) == ["OUTCOME_STATE_LABELED"] * 3


def test_the_class_index_stays_home_when_the_site_forbids_it(bench, link, coordinator) -> None:
    bench.set(share_class_index=False)
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 2)
    bench.clock.now += 11
    link.turn()
    assert coordinator.final[made.item_id].class_index_plus_one == 0
    assert coordinator.reports[0].label_counts == b""


def test_the_thread_works_by_itself_and_wakes_up_when_asked(bench, link, coordinator) -> None:
    link.start()
    deadline = threading.Event()
    for _ in range(1200):
        if link.state.last_contact_at:
            break
        deadline.wait(0.05)
    assert link.state.failed_count == 0
    bench.receive(new_item(7))
    link.wake()
    for _ in range(1200):
        if coordinator.released:
            break
        deadline.wait(0.05)
    assert coordinator.released == {new_item(7).item_id}


def token_text(signer: Authority, address: str, **changes) -> str:
    fields = {
        "enroll": address,
        "coordinator": "coordinator.example:8443",
        "authority": base64.b64encode(
            signer.certificate.public_bytes(serialization.Encoding.DER)
        ).decode(),
        "secret": base64.b64encode(SECRET).decode(),
        "site": "alder",
        "role": "portal",
        "name": "main",
        **changes,
    }
    packed = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    return f"pmt1.{packed}"


def enroll_by(text: str, folder):
    archive = EgressArchive(folder)
    return enroll(parse_join_token(text), folder / "identity", archive, lambda: 7.0)


@pytest.fixture
def listener(authority):
    server, address = tls_server(authority, register(Coordinator(authority)), mutual=False)
    yield address
    server.stop(None).wait()


def test_enrolment_writes_an_identity_whose_key_never_left(authority, listener, tmp_path) -> None:
    identity = enroll_by(token_text(authority, listener), tmp_path)
    (left,) = newest(EgressArchive(tmp_path), Choice())
    assert (left.source, left.record.method) == (
        "portal/main", "perimeter.v1.EnrollmentService/Enroll",
    )  # fmt: skip
    assert left.record.payload == "", "the secret of the join token is not kept"
    assert (identity.site_id, identity.name, identity.trust_domain) == ("alder", "main", "test")
    assert load_identity(tmp_path / "identity") == identity
    assert (tmp_path / "identity" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert peer_of(identity.pem("cert.pem")).role == "portal"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": base64.b64encode(b"x" * 32).decode()}, "TOKEN_USED"),
        ({"role": "agent"}, "this is a portal"),
        ({"authority": "AAAA"}, "no join token"),
        ({"enroll": "127.0.0.1:1"}, "cannot be reached"),
    ],
)
def test_a_wrong_token_writes_nothing(authority, listener, tmp_path, changes, message) -> None:
    with pytest.raises(EnrollmentFailed, match=message):
        enroll_by(token_text(authority, listener, **changes), tmp_path)
    assert not (tmp_path / "identity").exists()


def test_a_listener_of_another_authority_is_not_trusted(authority, tmp_path) -> None:
    impostor = Authority()
    server, address = tls_server(impostor, register(Coordinator(impostor)), mutual=False)
    with pytest.raises(EnrollmentFailed, match="cannot be reached"):
        enroll_by(token_text(authority, address), tmp_path)
    server.stop(None).wait()


def test_text_that_is_no_token_is_named() -> None:
    for text in ("", "hello", "pmt1.%%%", "pmt1.e30"):
        with pytest.raises(EnrollmentFailed, match="no join token"):
            parse_join_token(text)


def test_an_identity_that_is_not_whole_says_what_to_do(tmp_path) -> None:
    with pytest.raises(EnrollmentFailed, match="perimeter-portal enroll"):
        load_identity(tmp_path)


def test_a_certificate_past_half_its_life_is_renewed(bench, link, coordinator) -> None:
    import time

    link.clock = lambda: time.time() + 20 * 3600
    before = link.identity.pem("cert.pem")
    assert link.turn()
    assert coordinator.renewals == 1
    assert link.identity.pem("cert.pem") != before
    link.clock = time.time
    assert link.turn()
    assert coordinator.renewals == 1


def test_all_that_the_link_sends_stands_in_the_ledger_of_the_portal(
    bench, link, coordinator, tmp_path
) -> None:
    made = bench.fill(1)[0]
    lease(bench, 1)
    decide(bench, 1, made.item_id, 2)
    bench.clock.now += 11
    assert link.turn()
    archive = EgressArchive(tmp_path / "portal")
    kinds = [shown.record.method.rpartition("/")[2] for shown in newest(archive, Choice())]
    sent = ["ReportSite", "RecordOutcomes", "RecordOutcomes", "ListCampaigns"]
    assert kinds == [*sent, "RenewCertificate"]
    fields = dict(newest(archive, Choice())[1].fields)
    assert fields["outcomes[0].grant_id"] == made.item_id.hex()
    assert fields["outcomes[0].state"] == "OUTCOME_STATE_LABELED"
    checked = check(archive, "portal/main")
    assert (checked.message_count, checked.faults) == (5, ())
    reported = newest(archive, Choice())[0].record.raw_payload()
    assert candidate_pb2.ReportSiteRequest.FromString(reported) == coordinator.reports[0]


def test_a_message_that_may_not_leave_is_neither_sent_nor_recorded(
    bench, link, coordinator, tmp_path, monkeypatch
) -> None:
    import review_portal.coordinator_link as module

    def smuggling(*_):
        report = candidate_pb2.ReportSiteRequest(request_id=bytes(16), campaign_id=bytes(16), day=1)
        report.MergeFromString(b"\xfa\x07\x0bPATIENT-JOE")
        return report

    monkeypatch.setattr(module, "site_report", smuggling)
    assert not link.turn()
    assert "not in its definition" in link.state.last_error
    assert "JOE" not in link.state.last_error
    assert coordinator.reports == []
    archive = EgressArchive(tmp_path / "portal")
    kinds = {shown.record.method.rpartition("/")[2] for shown in newest(archive, Choice())}
    assert "ReportSite" not in kinds


def explored(bench, count: int, *, right: int, reason=GrantReason.EXPLORE) -> None:
    """Items whose model is 90 % sure of class 0, of which the experts agree to `right`."""
    made = [new_item(number, probabilities=(0.9, 0.05, 0.05)) for number in range(count)]
    grants = [dataclasses.replace(entry.grant, reason=reason) for entry in made]
    bench.receive(*(dataclasses.replace(e, grant=g) for e, g in zip(made, grants, strict=True)))
    for number, entry in enumerate(made):
        if number % 20 == 0:
            lease(bench, 1)
        decide(bench, 1, entry.item_id, 0 if number < right else 1)


def test_the_totals_carry_how_confidence_stands_up_to_labels_that_chance_asked_for(
    bench, link, coordinator
) -> None:
    explored(bench, 60, right=36)
    assert link.turn()
    report = coordinator.reports[0]
    assert report.calibration_error_milli == pytest.approx(300, abs=1)
    assert report.temperature_milli > 1500


@pytest.mark.parametrize(("count", "reason"), [(40, GrantReason.EXPLORE), (60, GrantReason.USEFUL)])
def test_too_few_labels_or_labels_asked_for_their_doubt_say_nothing_of_calibration(
    bench, link, coordinator, count, reason
) -> None:
    explored(bench, count, right=count // 2, reason=reason)
    assert link.turn()
    assert coordinator.reports[0].label_count == count
    assert coordinator.reports[0].temperature_milli == 0
