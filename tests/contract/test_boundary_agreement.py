"""The device's guard and the coordinator's door judge the same bytes by the same rules."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perimeter.v1 import candidate_pb2, grant_pb2, model_pb2

from coordinator import wire
from coordinator.errors import WireInvalid
from edge_agent.egress import encode_checked
from edge_agent.errors import EgressRefused
from review_portal.egress import rules as portal_rules

ids = st.binary(min_size=16, max_size=16)
WIDTHS = {
    "candidate_ids": 16, "margins": 1, "top_probabilities": 1, "entropies": 1,
    "divergence_risk": 1, "predicted_classes": 2, "runner_up_classes": 2,
    "prototype_classes": 2, "cell_ids": 2, "density_cost": 1,
}  # fmt: skip


@st.composite
def batches(draw):
    rows = draw(st.integers(1, 20))
    batch = candidate_pb2.CandidateBatch(
        request_id=draw(ids), campaign_id=draw(ids), sequence=draw(st.integers(1, 2**40)),
        model_version=draw(st.integers(1, 2**20)),
        label_schema_digest=draw(st.binary(min_size=32, max_size=32)),
        day=draw(st.integers(1, 40_000)), row_count=rows,
        replaces_older_versions=draw(st.booleans()),
    )  # fmt: skip
    for name, width in WIDTHS.items():
        level = 63 if name in ("margins", "top_probabilities", "entropies") else 127
        if name == "candidate_ids":
            column = b"".join(row.to_bytes(16, "big") for row in range(rows))
        else:
            # Classes and cells lie below 4096: the upper byte is small.
            high = 15 if width == 2 else level
            column = bytes(
                draw(st.integers(0, level if place % width == 0 else high))
                for place in range(rows * width)
            )
        setattr(batch, name, column)
    return batch


@st.composite
def pools(draw):
    counts = draw(st.lists(st.integers(0, 2**32 - 1), max_size=50))
    return candidate_pb2.ReportPoolRequest(
        request_id=draw(ids), campaign_id=draw(ids), model_version=draw(st.integers(1, 2**20)),
        day=draw(st.integers(1, 40_000)), complete=draw(st.booleans()),
        class_counts=b"".join(count.to_bytes(4, "little") for count in counts),
        top_probability_sum=draw(st.integers(0, 2**50)),
        top_probability_square_sum=draw(st.integers(0, 2**50)),
    )  # fmt: skip


@st.composite
def outcomes(draw):
    states = draw(st.lists(st.integers(1, 6), min_size=1, max_size=20))
    return grant_pb2.RecordOutcomesRequest(
        request_id=draw(ids),
        outcomes=[grant_pb2.Outcome(grant_id=draw(ids), state=state) for state in states],
    )


CASES = [
    (batches, wire.parse_batch),
    (pools, wire.parse_pool_report),
    (outcomes, wire.parse_outcomes),
]


@pytest.mark.parametrize(("messages", "parse"), CASES)
def test_what_the_device_admits_the_coordinator_accepts(messages, parse):
    @settings(max_examples=60, deadline=None)
    @given(messages())
    def agree(message):
        parse(type(message).FromString(encode_checked(message)))

    agree()


@st.composite
def portal_outcomes(draw):
    made = []
    for state in draw(st.lists(st.integers(1, 6), min_size=1, max_size=20)):
        outcome = grant_pb2.Outcome(
            grant_id=draw(ids), state=state, decision_seconds=draw(st.integers(0, 3600)),
            suggestion=draw(st.integers(0, 2)),
        )  # fmt: skip
        if state == grant_pb2.OUTCOME_STATE_LABELED:
            outcome.class_index_plus_one = draw(st.integers(0, 4096))
        made.append(outcome)
    return grant_pb2.RecordOutcomesRequest(request_id=draw(ids), outcomes=made)


@st.composite
def site_reports(draw):
    counts = draw(st.lists(st.integers(0, 2**32 - 1), max_size=50))
    return candidate_pb2.ReportSiteRequest(
        request_id=draw(ids), campaign_id=draw(ids), day=draw(st.integers(1, 40_000)),
        label_counts=b"".join(count.to_bytes(4, "little") for count in counts),
        label_count=draw(st.integers(0, 2**32 - 1)),
        expert_capacity_count=draw(st.integers(0, 2**32 - 1)),
        median_decision_seconds=draw(st.integers(0, 3600)),
        temperature_milli=draw(st.integers(0, 2**32 - 1)),
        calibration_error_milli=draw(st.integers(0, 1000)),
    )  # fmt: skip


PORTAL_CASES = [(portal_outcomes, wire.parse_outcomes), (site_reports, wire.parse_site_report)]


@pytest.mark.parametrize(("messages", "parse"), PORTAL_CASES)
def test_what_the_portal_admits_the_coordinator_accepts(messages, parse):
    @settings(max_examples=60, deadline=None)
    @given(messages())
    def agree(message):
        parse(type(message).FromString(portal_rules.encode_checked(message)))

    agree()


def unknown_field(number: int, payload: bytes) -> bytes:
    key, length = number << 3 | 2, len(payload)
    assert length < 128
    return bytes([key & 0x7F | 0x80, key >> 7, length]) + payload


@pytest.mark.parametrize(("messages", "parse"), CASES)
def test_a_field_that_nobody_defined_is_refused_on_both_sides(messages, parse):
    @settings(max_examples=40, deadline=None)
    @given(messages(), st.integers(100, 900), st.binary(min_size=1, max_size=100))
    def refused(message, number, payload):
        raw = message.SerializeToString() + unknown_field(number, payload)
        smuggled = type(message).FromString(raw)
        assert payload in smuggled.SerializeToString(), "protobuf keeps what it does not know"
        with pytest.raises(EgressRefused):
            encode_checked(smuggled)
        with pytest.raises(WireInvalid):
            parse(smuggled)

    refused()


def test_a_field_that_nobody_defined_is_refused_inside_a_nested_message_too():
    request = grant_pb2.RecordOutcomesRequest(request_id=os.urandom(16))
    request.outcomes.append(
        grant_pb2.Outcome.FromString(
            grant_pb2.Outcome(grant_id=bytes(16), state=2).SerializeToString()
            + unknown_field(127, b"PATIENT-JOE")
        )
    )
    with pytest.raises(EgressRefused) as refusal:
        encode_checked(request)
    assert "PATIENT" not in str(refusal.value)
    with pytest.raises(WireInvalid) as refusal:
        wire.parse_outcomes(request)
    assert "PATIENT" not in str(refusal.value)


@pytest.mark.parametrize(("messages", "parse"), CASES)
def test_ids_and_columns_of_any_other_length_are_refused_on_both_sides(messages, parse):
    @settings(max_examples=60, deadline=None)
    @given(messages(), st.data())
    def refused(message, data):
        lengths = [f.name for f, v in message.ListFields() if isinstance(v, bytes) and len(v)]
        name = data.draw(st.sampled_from(lengths))
        secret = b"PATIENT-JOE"
        setattr(
            message, name, getattr(message, name) + secret[: data.draw(st.sampled_from((1, 3, 11)))]
        )
        with pytest.raises(EgressRefused) as refusal:
            encode_checked(message)
        assert "JOE" not in str(refusal.value)
        with pytest.raises(WireInvalid):
            parse(message)

    refused()


@pytest.mark.parametrize(
    "message",
    [
        grant_pb2.Grant(grant_id=bytes(16)),
        model_pb2.Campaign(name="demo"),
        model_pb2.ListCampaignsResponse(),
        candidate_pb2.ReportSiteRequest(request_id=bytes(16)),
        grant_pb2.Outcome(grant_id=bytes(16), state=2, class_index_plus_one=3),
        grant_pb2.Outcome(grant_id=bytes(16), state=2, decision_seconds=9),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_a_device_sends_no_message_or_field_that_is_not_its_own_to_send(message):
    with pytest.raises(EgressRefused):
        encode_checked(message)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_parsed_as_a_valid_message_or_refused_cleanly(raw):
    from google.protobuf.message import DecodeError

    for kind, parse in (
        (candidate_pb2.CandidateBatch, wire.parse_batch),
        (candidate_pb2.ReportPoolRequest, wire.parse_pool_report),
        (grant_pb2.RecordOutcomesRequest, wire.parse_outcomes),
        (candidate_pb2.ReportSiteRequest, wire.parse_site_report),
    ):
        try:
            message = kind.FromString(raw)
        except DecodeError:
            continue
        try:
            parse(message)
        except WireInvalid:
            continue
