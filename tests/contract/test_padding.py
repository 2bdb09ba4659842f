"""Messages leave at one of a few sizes, and padding can carry nothing."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perimeter.v1 import candidate_pb2, grant_pb2

from coordinator import padding as centre
from coordinator import wire
from coordinator.errors import WireInvalid
from edge_agent import padding as device
from edge_agent.egress import EgressGuard, encode_checked
from edge_agent.egress_ledger import EgressLedger, records
from edge_agent.errors import EgressRefused
from review_portal.egress import padding as portal
from review_portal.egress import rules as portal_rules
from review_portal.errors import EgressRefused as PortalRefused

sys.path.insert(0, str(Path(__file__).parent))

from test_boundary_agreement import (
    batches,
    outcomes,
    pools,
    portal_outcomes,
    site_reports,
)

SIDES = (centre, device, portal)
FROM_DEVICE = [
    (batches, wire.parse_batch),
    (pools, wire.parse_pool_report),
    (outcomes, wire.parse_outcomes),
]
FROM_PORTAL = [(portal_outcomes, wire.parse_outcomes), (site_reports, wire.parse_site_report)]


def outcomes_of(count: int) -> grant_pb2.RecordOutcomesRequest:
    request = grant_pb2.RecordOutcomesRequest(request_id=bytes(range(16)))
    for number in range(count):
        request.outcomes.add(grant_id=number.to_bytes(16, "big"), state=2)
    return request


def test_the_examples_in_the_docstrings_hold():
    for side in SIDES:
        assert doctest.testmod(side).failed == 0


@given(st.integers(0, 400_000), st.sampled_from((1, 2)))
def test_all_sides_of_the_wire_have_one_rule(size, tag_bytes):
    lengths = {side.padding_length(size, tag_bytes) for side in SIDES}
    (length,) = lengths
    total = size + (tag_bytes + centre._width(length) + length if length else 0)
    assert total == centre.size_class(total)
    assert len({side.size_class(size) for side in SIDES}) == 1


@pytest.mark.parametrize(("messages", "parse"), FROM_DEVICE)
def test_what_a_device_sends_has_a_class_and_is_taken(messages, parse):
    @settings(max_examples=20, deadline=None)
    @given(messages())
    def agree(message):
        sent = encode_checked(device.padded(message))
        assert len(sent) == centre.size_class(len(sent))
        parse(type(message).FromString(sent))

    agree()


@pytest.mark.parametrize(("messages", "parse"), FROM_PORTAL)
def test_what_a_portal_sends_has_a_class_and_is_taken(messages, parse):
    @settings(max_examples=20, deadline=None)
    @given(messages())
    def agree(message):
        sent = portal_rules.encode_checked(portal.padded(message))
        assert len(sent) == centre.size_class(len(sent))
        parse(type(message).FromString(sent))

    agree()


def test_the_size_of_a_message_tells_little_of_how_many_outcomes_it_holds():
    sizes = {device.padded(outcomes_of(n)).ByteSize() for n in (1, 9, 12, 35, *range(50, 1001, 50))}
    assert sizes == {256, 512, 1024, 2048, 4096, 8192, 16384, 32768}
    assert len(encode_checked(device.padded(outcomes_of(9)))) == 256


def test_the_ledger_holds_the_padded_message_byte_for_byte(tmp_path):
    guard = EgressGuard(EgressLedger(tmp_path), lambda: 5.0)
    method = "perimeter.v1.GrantService/RecordOutcomes"
    sent = guard.admit("coordinator", method, outcomes_of(3))
    (record,) = records(tmp_path)
    assert record.raw_payload() == sent
    assert record.size_bytes == len(sent) == 256


SMUGGLED = {
    "words in it": lambda good: b"PATIENT-JOE" + good[11:],
    "one bit in it": lambda good: good[:-1] + b"\1",
    "one byte less": lambda good: good[:-1],
    "one byte more": lambda good: good + b"\0",
    "a class more": lambda good: good + bytes(256),
}


@pytest.mark.parametrize("change", SMUGGLED.values(), ids=SMUGGLED)
def test_padding_that_could_carry_anything_is_refused_on_every_side(change):
    request = device.padded(outcomes_of(3))
    request.padding = change(request.padding)
    with pytest.raises(EgressRefused) as refusal:
        encode_checked(request)
    assert "JOE" not in str(refusal.value)
    with pytest.raises(PortalRefused):
        portal_rules.encode_checked(request)
    with pytest.raises(WireInvalid) as refusal:
        wire.parse_outcomes(request)
    assert "JOE" not in str(refusal.value)


def test_the_guard_replaces_what_stood_in_the_padding_before(tmp_path):
    guard = EgressGuard(EgressLedger(tmp_path), lambda: 5.0)
    request = outcomes_of(3)
    request.padding = b"PATIENT-JOE"
    sent = guard.admit("coordinator", "perimeter.v1.GrantService/RecordOutcomes", request)
    assert b"JOE" not in sent
    assert len(sent) == 256


@settings(max_examples=20, deadline=None)
@given(batches())
def test_a_repeat_after_an_update_is_the_same_batch_with_and_without_padding(message):
    padded = device.padded(message)
    assert wire.parse_batch(padded).digest == wire.parse_batch(message).digest
    assert wire.request_digest(padded) == wire.request_digest(message)


def test_every_message_whose_length_tells_how_much_there_is_has_padding():
    for message in (
        candidate_pb2.CandidateBatch(),
        candidate_pb2.ReportPoolRequest(),
        candidate_pb2.ReportSiteRequest(),
        grant_pb2.RecordOutcomesRequest(),
    ):
        assert centre.expected_padding(message) is not None
    assert centre.expected_padding(grant_pb2.ListGrantsRequest()) is None
