"""What left the site: copies of devices' ledgers arrive whole, and whatever does not fit shows."""

from __future__ import annotations

import doctest
import json
import os
import re
from dataclasses import asdict, replace

import grpc
import pytest
from perimeter.v1 import candidate_pb2, grant_pb2, item_pb2, item_pb2_grpc, model_pb2
from portal_bench import CAMPAIGN_ID, Clock

from review_portal.__main__ import main
from review_portal.config import PortalConfig
from review_portal.core.model import Role
from review_portal.egress import decoding, guard, record, rules
from review_portal.egress.archive import EgressArchive
from review_portal.egress.reading import (
    Choice,
    alarms,
    check,
    lines,
    newest,
    spent_epsilon,
    totals,
)
from review_portal.egress.record import EgressRecord, Outgoing, following, parse_line
from review_portal.egress.rules import encode_checked
from review_portal.errors import EgressRefused, EgressUnwritable
from review_portal.intake import IntakeDesk, start_intake

DAY = 86400
LIST_GRANTS = "perimeter.v1.GrantService/ListGrants"


def ledger(count: int, *, after: EgressRecord | None = None, at: int = DAY) -> list[EgressRecord]:
    made: list[EgressRecord] = []
    for number in range(count):
        message = grant_pb2.ListGrantsRequest(page_size=number + 1).SerializeToString()
        last = made[-1] if made else after
        made.append(following(last, Outgoing(at + number, "coordinator", LIST_GRANTS, message)))
    return made


def as_lines(records: list[EgressRecord]) -> list[bytes]:
    return [entry.line for entry in records]


@pytest.fixture
def archive(tmp_path):
    made = EgressArchive(tmp_path / "portal")
    yield made
    made.close()


def sorts(archive: EgressArchive) -> list[tuple[str, int]]:
    return [(alarm.sort, alarm.sequence) for alarm in alarms(archive)][::-1]


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(module) for module in (decoding, guard, record, rules)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 5


def test_a_ledger_is_kept_byte_for_byte_and_a_repeat_changes_nothing(archive):
    made = ledger(5)
    assert archive.take("agent/a", as_lines(made[:3]), 0.0).last_sequence == 3
    taken = archive.take("agent/a", as_lines(made), 0.0)
    assert (taken.last_sequence, taken.last_digest) == (5, made[-1].digest)
    assert b"".join(lines(archive, "agent/a")) == b"".join(line + b"\n" for line in as_lines(made))
    checked = check(archive, "agent/a")
    assert (checked.message_count, checked.faults, checked.head) == (5, (), made[-1].digest)
    assert sorts(archive) == []
    assert [total.message_count for total in totals(archive, Choice())] == [5]


def test_ledgers_of_devices_never_mix(archive):
    archive.take("agent/a", as_lines(ledger(2)), 0.0)
    archive.take("agent/b", as_lines(ledger(3)), 0.0)
    assert check(archive, "agent/a").message_count == 2
    assert [shown.source for shown in newest(archive, Choice(source="agent/b"))] == ["agent/b"] * 3
    assert sorts(archive) == []


def test_a_missing_record_is_a_gap(archive):
    made = ledger(6)
    archive.take("agent/a", as_lines(made[:2] + made[4:]), 7.0)
    assert sorts(archive) == [("GAP", 5)]
    assert check(archive, "agent/a").faults == ("GAP at 5",)
    archive.take("agent/a", as_lines(made[:2] + made[4:]), 8.0)
    assert sorts(archive) == [("GAP", 5)], "a repeat raises no second alarm"


def test_two_records_that_continue_the_same_one_are_a_fork_and_both_are_kept(archive):
    made = ledger(4)
    archive.take("agent/a", as_lines(made), 7.0)
    other = ledger(2, after=made[1], at=5 * DAY)
    taken = archive.take("agent/a", as_lines(other), 8.0)
    assert taken.last_digest == other[-1].digest, "the copy goes on from the branch that lives"
    assert sorts(archive) == [("FORK", 3)]
    assert check(archive, "agent/a").faults == ("FORK at 3",)
    assert check(archive, "agent/a").message_count == 6


def test_a_device_that_starts_anew_under_the_same_name_shows_as_a_fork(archive):
    archive.take("agent/a", as_lines(ledger(3)), 7.0)
    archive.take("agent/a", as_lines(ledger(2, at=9 * DAY)), 8.0)
    assert sorts(archive) == [("FORK", 1)]


@pytest.mark.parametrize(
    ("change", "sort"),
    [
        ({"at": 5}, "CHANGED"),
        ({"payload": "AAAA"}, "CHANGED"),
        ({"size_bytes": 1}, "CHANGED"),
    ],
)
def test_an_edited_record_is_kept_and_raises_an_alarm(archive, change, sort):
    made = ledger(3)
    edited = replace(made[1], **change)
    archive.take("agent/a", as_lines([made[0], edited, made[2]]), 7.0)
    assert sorts(archive)[0] == (sort, 2)
    assert (f"{sort} at 2") in check(archive, "agent/a").faults
    assert check(archive, "agent/a").message_count == 3


def test_a_record_whose_payload_is_not_what_its_digest_says_raises_an_alarm(archive):
    (first,) = ledger(1)
    values = asdict(first) | {"payload": "AAAA"}
    del values["digest"]
    archive.take("agent/a", [EgressRecord(**values, digest=record._digest(values)).line], 7.0)
    assert sorts(archive) == [("PAYLOAD", 1)]


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"not json", b"[" * 5000, ledger(1)[0].line + b" ", b"x" * (1 << 21)],
    ids=["empty", "object", "text", "deep", "space", "long"],
)
def test_a_line_that_is_no_record_is_not_kept_and_raises_an_alarm(archive, line):
    assert parse_line(line) is None
    assert archive.take("agent/a", [line], 7.0).malformed_count == 1
    assert sorts(archive) == [("MALFORMED", 0)]
    assert list(lines(archive, "agent/a")) == []


def test_a_record_with_another_field_is_no_record():
    values = asdict(ledger(1)[0]) | {"note": "PATIENT-JOE"}
    assert parse_line(json.dumps(values, sort_keys=True).encode()) is None


def test_an_edit_of_the_copy_shows_in_the_check(archive):
    archive.take("agent/a", as_lines(ledger(4)), 7.0)
    with archive._writing() as connection:
        connection.execute("DELETE FROM record WHERE sequence = 2")
    assert check(archive, "agent/a").faults == ("GAP at 3",)


def test_pages_follow_each_other_without_overlap_and_by_kind_and_day(archive):
    archive.take("agent/a", as_lines(ledger(130)), 7.0)
    first = newest(archive, Choice(day=1))
    second = newest(archive, Choice(day=1), before=first[-1].record_id)
    third = newest(archive, Choice(day=1), before=second[-1].record_id)
    numbers = [shown.record.sequence for shown in first + second + third]
    assert numbers == list(range(130, 0, -1))
    assert newest(archive, Choice(day=2)) == ()
    assert newest(archive, Choice(method="perimeter.v1.GrantService/RecordOutcomes")) == ()


def test_a_page_of_a_long_ledger_does_not_read_the_whole(archive):
    with archive._writing() as connection:
        for source in ("agent/a", "agent/b"):
            connection.executemany(
                "INSERT INTO record (source, sequence, day, method, size_bytes, previous, digest,"
                " line) VALUES (?, ?, 1, ?, 2, '', '', ?)",
                ((source, n, LIST_GRANTS, b"") for n in range(1, 2001)),
            )
    for choice in (
        Choice(),
        Choice(source="agent/a"),
        Choice(method=LIST_GRANTS),
        Choice(day=1),
        Choice(1, "agent/a", LIST_GRANTS),
    ):
        text, values = choice.where()
        with archive.reading() as connection:
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT line FROM record WHERE {text}"
                " AND record_id < ? ORDER BY record_id DESC LIMIT 50",
                (*values, 9),
            ).fetchall()
        assert "TEMP B-TREE" not in " ".join(row["detail"] for row in plan), choice


def test_nothing_is_sent_when_it_cannot_be_recorded(tmp_path):
    folder = tmp_path / "portal"
    folder.mkdir()
    (folder / "egress.db").write_bytes(b"this is no database, " * 100)
    archive = EgressArchive(folder)
    with pytest.raises(EgressUnwritable, match="nothing is sent"):
        archive.append("portal/main", Outgoing(1, "coordinator", LIST_GRANTS, b""))


def test_the_portal_sends_only_messages_and_fields_that_are_its_own():
    outcome = grant_pb2.Outcome(
        grant_id=bytes(16), state="OUTCOME_STATE_LABELED", class_index_plus_one=3, suggestion=1
    )
    request = grant_pb2.RecordOutcomesRequest(request_id=bytes(16), outcomes=[outcome])
    assert encode_checked(request) == request.SerializeToString(deterministic=True)
    smuggled = grant_pb2.Outcome.FromString(
        outcome.SerializeToString() + b"\xfa\x07\x0bPATIENT-JOE"
    )
    report = candidate_pb2.ReportSiteRequest(request_id=bytes(16), campaign_id=bytes(16), day=1)
    report.median_decision_seconds = 3601
    abstained = grant_pb2.Outcome(grant_id=bytes(16), state=3, class_index_plus_one=3)
    for refused in (
        candidate_pb2.CandidateBatch(request_id=bytes(16)),
        item_pb2.Item(content=b"text"),
        model_pb2.Campaign(name="x"),
        grant_pb2.RecordOutcomesRequest(request_id=b"PATIENT-JOE", outcomes=[outcome]),
        grant_pb2.RecordOutcomesRequest(request_id=bytes(16), outcomes=[smuggled]),
        grant_pb2.RecordOutcomesRequest(request_id=bytes(16), outcomes=[abstained]),
        report,
    ):
        with pytest.raises(EgressRefused) as refusal:
            encode_checked(refused)
        assert "JOE" not in str(refusal.value)


@pytest.fixture
def stub(bench, authority, archive, tmp_path):
    config = PortalConfig(folder=tmp_path / "portal", intake_host="127.0.0.1", intake_port=0)
    identity = authority.identity(tmp_path / "identity")
    server, port = start_intake(IntakeDesk(bench.store, config, identity, Clock(), archive))

    def connect(uri: str) -> item_pb2_grpc.IntakeServiceStub:
        key, certificate = authority.leaf(uri)
        credentials = grpc.ssl_channel_credentials(authority.pem, key, certificate)
        return item_pb2_grpc.IntakeServiceStub(
            grpc.secure_channel(f"127.0.0.1:{port}", credentials)
        )

    yield connect
    server.stop(None).wait()


def test_whose_ledger_it_is_the_certificate_says(stub, archive):
    request = item_pb2.RecordEgressRequest(lines=as_lines(ledger(2)))
    answer = stub("perimeter://test/site/alder/agent/cam-1").RecordEgress(request)
    assert answer.last_sequence == 2
    assert len(answer.last_digest) == 32
    for uri in (
        "perimeter://test/site/birch/agent/cam-1",
        "perimeter://test/site/alder/portal/main",
        "perimeter://other/site/alder/agent/cam-1",
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            stub(uri).RecordEgress(request)
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert {total.source for total in totals(archive, Choice())} == {"agent/cam-1"}


def test_a_line_that_is_no_record_is_refused_with_a_stable_reason(stub):
    request = item_pb2.RecordEgressRequest(lines=[os.urandom(40)])
    with pytest.raises(grpc.RpcError) as refusal:
        stub("perimeter://test/site/alder/agent/cam-1").RecordEgress(request)
    assert dict(refusal.value.trailing_metadata())["perimeter-reason"] == "EGRESS_MALFORMED"


def test_the_site_lead_reads_what_left_and_exports_it_byte_for_byte(server):
    archive = server.portal.egress
    made = ledger(120)
    archive.take("agent/cam-1", as_lines(made[:60] + made[61:]), 7.0)
    outcome = grant_pb2.Outcome(grant_id=b"g" * 16, state=2, class_index_plus_one=3)
    request = grant_pb2.RecordOutcomesRequest(request_id=b"r" * 16, outcomes=[outcome])
    method = "perimeter.v1.GrantService/RecordOutcomes"
    sent = Outgoing(3 * DAY, "coordinator", method, request.SerializeToString())
    archive.append("portal/main", sent)
    server.add("lead", Role.SITE_LEAD)
    client = server.login("lead")
    shown = client.get("/egress").text
    assert "1970-01-04" in shown
    assert "OUTCOME_STATE_LABELED" in shown
    assert (b"g" * 16).hex() in shown
    assert "Records before number 62 are missing." in shown
    older = re.search(r'href="(/egress\?[^"]*before=[0-9]+)"', shown)[1].replace("&amp;", "&")
    assert "page_size" in client.get(older).text
    filtered = client.get("/egress", params={"day": "1970-01-04"}).text
    assert "page_size" not in filtered
    assert "agent/cam-1 does not verify: GAP at 62" in client.get("/egress?verify=1").text
    exported = client.get("/egress/export", params={"device": "agent/cam-1"})
    assert exported.content == b"".join(lines(archive, "agent/cam-1"))
    assert client.get("/egress/export", params={"device": "agent/none"}).status_code == 404


@pytest.mark.parametrize("role", [Role.EXPERT, Role.ADJUDICATOR])
def test_what_left_is_for_the_site_lead_and_the_auditor(server, role):
    server.add("other", role)
    client = server.login("other")
    assert client.get("/egress").status_code == 403
    assert client.get("/egress/export", params={"device": "agent/a"}).status_code == 403
    assert server.client().get("/egress").status_code == 401


def test_the_command_shows_verifies_and_exports(archive, tmp_path, capsys):
    made = ledger(4)
    archive.take("agent/a", as_lines(made), 7.0)
    folder = ["--folder", str(tmp_path / "portal")]
    assert main(["egress", "show", "--last", "1", "--full", *folder]) == 0
    assert "page_size = 4" in capsys.readouterr().out
    assert main(["egress", "verify", *folder]) == 0
    assert f"whole, 4 messages, 8 bytes left, head {made[-1].digest}" in capsys.readouterr().out
    assert main(["egress", "export", str(tmp_path / "out"), *folder]) == 0
    exported = (tmp_path / "out" / "agent-a" / "000000000001.jsonl").read_bytes()
    assert exported == b"".join(line + b"\n" for line in as_lines(made))
    archive.take("agent/a", as_lines(ledger(1, at=9 * DAY)), 8.0)
    assert main(["egress", "verify", *folder]) == 1
    assert "FORK at 1" in capsys.readouterr().out
    assert main(["egress", "show", "--device", "agent/b", *folder]) == 1
    assert "known: agent/a" in capsys.readouterr().err


def histogram(release: int, campaign_id: bytes) -> bytes:
    return candidate_pb2.ReportHistogramRequest(
        request_id=bytes([release]) * 16, campaign_id=campaign_id, model_version=release,
        cell_count=1, epsilon_milli=500, noised_counts=bytes([release]) * 64,
    ).SerializeToString()  # fmt: skip


def test_the_site_lead_sees_what_histograms_have_cost_and_a_repeat_costs_nothing(server):
    method = "perimeter.v1.CandidateService/ReportHistogram"
    made: list[EgressRecord] = []
    for release in (1, 1, 2):
        sent = Outgoing(DAY, "coordinator", method, histogram(release, CAMPAIGN_ID))
        made.append(following(made[-1] if made else None, sent))
    other = Outgoing(DAY, "coordinator", method, histogram(3, b"o" * 16))
    made.append(following(made[-1], other))
    server.portal.egress.take("agent/cam-1", as_lines(made), 7.0)
    (spent,) = spent_epsilon(server.portal.egress, CAMPAIGN_ID)
    assert (spent.source, spent.release_count, spent.epsilon) == ("agent/cam-1", 2, 1.0)
    server.add("lead", Role.SITE_LEAD)
    page = server.login("lead").get("/site").text
    assert "agent/cam-1 sent noised counts 2 times: epsilon 1 spent." in page
