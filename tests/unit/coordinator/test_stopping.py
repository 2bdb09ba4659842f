"""Advice to stop, through the real services and the real scheduler: given, acted on, overruled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from central_harness import (
    campaign_status,
    in_phase,
    install_and_offer,
    open_grants,
    run_cycle,
)

from coordinator.agreement import changes_of
from coordinator.core.campaign import CampaignState
from coordinator.core.records import AuditRecord, CampaignRecord
from coordinator.observation import status_of


@pytest.fixture
def sites(central):
    """Two sites with an agent and a portal each."""
    agents = [central.enroll(site) for site in ("north", "south")]
    portals = [central.enroll(site, "portal") for site in ("north", "south")]
    return agents, portals


def resume(office, campaign_id):
    record = office.store.get(CampaignRecord, campaign_id)
    with office.store.transaction() as writer:
        writer.put(dataclasses.replace(record, state=CampaignState.ACTIVE))


def test_a_held_campaign_grants_nothing_more_until_the_operator_resumes_it(central, sites):
    """The stand-in agents predict the same on every version, so nothing can have been gained."""
    campaign_id, campaign = central.create(
        budget_labels=30, cycle_budget_labels=6, cycles=5, stop="hold", explore_ratio=0.5
    )
    for cycle in (1, 2):
        run_cycle(central, sites, campaign_id, campaign, cycle=cycle)
    central.tick_until(in_phase("waiting", 3))
    for number, agent in enumerate(sites[0]):
        install_and_offer(agent, campaign_id, campaign, 3, seed=number)
    held = campaign_status(central.tick_until(lambda s: campaign_status(s)["state"] == "paused"))
    assert held["because"].startswith("held before cycle 3: 2 cycles in a row")
    assert [row["changed_ratio"] for row in held["history"]] == [None, 0.0]
    for _ in range(3):
        central.tick()
    assert campaign_status(central.ask(status_of))["ledger"] == held["ledger"]
    notes = central.ask(lambda office: office.store.find(AuditRecord, action="campaign held"))
    assert [note.subject for note in notes] == [f"{campaign_id.hex()} cycle 3"]

    central.ask(resume, campaign_id)
    central.tick_until(in_phase("labeling", 3))
    assert all(open_grants(agent) for agent in sites[0])


def test_a_campaign_that_takes_advice_only_goes_on_granting(central, sites):
    campaign_id, campaign = central.create(budget_labels=24, cycle_budget_labels=6, cycles=4)
    for cycle in (1, 2, 3, 4):
        run_cycle(central, sites, campaign_id, campaign, cycle=cycle)
    status = central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    assert campaign_status(status)["stop_advice"]
    assert campaign_status(status)["ledger"]["spent"] == 24


def test_only_candidates_that_were_scored_anew_and_never_asked_about_are_compared(central, sites):
    campaign_id, campaign = central.create(budget_labels=30, cycle_budget_labels=6, cycles=3)
    granted = run_cycle(central, sites, campaign_id, campaign, cycle=1)
    central.tick_until(in_phase("waiting", 2))
    agents, _ = sites
    changed = np.full(12, 2, dtype="<u2").tobytes()
    install_and_offer(agents[0], campaign_id, campaign, 2, seed=0, predicted_classes=changed)
    install_and_offer(agents[1], campaign_id, campaign, 2, seed=1)
    central.tick_until(in_phase("labeling", 2))

    def compared(office):
        return changes_of(office, campaign, campaign_id)[2].stability

    stability = central.ask(compared)
    assert stability.compared_count == 24 - sum(map(len, granted))
    assert 0 < stability.changed_count <= 12 - len(granted[0])
    assert stability.agreement is not None
    assert stability.agreement < 1.0
