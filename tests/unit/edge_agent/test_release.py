"""A sample reaches the portal only under a sound grant, masked, and once."""

from __future__ import annotations

import doctest
import json

import grpc
import numpy as np
import pytest
from agent_models import IMAGE, SERIES
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from perimeter.v1 import candidate_pb2, grant_pb2, item_pb2
from PIL import Image

from edge_agent import release
from edge_agent.masking.seam import HeldReason
from edge_agent.sources.decoding import decode

RELEASED = grant_pb2.OUTCOME_STATE_RELEASED
REFUSED = grant_pb2.OUTCOME_STATE_REFUSED
LETTER = (
    "Dear Ann Fisher, call me at +44 20 7946 0958 or mail bob.miller@example.org about a refund."
)


@pytest.fixture
def scored(device, coordinator):
    """A device whose pool is with the coordinator, and the campaign."""
    campaign = coordinator.add_campaign(view="masked")
    coordinator.publish(campaign, 1)
    device.enroll().put(LETTER, "the pump is loud, please refund")
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    return daemon, campaign


def reasons(daemon) -> dict[str, int]:
    return daemon._parts.stores.grants.reasons()


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(release).failed == 0


@pytest.mark.presidio
def test_a_masked_campaign_scores_and_shows_the_masked_text(device, coordinator, portal):
    campaign = coordinator.add_campaign(view="masked")
    coordinator.publish(campaign, 1)
    device.enroll().put(LETTER, "the pump is loud, please refund")
    daemon = device.daemon(real_masker=True)
    device.until(daemon, lambda: coordinator.reports)
    assert len(coordinator.rows(campaign)) == 2
    for candidate in coordinator.rows(campaign):
        coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: len(coordinator.outcomes) == 2)
    shown = " ".join(item.content.decode() for item in portal.items.values())
    for secret in ("Fisher", "7946", "bob.miller"):
        assert secret not in shown
    item = next(i for i in portal.items.values() if b"<" in i.content)
    assert item.mask_report.verified
    assert {span.entity_type for span in item.mask_report.spans} >= {"EMAIL_ADDRESS"}
    span = item.mask_report.spans[0]
    text = item.content.decode()
    assert text[span.start : span.end].startswith("<")
    probabilities = np.frombuffer(item.probabilities, "<f4")
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert item.language == "en"


def test_nothing_of_the_text_reaches_the_coordinator(scored, device, coordinator):
    daemon, campaign = scored
    coordinator.grant(campaign, bytes(16), expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes)
    everything = b"".join(coordinator.received)
    for secret in (b"Fisher", b"pump", b"00000.txt", b"inbox"):
        assert secret not in everything


def test_the_risk_band_of_the_raw_text_is_sent(scored, coordinator):
    assert scored
    (batch,) = [b for b in coordinator.batches if isinstance(b, candidate_pb2.CandidateBatch)]
    risks = [value >> 6 for value in batch.divergence_risk]
    assert sorted(risks) == [0, 3]


def test_a_sample_is_masked_once_for_scoring_and_showing(scored, device, coordinator):
    daemon, campaign = scored
    assert device.masker.masked_count == 2
    candidate = next(iter(coordinator.rows(campaign)))
    coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes)
    coordinator.publish(campaign, 2)
    device.until(daemon, lambda: coordinator.reports[-1].model_version == 2)
    assert device.masker.masked_count == 2


def test_a_grant_that_the_coordinator_did_not_sign_is_refused(scored, device, coordinator, portal):
    daemon, campaign = scored
    candidate = next(iter(coordinator.rows(campaign)))
    forged = coordinator.grant(
        campaign, candidate, expires_at=int(device.now) + 600, key=Ed25519PrivateKey.generate()
    )
    device.until(daemon, lambda: coordinator.outcomes[forged.grant_id])
    assert coordinator.outcomes[forged.grant_id] == [REFUSED]
    assert reasons(daemon) == {"grant-signature": 1}
    assert not portal.items


def test_an_expired_grant_releases_nothing_and_is_left_to_the_coordinators_clock(
    scored, device, coordinator, portal
):
    daemon, campaign = scored
    candidate = next(iter(coordinator.rows(campaign)))
    coordinator.grant(campaign, candidate, expires_at=int(device.now) - 1)
    device.until(daemon, lambda: reasons(daemon) == {"expired": 1})
    for _ in range(5):
        daemon.tick(device.now)
    assert not portal.items
    assert not coordinator.outcomes


def test_a_grant_for_a_sample_that_is_not_here_is_refused(scored, device, coordinator, portal):
    daemon, campaign = scored
    grant = coordinator.grant(campaign, b"?" * 16, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes)
    assert coordinator.outcomes[grant.grant_id] == [REFUSED]
    assert reasons(daemon) == {"candidate-unknown": 1}


def test_a_text_that_masking_holds_is_refused_and_never_delivered(device, coordinator, portal):
    """In a raw campaign the sample is scored unmasked, and masked when it is asked for."""
    campaign = coordinator.add_campaign(view="raw")
    coordinator.publish(campaign, 1)
    device.enroll().put(LETTER)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    device.masker.hold_all = HeldReason.VERIFY_FAILED
    candidate = next(iter(coordinator.rows(campaign)))
    grant = coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes)
    assert coordinator.outcomes[grant.grant_id] == [REFUSED]
    assert reasons(daemon) == {"held-verify-failed": 1}
    assert portal.deliveries == 0


def test_a_held_sample_is_never_offered_and_is_counted(device, coordinator):
    campaign = coordinator.add_campaign(view="masked")
    coordinator.publish(campaign, 1)
    device.values["sources"][0]["language"] = "fr"
    device.enroll().put("english words only", "and more of them")
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    assert coordinator.rows(campaign) == {}
    assert daemon._parts.stores.samples.held_reasons() == {"unknown-language": 2}
    device.values["sources"][0]["language"] = "en"
    again = device.daemon()
    device.until(again, lambda: len(coordinator.rows(campaign)) == 2)


def test_a_portal_that_is_away_gets_the_item_when_it_is_back(scored, device, coordinator, portal):
    daemon, campaign = scored
    portal.stop()
    candidate = next(iter(coordinator.rows(campaign)))
    coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    conditions = daemon._parts.stores.conditions
    device.until(daemon, lambda: "portal" in conditions.all())
    portal.start()
    device.until(daemon, lambda: coordinator.outcomes, ticks=1500)
    assert "portal" not in conditions.all()


def test_a_portal_that_never_comes_back_lets_the_grant_expire(scored, device, coordinator, portal):
    daemon, campaign = scored
    portal.stop()
    candidate = next(iter(coordinator.rows(campaign)))
    coordinator.grant(campaign, candidate, expires_at=int(device.now) + 30)
    device.until(daemon, lambda: reasons(daemon).get("expired"), step=1.0)


def test_a_lost_answer_of_the_portal_delivers_again_and_shows_once(
    scored, device, coordinator, portal
):
    daemon, campaign = scored
    portal.lose_answers = 2
    candidate = next(iter(coordinator.rows(campaign)))
    grant = coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes)
    assert (portal.deliveries, len(portal.items)) == (3, 1)
    assert coordinator.outcomes[grant.grant_id] == [RELEASED]


@pytest.mark.parametrize("reason", ["MASK_POLICY", "CONTENT_MALFORMED"])
def test_an_item_that_the_portal_refuses_is_refused_with_its_reason(
    scored, device, coordinator, portal, reason
):
    daemon, campaign = scored
    portal.refuse_with = (grpc.StatusCode.FAILED_PRECONDITION, reason)
    candidate = next(iter(coordinator.rows(campaign)))
    grant = coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes)
    assert coordinator.outcomes[grant.grant_id] == [REFUSED]
    assert reasons(daemon) == {f"portal-{reason}": 1}


def test_a_portal_that_does_not_know_this_agent_is_a_matter_of_waiting(
    scored, device, coordinator, portal
):
    daemon, campaign = scored
    portal.refuse_with = (grpc.StatusCode.PERMISSION_DENIED, "IDENTITY")
    candidate = next(iter(coordinator.rows(campaign)))
    coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: reasons(daemon) == {"portal-IDENTITY": 1})
    portal.refuse_with = None
    device.until(daemon, lambda: coordinator.outcomes, step=1.0)
    assert reasons(daemon) == {}


def test_an_outcome_that_the_coordinator_does_not_take_holds_up_no_other(
    scored, device, coordinator, portal, monkeypatch
):
    daemon, campaign = scored
    first, second = coordinator.rows(campaign)
    spoiled = coordinator.grant(campaign, first, expires_at=int(device.now) + 600)
    plain = type(coordinator).RecordOutcomes

    def strict(self, request, context):
        if any(outcome.grant_id == spoiled.grant_id for outcome in request.outcomes):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")
        return plain(self, request, context)

    # The servicer's methods were bound at registration, so the class of the peer is changed first.
    coordinator.stop()
    monkeypatch.setattr(type(coordinator), "RecordOutcomes", strict)
    coordinator.start()
    sound = coordinator.grant(campaign, second, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes[sound.grant_id], ticks=1500)
    assert reasons(daemon) == {"coordinator-PERMISSION_DENIED": 1}


def other_kind(device, coordinator, kind: str, features) -> bytes:
    campaign = coordinator.add_campaign("other", kind=kind, view="masked")
    coordinator.publish(campaign, 1, features=features)
    device.values["sources"][0] |= {"campaign": "other", "kind": kind}
    device.enroll()
    return campaign


def release_all(device, coordinator, campaign) -> None:
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    for candidate in coordinator.rows(campaign):
        coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: len(coordinator.outcomes) == len(coordinator.rows(campaign)))


def test_an_image_travels_as_plain_png(device, coordinator, portal):
    campaign = other_kind(device, coordinator, "image", IMAGE)
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(device.inbox / "scan.png")
    release_all(device, coordinator, campaign)
    (item,) = portal.items.values()
    assert item.kind == item_pb2.SAMPLE_KIND_IMAGE
    assert item.mask_report.level == "none"
    assert (decode(item.content, "image") == pixels).all()


def test_a_window_of_a_sensor_travels_as_npy(device, coordinator, portal):
    campaign = other_kind(device, coordinator, "series", SERIES)
    windows = np.random.default_rng(0).normal(size=(3, 10, 2)).astype(np.float32)
    np.save(device.inbox / "day.npy", windows)
    np.save(device.inbox / "odd.npy", windows[:, :4])
    release_all(device, coordinator, campaign)
    assert len(portal.items) == 3
    assert decode(next(iter(portal.items.values())).content, "series").shape == (10, 2)
    counts = device.daemons[-1]._parts.stores.journal.refusal_counts()
    assert counts == {"unfit": 3}


def test_a_record_shows_only_the_columns_that_the_source_allows(device, coordinator, portal):
    from model_bundle.features import ColumnSpec, FeatureSpec

    spec = FeatureSpec("record", columns=(ColumnSpec("age"), ColumnSpec("ward", "category")))
    campaign = coordinator.add_campaign("other", kind="record", view="masked")
    coordinator.publish(campaign, 1, features=spec)
    rows = device.folder / "rows.jsonl"
    rows.write_text(
        json.dumps({"age": 41, "ward": "B2", "name": "Ann Fisher", "note": "mail a.b@example.org"})
        + "\n"
    )
    device.values["sources"] = [
        {
            "name": "table",
            "campaign": "other",
            "kind": "record",
            "type": "file",
            "path": str(rows),
            "columns": {"age": "keep", "ward": "keep", "note": "free-text"},
        }
    ]
    device.enroll()
    release_all(device, coordinator, campaign)
    (item,) = portal.items.values()
    shown = json.loads(item.content)
    assert (shown["age"], shown["ward"], shown["name"]) == (41, "B2", "<MASKED>")
    assert "example.org" not in shown["note"]


def test_a_masker_that_stumbles_is_asked_again_and_then_the_grant_is_refused(
    device, coordinator, portal
):
    campaign = coordinator.add_campaign(view="raw")
    coordinator.publish(campaign, 1)
    device.enroll().put(LETTER)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    device.masker.hold_all = HeldReason.TIMEOUT
    candidate = next(iter(coordinator.rows(campaign)))
    grant = coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: reasons(daemon) == {"held-timeout": 1})
    assert not coordinator.outcomes
    device.until(daemon, lambda: coordinator.outcomes, step=1.0)
    assert coordinator.outcomes[grant.grant_id] == [REFUSED]
    assert portal.deliveries == 0


def test_a_masking_process_that_cannot_start_lets_samples_wait(device, coordinator):
    campaign = coordinator.add_campaign(view="masked")
    coordinator.publish(campaign, 1)
    device.enroll().put(LETTER)
    device.masker.digest = None
    device.masker.hold_all = HeldReason.DETECTOR_MISSING
    daemon = device.daemon()
    conditions = daemon._parts.stores.conditions
    device.until(daemon, lambda: "scoring tickets" in conditions.all())
    assert "masking cannot start" in conditions.all()["scoring tickets"][1]
    assert not coordinator.reports
    device.masker.digest, device.masker.hold_all = bytes(32), None
    device.until(daemon, lambda: coordinator.rows(campaign))
