"""Raw words go to the site's own portal alone, when two settings and a second person allow it."""

from __future__ import annotations

import doctest
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perimeter.v1 import item_pb2

from edge_agent import audit, unmasking
from edge_agent.__main__ import main
from edge_agent.audit import AuditLog, records, verify
from edge_agent.errors import StorageError
from edge_agent.masking.findings import Finding
from edge_agent.masking.placeholders import replace
from edge_agent.queue import samples
from edge_agent.queue.samples import View
from edge_agent.unmasking import hidden_words

LETTER = "the pump is loud, mail ann.fisher@example.org or bob@example.org, please"
SHOWN = item_pb2.UNMASKING_ANSWER_SHOWN


def test_the_examples_in_the_docstrings_hold():
    for module in (unmasking, samples):
        assert doctest.testmod(module).failed == 0


def view_of(raw: str, found: list[Finding]) -> View:
    masked, spans = replace(raw, found)
    report = item_pb2.MaskReport(
        spans=[item_pb2.MaskedSpan(start=span.start, end=span.end) for span in spans]
    )
    places = tuple((span.raw_start, span.raw_end) for span in spans)
    return View(masked.encode(), report.SerializeToString(), 1, places)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(min_size=1, max_size=9)), max_size=6))
def test_every_placeholder_names_exactly_what_it_hid(pieces):
    raw, found = "", []
    for kept, hidden in pieces:
        found.append(Finding(len(raw + kept), len(raw + kept + hidden), "SITE_TERM", 1.0))
        raw += kept + hidden
    view = View.unpack(view_of(raw, found).pack())
    masked, spans = replace(raw, found)
    for span in spans:
        words = hidden_words(view, raw, masked[span.start : span.end])
        assert raw[span.raw_start : span.raw_end] in words


def test_a_view_from_before_places_were_kept_still_opens_and_tells_nothing():
    old = View(b"Hi <PERSON_1>!", item_pb2.MaskReport(
        spans=[item_pb2.MaskedSpan(start=3, end=13)]).SerializeToString(), 2)  # fmt: skip
    assert View.unpack(old.pack()) == old
    assert hidden_words(old, "Hi Ann!", "<PERSON_1>") == ()


@pytest.fixture
def released(device, coordinator, portal):
    """A device that released its one letter, and the grant."""
    campaign = coordinator.add_campaign(view="masked")
    coordinator.publish(campaign, 1)
    device.values["timing"]["unmask_poll_seconds"] = 0.0
    device.values["unmask"] = "approved"
    device.enroll().put(LETTER)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    (candidate,) = coordinator.rows(campaign)
    grant = coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: portal.items)
    return daemon, grant


def ask(portal, grant, placeholder: str = "<EMAIL_ADDRESS_1>") -> None:
    portal.unmaskings.append(
        item_pb2.Unmasking(
            unmasking_id=uuid.uuid4().bytes, grant_id=grant.grant_id, placeholder=placeholder
        )
    )


def test_an_approved_question_gets_the_words_once_and_stands_in_the_audit_log(
    released, device, portal, coordinator
):
    daemon, grant = released
    ask(portal, grant)
    device.until(daemon, lambda: portal.answers)
    daemon.tick(device.now)
    (answer,) = portal.answers
    assert (answer.answer, list(answer.words)) == (SHOWN, ["ann.fisher@example.org"])
    (record,) = records(device.config.state_folder)
    assert record.digest == answer.device_record.hex()
    assert record.detail == {"grant": grant.grant_id.hex(), "answer": "shown", "word_count": 1}
    assert verify(device.config.state_folder) == (1, "")
    # Of the words there is nothing in the log, and nothing on the way out of the site.
    assert "fisher" not in (device.config.state_folder / audit.FILE_NAME).read_text()
    assert b"fisher" not in b"".join([*coordinator.received, *portal.egress_lines])


def test_a_device_refuses_unless_its_own_settings_allow_it(released, device, portal):
    daemon, grant = released
    daemon.close()
    device.daemons.clear()
    device.values.pop("unmask")
    ask(portal, grant)
    device.until(device.daemon(), lambda: portal.answers)
    assert portal.answers[0].answer == item_pb2.UNMASKING_ANSWER_REFUSED
    assert not portal.answers[0].words


def test_a_device_says_that_the_raw_text_is_gone(released, device, portal):
    daemon, grant = released
    daemon._parts.stores.database.write("DELETE FROM sample")
    ask(portal, grant)
    device.until(daemon, lambda: portal.answers)
    assert portal.answers[0].answer == item_pb2.UNMASKING_ANSWER_GONE


@pytest.mark.parametrize("placeholder", ["<EMAIL_ADDRESS_9>", "<REPORTED_1>", "the pump", ""])
def test_nothing_but_a_placeholder_of_this_item_is_answered(released, device, portal, placeholder):
    daemon, grant = released
    ask(portal, grant, placeholder)
    device.until(daemon, lambda: portal.answers)
    assert portal.answers[0].answer == item_pb2.UNMASKING_ANSWER_UNKNOWN
    assert not portal.answers[0].words


def test_an_item_that_this_device_never_released_is_unknown(released, device, portal, coordinator):
    daemon, grant = released
    grant.grant_id = bytes(16)
    ask(portal, grant)
    device.until(daemon, lambda: portal.answers)
    assert portal.answers[0].answer == item_pb2.UNMASKING_ANSWER_UNKNOWN


def test_a_portal_from_before_is_asked_once_an_hour_and_troubles_nobody(released, device, portal):
    daemon, _ = released
    portal.knows_unmasking = False
    daemon.tick(device.now)
    asked = portal.asked_count
    for _ in range(5):
        daemon.tick(device.now)
    assert portal.asked_count == asked
    assert "unmasking" not in daemon._parts.stores.conditions.all()
    daemon._parts.unmasker.turn(device.now + 3601)
    assert portal.asked_count == asked + 1


def test_the_audit_log_is_read_and_checked_by_command(tmp_path, capsys):
    AuditLog(tmp_path / "state").append("unmasking.answered", "id", {"answer": "gone"}, at=0.0)
    config = tmp_path / "agent.toml"
    config.write_text('state = "state"\n')
    assert main(["audit", "show", "--config", str(config)]) == 0
    line = "     1  1970-01-01 00:00:00  unmasking.answered  id  answer gone\n"
    assert capsys.readouterr().out == line
    assert main(["audit", "show", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "unmasking.answered"
    assert main(["audit", "verify", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "whole: 1 records\n"
    path = tmp_path / "state" / audit.FILE_NAME
    path.write_text(path.read_text().replace("gone", "shown"))
    assert main(["audit", "verify", "--config", str(config)]) == 1


def test_the_audit_log_shows_edits_and_goes_on_after_a_crash_in_the_middle_of_a_line(tmp_path):
    log = AuditLog(tmp_path)
    for number in range(3):
        log.append("retention.removed", "tickets", {"samples": number}, at=5.0)
    path = tmp_path / audit.FILE_NAME
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"sequence": 4, "at"')
    AuditLog(tmp_path).append("campaign.shredded", "tickets", {}, at=6.0)
    assert verify(tmp_path) == (4, "")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert verify(tmp_path) == (1, "a record before number 3 was removed or inserted")
    changed = json.loads(lines[1]) | {"subject": "other"}
    path.write_bytes(lines[0] + json.dumps(changed).encode() + b"\n" + lines[2])
    assert verify(tmp_path) == (1, "record 2 was changed")
    path.write_bytes(b"no record\n")
    with pytest.raises(StorageError, match="line 1"):
        AuditLog(tmp_path)
