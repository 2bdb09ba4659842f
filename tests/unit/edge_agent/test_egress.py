"""Nothing leaves that is not allowed by name, and all that leaves is in the ledger."""

from __future__ import annotations

import doctest
import json
import resource
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, item_pb2, model_pb2

from edge_agent import backoff, egress_rules, egress_view
from edge_agent.egress import EgressGuard, encode_checked
from edge_agent.egress_ledger import EgressLedger, ledger_files, records, verify
from edge_agent.egress_rules import RULES
from edge_agent.errors import EgressRefused, StorageFull

METHOD = "perimeter.v1.GrantService/ListGrants"


def candidate_batch(rows: int = 3, **changes) -> candidate_pb2.CandidateBatch:
    fields = {
        "request_id": bytes(16),
        "campaign_id": bytes(16),
        "sequence": 1,
        "model_version": 1,
        "label_schema_digest": bytes(32),
        "day": 20_000,
        "row_count": rows,
        "candidate_ids": bytes(16 * rows),
        "margins": bytes(rows),
        "top_probabilities": bytes(rows),
        "entropies": bytes(rows),
        "divergence_risk": bytes(rows),
        "predicted_classes": bytes(2 * rows),
        "runner_up_classes": bytes(2 * rows),
        "prototype_classes": bytes(2 * rows),
        "cell_ids": bytes(2 * rows),
        "density_cost": bytes(rows),
    }
    return candidate_pb2.CandidateBatch(**(fields | changes))


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(m) for m in (egress_rules, egress_view, backoff)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 3


@pytest.mark.parametrize(
    "column",
    [
        {"margins": b"PATIENT-JOE"},
        {"top_probabilities": b"PATIENT-JOE"},
        {"entropies": b"PATIENT-JOE"},
        {"density_cost": b"\xc3\x9cBERWEISUNG"[:11]},
        {"predicted_classes": b"PATIENT-JOE IS SICK :("},
        {"runner_up_classes": b"PATIENT-JOE IS SICK :("},
        {"prototype_classes": b"PATIENT-JOE IS SICK :("},
    ],
    ids=lambda column: next(iter(column)),
)
def test_a_text_cannot_travel_as_a_column_of_its_length(column):
    encode_checked(candidate_batch(rows=11))
    with pytest.raises(EgressRefused, match="outside its allowed range"):
        encode_checked(candidate_batch(rows=11, **column))


def test_a_sound_batch_may_leave():
    message = candidate_batch()
    assert encode_checked(message) == message.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "change",
    [
        {"candidate_ids": bytes(47)},
        {"margins": b"a patient's name"},
        {"cell_ids": bytes(7)},
        {"label_schema_digest": b"short"},
        {"request_id": b"file-name.txt"},
        {"row_count": 10_001},
        {"day": 1_760_000_000},
    ],
)
def test_a_batch_with_anything_extra_is_refused(change):
    with pytest.raises(EgressRefused):
        encode_checked(candidate_batch(**change))


def test_an_unknown_field_is_refused_at_every_depth():
    smuggled = grant_pb2.Outcome.FromString(
        grant_pb2.Outcome(grant_id=bytes(16), state="OUTCOME_STATE_RELEASED").SerializeToString()
        + b"\xfa\x07\x0bPATIENT-JOE"
    )
    request = grant_pb2.RecordOutcomesRequest(request_id=bytes(16))
    request.outcomes.append(smuggled)
    assert b"PATIENT-JOE" in request.SerializeToString()
    with pytest.raises(EgressRefused, match="not in its definition"):
        encode_checked(request)


def test_a_message_that_no_rule_names_is_refused():
    for message in (item_pb2.Item(), grant_pb2.Grant(), model_pb2.Campaign(name="x")):
        with pytest.raises(EgressRefused, match="not a message that may leave"):
            encode_checked(message)


def test_an_agent_cannot_tell_how_an_expert_decided():
    outcome = grant_pb2.Outcome(
        grant_id=bytes(16), state="OUTCOME_STATE_LABELED", class_index_plus_one=3
    )
    request = grant_pb2.RecordOutcomesRequest(request_id=bytes(16), outcomes=[outcome])
    with pytest.raises(EgressRefused, match="class_index_plus_one"):
        encode_checked(request)


def csr(*, subject: str = "", extension: bool = False) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if extension:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("ward-3.hospital.example")]), critical=False
        )
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def test_a_signing_request_that_names_the_machine_is_refused():
    for der in (csr(subject="ward-3"), csr(extension=True), b"host name"):
        request = enrollment_pb2.RenewCertificateRequest(request_id=bytes(16), csr_der=der)
        with pytest.raises(EgressRefused, match="csr_der"):
            encode_checked(request)
    encode_checked(enrollment_pb2.RenewCertificateRequest(request_id=bytes(16), csr_der=csr()))


def test_every_allowed_field_exists_and_none_can_carry_text_or_fractions():
    files = (candidate_pb2, enrollment_pb2, grant_pb2, model_pb2)
    for name, rules in RULES.items():
        short = name.removeprefix("perimeter.v1.")
        found = [f.DESCRIPTOR.message_types_by_name.get(short) for f in files]
        (descriptor,) = [d for d in found if d is not None]
        for field_name in rules.fields:
            field = descriptor.fields_by_name[field_name]
            assert field.type not in {field.TYPE_STRING, field.TYPE_FLOAT, field.TYPE_DOUBLE}


@given(st.binary(max_size=200))
def test_no_bytes_from_outside_pass_unless_they_are_a_message_in_full(raw):
    try:
        message = candidate_pb2.CandidateBatch.FromString(raw)
    except Exception:
        return
    try:
        assert encode_checked(message) == message.SerializeToString(deterministic=True)
    except EgressRefused:
        return
    assert message.row_count * 29 <= len(raw)


def test_a_batch_that_counts_rows_without_their_columns_is_refused():
    with pytest.raises(EgressRefused, match="request_id"):
        encode_checked(candidate_pb2.CandidateBatch(row_count=1))
    batch = candidate_batch()
    batch.ClearField("cell_ids")
    with pytest.raises(EgressRefused, match="cell_ids"):
        encode_checked(batch)


def test_what_leaves_is_in_the_ledger_byte_for_byte(tmp_path):
    guard = EgressGuard(EgressLedger(tmp_path), lambda: 1000.5)
    message = candidate_batch()
    sent = guard.admit("coordinator", METHOD, message)
    (record,) = records(tmp_path)
    assert record.raw_payload() == sent
    assert (record.at, record.size_bytes, record.total_bytes) == (1000, len(sent), len(sent))


def test_a_refused_message_leaves_no_trace_and_is_not_sent(tmp_path):
    guard = EgressGuard(EgressLedger(tmp_path), lambda: 1.0)
    with pytest.raises(EgressRefused):
        guard.admit("coordinator", METHOD, candidate_batch(margins=b"secret"))
    assert list(records(tmp_path)) == []


def test_the_chain_goes_on_over_files_and_restarts(tmp_path):
    for first in (0, 10):
        ledger = EgressLedger(tmp_path, file_bytes_max=2000)
        for number in range(first, first + 10):
            ledger.append("coordinator", METHOD, bytes(number), at=number)
    assert len(ledger_files(tmp_path)) > 3
    found = verify(tmp_path)
    assert (found.message_count, found.byte_count, found.fault) == (20, sum(range(20)), "")


@pytest.mark.parametrize("harm", ["edit", "remove", "insert", "swap", "payload", "start"])
def test_every_change_of_the_ledger_shows(tmp_path, harm):
    ledger = EgressLedger(tmp_path)
    for number in range(6):
        ledger.append("coordinator", METHOD, bytes([number]) * 5, at=number)
    (path,) = ledger_files(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    if harm == "edit":
        lines[2] = lines[2].replace(b'"at": 2', b'"at": 9')
    elif harm == "remove":
        del lines[2]
    elif harm == "insert":
        lines.insert(2, lines[3])
    elif harm == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    elif harm == "payload":
        values = json.loads(lines[2])
        values["payload"] = "AAAA"
        lines[2] = json.dumps(values, sort_keys=True).encode() + b"\n"
    else:
        del lines[0]
        values = json.loads(lines[0])
        lines[0] = json.dumps(values | {"sequence": 1}, sort_keys=True).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    assert verify(tmp_path).fault


def test_half_a_line_of_a_crash_is_cut_and_the_chain_goes_on(tmp_path):
    EgressLedger(tmp_path).append("coordinator", METHOD, b"one", at=1)
    (path,) = ledger_files(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"sequence": 2, "at"')
    EgressLedger(tmp_path).append("coordinator", METHOD, b"two", at=2)
    found = verify(tmp_path)
    assert (found.message_count, found.fault) == (2, "")


def test_without_room_in_the_ledger_nothing_is_sent(tmp_path):
    ledger = EgressLedger(tmp_path)
    ledger.append("coordinator", METHOD, b"one", at=1)
    (path,) = ledger_files(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, limit[1]))
    try:
        with pytest.raises(StorageFull, match="nothing is sent"):
            ledger.append("coordinator", METHOD, b"two", at=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    ledger.append("coordinator", METHOD, b"three", at=3)
    found = verify(tmp_path)
    assert (found.message_count, found.fault) == (2, "")


def test_the_join_secret_is_not_kept_in_the_ledger(tmp_path):
    ledger = EgressLedger(tmp_path)
    ledger.append("enrollment", "perimeter.v1.EnrollmentService/Enroll", b"marker", at=1)
    assert b"marker" not in ledger_files(tmp_path)[0].read_bytes()
    (record,) = records(tmp_path)
    assert record.payload == ""
    assert "SHA-256" in egress_view.fields_of(record)[0][1]
    assert verify(tmp_path).fault == ""


def test_the_commands_show_and_check_the_ledger(tmp_path):
    (tmp_path / "agent.toml").write_text('state = "state"\n')
    ledger = EgressLedger(tmp_path / "state" / "egress")
    request = grant_pb2.ListGrantsRequest(page_size=500, wait_seconds=25)
    ledger.append("coordinator", METHOD, request.SerializeToString(), at=0)

    def agent(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "edge_agent", "egress", *words]
        return subprocess.run(
            [*command, "--config", str(tmp_path / "agent.toml")],
            capture_output=True,
            text=True,
            check=False,
        )

    shown = agent("show", "--full")
    assert "GrantService/ListGrants" in shown.stdout
    assert "wait_seconds = 25" in shown.stdout
    assert json.loads(agent("verify", "--json").stdout) == {
        "message_count": 1,
        "byte_count": 5,
        "fault": "",
    }
    (path,) = ledger_files(tmp_path / "state" / "egress")
    path.write_bytes(path.read_bytes().replace(b'"at": 0', b'"at": 5'))
    broken = agent("verify")
    assert broken.returncode == 1
    assert "BROKEN" in broken.stdout
