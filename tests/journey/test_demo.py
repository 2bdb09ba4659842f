"""The whole demo: one budget, better models, nothing but numbers on the central side."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import select

from coordinator.core.entries import Granted, GrantState
from coordinator.core.ledger import Ledger, violations
from coordinator.sql_store import SqlStore
from edge_agent.egress_ledger import records, verify
from model_bundle.manifest import unpack
from model_bundle.signing import verify as verify_signature
from review_portal.label_store import LabelStore
from review_portal.store.tables import item, label
from simulations.demo.plan import MARKER_COUNT
from simulations.demo.tickets import marker_strings
from simulations.demo.watch import search_markers
from tests.journey.conftest import FinishedDemo

pytestmark = [
    pytest.mark.journey,
    pytest.mark.federation,
    pytest.mark.presidio,
    pytest.mark.timeout(1800),
]


def ledger_of(demo: FinishedDemo) -> Ledger:
    store = SqlStore(f"sqlite:///{demo.layout.coordinator / 'coordinator.db'}")
    try:
        return Ledger(entry for entry, _ in store.entries())
    finally:
        store.close()


def campaign_ids(demo: FinishedDemo) -> dict[str, bytes]:
    with LabelStore.open(demo.layout.site("alder").portal, read_only=True) as store:
        return {campaign.name: campaign.campaign_id for campaign in store.campaigns()}


def test_both_campaigns_get_better_with_their_labels(finished_demo: FinishedDemo) -> None:
    campaigns = finished_demo.report["campaigns"]
    assert set(campaigns) == {"digits", "tickets"}
    for campaign in campaigns.values():
        cycles = campaign["cycles"]
        assert [cycle["cycle"] for cycle in cycles] == [1, 2, 3]
        assert cycles[-1]["accuracy"] > cycles[0]["accuracy"]
        assert cycles[-1]["macro_f1"] > cycles[0]["macro_f1"]
        assert cycles[-1]["accuracy"] > 0.8
        assert all(cycle["seconds"] > 0 for cycle in cycles)


def test_the_ledger_spent_what_the_portals_hold(finished_demo: FinishedDemo) -> None:
    report = finished_demo.report
    ledger = ledger_of(finished_demo)
    in_stores = 0
    for name, campaign_id in campaign_ids(finished_demo).items():
        count = 0
        for site in report["sites"]:
            portal = finished_demo.layout.site(site).portal
            with LabelStore.open(portal, read_only=True) as store:
                labeled = store.examples(campaign_id, "train")
                count += sum(example.origin == "expert" for example in labeled)
        assert ledger.books(campaign_id).total.spent == count
        assert report["campaigns"][name]["cycles"][-1]["labels"] == count
        in_stores += count
    assert report["ledger"]["spent"] == in_stores
    assert report["ledger"]["spent"] <= report["ledger"]["budget"]
    assert report["ledger"]["reserved"] == 0


def test_the_budget_was_never_passed_at_any_entry(finished_demo: FinishedDemo) -> None:
    store = SqlStore(f"sqlite:///{finished_demo.layout.coordinator / 'coordinator.db'}")
    ledger = Ledger()
    for entry, digest in store.entries():
        ledger.apply(entry)
        assert ledger.digest == digest
        if isinstance(entry, Granted):
            books = ledger.books(entry.terms.campaign_id)
            assert books.total.taken <= books.funding.budget_labels
    store.close()
    for campaign_id in campaign_ids(finished_demo).values():
        assert violations(ledger, campaign_id) == []


def test_all_six_agents_end_on_the_last_version(finished_demo: FinishedDemo) -> None:
    report = finished_demo.report
    installed = [
        (name, version)
        for site in report["sites"].values()
        for device in site["devices"].values()
        for name, version in device["model_versions"].items()
    ]
    last = {name: c["cycles"][-1]["model_version"] for name, c in report["campaigns"].items()}
    assert len(installed) == 12
    assert all(version == last[name] for name, version in installed)


def test_no_planted_marker_is_in_any_central_byte(finished_demo: FinishedDemo) -> None:
    import numpy as np

    markers = marker_strings(MARKER_COUNT, rng=np.random.default_rng(7))
    central = search_markers(finished_demo.layout.central, markers)
    assert central.files_searched > 20
    assert central.found == 0
    # The same search finds them all where they belong, so it can fail.
    assert search_markers(finished_demo.layout.sites, markers).found == MARKER_COUNT
    assert finished_demo.report["markers"]["found"] == 0


def test_what_left_the_devices_is_in_their_own_ledgers(finished_demo: FinishedDemo) -> None:
    sent = 0
    for site in finished_demo.report["sites"]:
        for device in ("device-1", "device-2"):
            folder = finished_demo.layout.site(site).agent(device) / "egress"
            assert verify(folder).fault == ""
            sent += sum(record.size_bytes for record in records(folder))
    egress = finished_demo.report["egress"]
    assert 0 < sent < egress["bytes"]
    assert sum(kind["bytes"] for kind in egress["by_kind"].values()) == egress["bytes"]


def test_one_sample_becomes_one_label_and_one_better_model(finished_demo: FinishedDemo) -> None:
    campaign_id = campaign_ids(finished_demo)["digits"]
    with LabelStore.open(finished_demo.layout.site("birch").portal, read_only=True) as store:
        query = (
            select(item.c.grant_id, item.c.candidate_id)
            .join(label, label.c.item_number == item.c.item_number)
            .where(item.c.campaign_id == campaign_id, item.c.grant_id.is_not(None))
            .order_by(label.c.label_id)
        )
        grant_id, candidate_id = store.database.read(lambda c: c.execute(query).first())
    grant = ledger_of(finished_demo).grant(grant_id)
    assert grant is not None
    assert grant.state is GrantState.LABELED
    assert (grant.terms.candidate_id, grant.terms.site_id) == (candidate_id, "birch")
    offered = [
        record
        for device in ("device-1", "device-2")
        for record in records(finished_demo.layout.site("birch").agent(device) / "egress")
        if "CandidateBatch" in record.method and candidate_id in record.raw_payload()
    ]
    assert offered, "the sample was offered as a candidate before it was granted"
    runs = finished_demo.layout.coordinator / "training" / campaign_id.hex()
    bundles = {path.parent.name: unpack(path.read_bytes()) for path in runs.glob("run-*/bundle")}
    release = finished_demo.layout.site("birch").agent("device-1") / "identity" / "release.pub"
    for bundle in bundles.values():
        verify_signature(bundle, [release.read_bytes()])
    assert sorted(b.manifest.version for b in bundles.values()) == [1, 2, 3, 4]


def test_the_report_page_needs_nothing_from_outside(finished_demo: FinishedDemo) -> None:
    page = finished_demo.page
    assert "<svg" in page
    assert not re.search(r"<script|<link|src=|@import|url\((?!#)", page)
    assert "no sample left its site" in page
    assert "What each cycle bought" in finished_demo.printed
