"""The daemon end to end against a coordinator and a portal that really listen."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from agent_models import TEXT, onnx_model
from onnx import helper, numpy_helper
from perimeter.v1 import grant_pb2, model_pb2

from edge_agent.identity import IdentityFolder

ROLLED_BACK = model_pb2.INSTALL_STATE_ROLLED_BACK
TEXTS = [f"my invoice number {n} is wrong, please refund" for n in range(40)]


@pytest.fixture
def campaign(coordinator) -> bytes:
    campaign_id = coordinator.add_campaign()
    coordinator.publish(campaign_id, 1)
    return campaign_id


def test_samples_become_candidates_and_a_complete_report(device, coordinator, campaign):
    device.enroll().put(*TEXTS)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    assert len(coordinator.rows(campaign)) == 40
    report = coordinator.reports[-1]
    assert report.complete
    assert report.model_version == 1
    assert sum(memoryview(report.class_counts).cast("I")) == 40
    assert 0 < report.top_probability_square_sum < report.top_probability_sum <= 40 * 65536
    assert coordinator.installs[-1].state == model_pb2.INSTALL_STATE_INSTALLED


def test_a_granted_sample_reaches_the_portal_and_its_outcome_the_coordinator(
    device, coordinator, portal, campaign
):
    device.enroll().put(*TEXTS)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    candidate = next(iter(coordinator.rows(campaign)))
    grant = coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: coordinator.outcomes)
    item = portal.items[grant.grant_id]
    assert item.content.decode() in TEXTS
    assert len(item.probabilities) == 12
    assert item.mask_report.policy_version == "perimeter-masking-1"
    assert item.mask_report.verified
    assert coordinator.outcomes[grant.grant_id] == [grant_pb2.OUTCOME_STATE_RELEASED]


def test_an_empty_device_reports_a_complete_empty_pool(device, coordinator, campaign):
    device.enroll()
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    assert coordinator.reports[-1].complete
    assert coordinator.reports[-1].top_probability_sum == 0


def test_a_new_version_scores_the_whole_pool_again(device, coordinator, campaign):
    device.enroll().put(*TEXTS)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    coordinator.publish(campaign, 2)
    device.until(daemon, lambda: coordinator.reports[-1].model_version == 2)
    assert set(coordinator.rows(campaign).values()) == {2}
    assert len(coordinator.rows(campaign)) == 40
    first_of_two = next(b for b in coordinator.batches if b.model_version == 2)
    assert first_of_two.replaces_older_versions


def test_work_goes_on_without_the_coordinator_and_is_sent_once_it_is_back(
    device, coordinator, campaign
):
    device.enroll().put(*TEXTS[:10])
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    coordinator.stop()
    device.put(*TEXTS[10:])
    stores = daemon._parts.stores
    device.until(daemon, lambda: stores.outbox.row_counts().get(campaign) == 30)
    assert "coordinator" in stores.conditions.all()
    coordinator.start()
    device.until(daemon, lambda: len(coordinator.rows(campaign)) == 40, ticks=2000)
    device.until(daemon, lambda: "coordinator" not in stores.conditions.all())


def test_an_unacknowledged_batch_is_sent_again_unchanged(device, coordinator, campaign):
    coordinator.acknowledge = False
    device.enroll().put(*TEXTS)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.batches)
    coordinator.acknowledge = True
    device.until(daemon, lambda: coordinator.reports)
    assert [batch.sequence for batch in coordinator.batches] == [1]


def test_an_agent_that_was_killed_and_restarted_loses_and_repeats_nothing(
    device, coordinator, portal, campaign
):
    device.enroll().put(*TEXTS)
    for _ in range(3):
        killed = device.daemon()
        killed.tick(device.now)
        # No close: the file is left as a killed process leaves it.
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    assert len(coordinator.rows(campaign)) == 40
    portal.lose_answers = 1
    candidate = next(iter(coordinator.rows(campaign)))
    grant = coordinator.grant(campaign, candidate, expires_at=int(device.now) + 600)
    device.until(daemon, lambda: portal.items)
    again = device.daemon()
    device.until(again, lambda: coordinator.outcomes)
    assert len(portal.items) == 1
    assert set(coordinator.outcomes[grant.grant_id]) == {grant_pb2.OUTCOME_STATE_RELEASED}


def test_the_certificate_is_renewed_at_half_life_without_a_pause(device, coordinator, campaign):
    device.enroll().put(*TEXTS)
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    before = IdentityFolder(device.folder / "state" / "identity").load()
    device.now = before.renews_at + 300
    device.until(daemon, lambda: coordinator.renewals)
    after = IdentityFolder(device.folder / "state" / "identity").load()
    assert after.key_pem != before.key_pem
    device.put("one more letter")
    device.until(daemon, lambda: len(coordinator.rows(campaign)) == 41)


def test_an_expired_certificate_says_so_and_samples_are_kept(device, coordinator, campaign):
    device.enroll().put(*TEXTS[:5])
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    device.now += 7200
    device.put(*TEXTS[5:])
    stores = daemon._parts.stores
    device.until(daemon, lambda: stores.outbox.row_counts().get(campaign) == 35)
    assert "perimeter-agent enroll" in stores.conditions.all()["certificate"][1]


def test_a_refused_batch_is_named_in_the_conditions_and_nothing_is_lost(
    device, coordinator, campaign
):
    coordinator.refuse_batches = "LABEL_SCHEMA_MISMATCH"
    device.enroll().put(*TEXTS)
    daemon = device.daemon()
    stores = daemon._parts.stores
    device.until(daemon, lambda: "candidates" in stores.conditions.all())
    assert "LABEL_SCHEMA_MISMATCH" in stores.conditions.all()["candidates"][1]
    coordinator.refuse_batches = ""
    device.now += 601
    device.until(daemon, lambda: coordinator.reports)
    assert len(coordinator.rows(campaign)) == 40


def test_a_campaign_that_the_site_does_not_have_is_named(device, coordinator, campaign):
    device.values["sources"][0]["campaign"] = "ticktes"
    daemon = device.enroll().daemon()
    stores = daemon._parts.stores
    device.until(daemon, lambda: "campaigns" in stores.conditions.all())
    assert "ticktes" in stores.conditions.all()["campaigns"][1]


def test_a_source_of_another_kind_than_its_campaign_is_not_read(device, coordinator):
    coordinator.add_campaign(kind="image")
    device.enroll().put("a text")
    daemon = device.daemon()
    stores = daemon._parts.stores
    device.until(daemon, lambda: "source inbox" in stores.conditions.all())
    assert "is about image" in stores.conditions.all()["source inbox"][1]
    assert stores.samples.counts() == {}


def test_a_model_that_fails_in_use_gives_way_to_the_one_before(device, coordinator, campaign):
    device.enroll().put(*TEXTS[:5])
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    # The trial run passes: only long texts make this model fail.
    coordinator.publish(campaign, 2, model=picky_model())
    device.put(*(f"{n} " + "many more words than before " * 3 for n in range(5, 25)))
    device.until(daemon, lambda: coordinator.installs[-1].state == ROLLED_BACK)
    device.until(daemon, lambda: len(coordinator.rows(campaign)) == 25)
    assert set(coordinator.rows(campaign).values()) == {1}


def picky_model() -> bytes:
    """A model that only fits texts of two words, such as those of the trial run."""
    model = onnx.load_from_string(onnx_model(TEXT, 2))
    model.graph.initializer.append(numpy_helper.from_array(np.int64([-1, 3]), "three"))
    gather = next(node for node in model.graph.node if node.op_type == "Gather")
    gather.input[1] = "few"
    model.graph.node.insert(0, helper.make_node("Reshape", ["token_ids", "three"], ["few"]))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("named", "low", "high"), [("north", 0.33, 0.45), ("elsewhere", 0.55, 1.0)]
)
def test_a_device_scores_at_the_temperature_of_its_own_site(device, coordinator, named, low, high):
    campaign_id = coordinator.add_campaign()
    coordinator.publish(campaign_id, 1, site_temperatures={named: 30.0})
    device.enroll().put(*TEXTS)
    device.until(device.daemon(), lambda: coordinator.reports)
    top = np.frombuffer(coordinator.batches[-1].top_probabilities, np.uint8) / 63
    assert low < top.mean() < high
    share = coordinator.reports[-1].top_probability_sum / 65536 / 40
    assert share == pytest.approx(top.mean(), abs=0.01)


@pytest.mark.parametrize(("most", "row_count"), [(0, 8), (2, 3)])
def test_samples_with_the_same_row_are_sent_as_often_as_the_campaign_asks_and_else_counted(
    device, coordinator, portal, campaign, most, row_count
):
    coordinator.campaigns["tickets"].equal_rows_max = most
    device.enroll().put("the app is slow", *("please refund" + " " * n for n in range(7)))
    daemon = device.daemon()
    device.until(daemon, lambda: coordinator.reports)
    (batch,) = coordinator.batches
    assert batch.row_count == row_count
    assert batch.row_count + sum(batch.further_counts) == 8
    assert sum(memoryview(coordinator.reports[-1].class_counts).cast("I")) == 8
    ids = [batch.candidate_ids[i : i + 16] for i in range(0, 16 * row_count, 16)]
    coordinator.grant(campaign, ids[-1], expires_at=int(device.now) + 600)
    device.until(daemon, lambda: portal.items)
