"""Intake over real gRPC with mutual TLS: who may deliver what."""

from __future__ import annotations

import grpc
import pytest
from perimeter.v1 import grant_pb2, item_pb2, item_pb2_grpc
from portal_bench import CAMPAIGN_ID, delivery, new_item, npy, png
from test_label_store import decide, lease

from review_portal.config import PortalConfig
from review_portal.core.model import Kind, Refusal
from review_portal.egress.archive import EgressArchive
from review_portal.enrollment import write_pair
from review_portal.intake import IntakeDesk, start_intake
from review_portal.wire import check_content, read_probabilities, read_series

AGENT = "perimeter://test/site/alder/agent/cam-1"


@pytest.fixture
def intake(bench, authority, tmp_path):
    config = PortalConfig(folder=tmp_path / "portal", intake_host="127.0.0.1", intake_port=0)
    identity = authority.identity(tmp_path / "identity")
    archive = EgressArchive(config.folder)
    desk = IntakeDesk(bench.store, config, identity, bench.clock, archive)
    server, port = start_intake(desk)
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def stub_for(authority, address: str, uri: str = AGENT, *, days: float = 1):
    key, certificate = authority.leaf(uri, days=days)
    credentials = grpc.ssl_channel_credentials(authority.pem, key, certificate)
    channel = grpc.secure_channel(address, credentials)
    return item_pb2_grpc.IntakeServiceStub(channel)


def reason_of(call) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return dict(caught.value.trailing_metadata() or ()).get("perimeter-reason", "")


def test_an_item_under_a_grant_is_taken_once(bench, authority, intake) -> None:
    stub = stub_for(authority, intake)
    request = delivery(authority.grant(1))
    assert stub.DeliverItem(request).duplicate is False
    assert stub.DeliverItem(delivery(authority.grant(1))).duplicate is True
    assert (
        bench.store.database.read(
            lambda c: c.exec_driver_sql("SELECT count(*) FROM item").scalar_one()
        )
        == 1
    )


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("perimeter://test/site/birch/agent/cam-1", "SITE_FOREIGN"),
        ("perimeter://test/site/alder/portal/main", "IDENTITY"),
        ("perimeter://test/site/alder/node/main", "IDENTITY"),
        ("perimeter://other/site/alder/agent/cam-1", "IDENTITY"),
        ("https://elsewhere.example/", "IDENTITY"),
    ],
)
def test_only_agents_of_this_site_deliver(authority, intake, uri: str, reason: str) -> None:
    stub = stub_for(authority, intake, uri)
    assert reason_of(lambda: stub.DeliverItem(delivery(authority.grant(1)))) == reason


def test_a_caller_without_certificate_or_with_a_foreign_one_is_cut_off(authority, intake) -> None:
    bare = grpc.secure_channel(intake, grpc.ssl_channel_credentials(authority.pem))
    stubs = [item_pb2_grpc.IntakeServiceStub(bare), stub_for(authority, intake, days=-0.001)]
    stubs.append(stub_for(type(authority)(), intake))
    for stub in stubs:
        with pytest.raises(grpc.RpcError):
            stub.DeliverItem(delivery(authority.grant(1)), timeout=5)


def test_a_grant_that_was_changed_or_forged_releases_nothing(bench, authority, intake) -> None:
    stub = stub_for(authority, intake)
    changed = authority.grant(1)
    changed.candidate_id = bytes(16)
    forged = type(authority)().grant(1)
    late = authority.grant(1, expire_seconds=1_000)
    reasons = [
        reason_of(lambda g=g: stub.DeliverItem(delivery(g))) for g in (changed, forged, late)
    ]
    assert reasons == ["GRANT_SIGNATURE", "GRANT_SIGNATURE", "GRANT_EXPIRED"]
    assert (
        bench.store.database.read(
            lambda c: c.exec_driver_sql("SELECT count(*) FROM item").scalar_one()
        )
        == 0
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy_version": "older"}, "MASK_POLICY"),
        ({"policy_version": ""}, "MASK_POLICY"),
        ({"verified": False}, "MASK_UNVERIFIED"),
        ({"level": "none"}, "MASK_LEVEL"),
        ({"level": "whatever"}, "MASK_LEVEL"),
        ({"detector_digest": b""}, "MASK_REPORT"),
    ],
)
def test_nothing_is_shown_without_a_good_mask_report(authority, intake, changes, reason) -> None:
    fields = {
        "policy_version": "perimeter-masking-1", "detector_digest": bytes(32),
        "level": "strict", "verified": True, **changes,
    }  # fmt: skip
    request = delivery(authority.grant(1), mask_report=item_pb2.MaskReport(**fields))
    stub = stub_for(authority, intake)
    assert reason_of(lambda: stub.DeliverItem(request)) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"content": b""}, "CONTENT_EMPTY"),
        ({"content": b"\xff\xfe broken"}, "CONTENT_MALFORMED"),
        ({"content": b"x" * ((8 << 20) + 1)}, "CONTENT_TOO_LARGE"),
        ({"kind": item_pb2.SAMPLE_KIND_IMAGE}, "MASK_LEVEL"),
        ({"probabilities": b"1234"}, "PROBABILITIES"),
    ],
)
def test_content_that_cannot_be_shown_is_refused(authority, intake, changes, reason) -> None:
    if changes.get("kind"):
        reason = "KIND"
    stub = stub_for(authority, intake)
    request = delivery(authority.grant(1), **changes)
    assert reason_of(lambda: stub.DeliverItem(request)) == reason


def test_an_item_of_an_unknown_campaign_may_come_again(authority, intake) -> None:
    stub = stub_for(authority, intake)
    with pytest.raises(grpc.RpcError) as caught:
        stub.DeliverItem(delivery(authority.grant(1, campaign_id=bytes(16))))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_renewed_certificate_is_used_without_a_restart(authority, intake, tmp_path) -> None:
    stub = stub_for(authority, intake)
    stub.DeliverItem(delivery(authority.grant(1)))
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    key_pem, certificate = authority.leaf("perimeter://test/site/alder/portal/main")
    key = serialization.load_pem_private_key(key_pem, None)
    der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    write_pair(tmp_path / "identity", key, der)
    again = stub_for(authority, intake)
    assert again.DeliverItem(delivery(authority.grant(2))).duplicate is False


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.IMAGE, png()[:40]),
        (Kind.IMAGE, b"GIF89a"),
        (Kind.SERIES, npy()[:-4]),
        (Kind.SERIES, b"\x93NUMPY"),
        (Kind.SERIES, npy().replace(b"<f4", b"<f8")),
        (Kind.RECORD, b"[1, 2]"),
        (Kind.RECORD, b'{"a": [1]}'),
        (Kind.RECORD, b"{}"),
        (Kind.TEXT, b"a\0b"),
    ],
)
def test_malformed_content_is_named(kind: Kind, content: bytes) -> None:
    refused = check_content(kind, content, bytes_max=1 << 20)
    assert isinstance(refused, Refusal)
    assert refused.reason == "CONTENT_MALFORMED"


def test_good_content_passes() -> None:
    assert check_content(Kind.IMAGE, png(), bytes_max=1 << 20) is None
    assert check_content(Kind.SERIES, npy(), bytes_max=1 << 20) is None
    assert read_series(npy(2, 2)) == ((0.0, 1.0), (2.0, 3.0))
    assert isinstance(read_probabilities(b"\0" * 12, 3), Refusal)


def test_every_grant_reason_of_the_wire_is_known() -> None:
    from review_portal.wire import REASONS

    assert set(REASONS) == {n for n in grant_pb2.GrantReason.values() if n}
    assert len(CAMPAIGN_ID) == 16


def test_items_are_labeled_without_an_expert_only_once_labels_of_the_site_support_it(
    bench, authority, intake, clock
) -> None:
    bench.set(auto_threshold=0.6, auto_accuracy=0.8, auto_audit_ratio=0.0)
    stub = stub_for(authority, intake)

    def origins() -> list[str]:
        return [e.origin for e in bench.store.examples(CAMPAIGN_ID)]

    stub.DeliverItem(delivery(authority.grant(1)), timeout=5)
    assert origins() == []
    made = bench.fill(41)
    leased = lease(bench, 1, 50)
    for entry in made[:40]:
        decide(bench, 1, entry.item_id, 0)
    assert len(leased) == 42
    clock.now += 61
    stub.DeliverItem(delivery(authority.grant(2)), timeout=5)
    assert sorted(origins()) == ["auto", *["expert"] * 40]
    # Suggestions that are wrong too often support nothing, whatever the site lead wishes.
    for number in range(100, 130):
        bench.receive(new_item(number))
    for entry in lease(bench, 2, 50)[:29]:
        decide(bench, 2, entry.item_id, 1)
    clock.now += 61
    stub.DeliverItem(delivery(authority.grant(3)), timeout=5)
    assert origins().count("auto") == 1
