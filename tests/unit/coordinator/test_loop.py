"""The campaign's life through the real services, the real scheduler and a child process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from central_harness import (
    Machine,
    campaign_status,
    in_phase,
    install_and_offer,
    open_grants,
    report,
    run_cycle,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from perimeter.v1 import candidate_pb2, grant_pb2, model_pb2

from coordinator.core.allocation.phases import phase_of
from coordinator.core.allocation.policy import Policy
from coordinator.core.allocation.pool import Progress
from coordinator.core.campaign import CampaignState
from coordinator.core.entries import GrantReason, GrantTerms, grant_message
from coordinator.core.records import (
    COLUMN_WIDTHS,
    AllocationRecord,
    CampaignRecord,
    SegmentRecord,
)
from coordinator.equal_rows import UNNAMED
from coordinator.explore_labels import measured_trust
from coordinator.office import load_ledger
from coordinator.pools import scored_alike
from coordinator.store import open_store
from coordinator.verification import verify


@pytest.fixture
def sites(central):
    """Two sites with an agent and a portal each."""
    agents = [central.enroll(site) for site in ("north", "south")]
    portals = [central.enroll(site, "portal") for site in ("north", "south")]
    return agents, portals


@pytest.fixture
def waiting_sites(waiting):
    """As `sites`, for a campaign that has its first model already."""
    agents = [waiting[0].enroll(site) for site in ("north", "south")]
    portals = [waiting[0].enroll(site, "portal") for site in ("north", "south")]
    return agents, portals


def test_a_campaign_runs_from_first_model_to_completion(central, sites):
    accuracies = {"1": 0.3, "2": 0.6, "3": 0.8}
    campaign_id, campaign = central.create(training={"accuracies": accuracies})
    for cycle in (1, 2):
        run_cycle(central, sites, campaign_id, campaign, cycle=cycle)
    status = central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    done = campaign_status(status)
    assert done["ledger"] == {
        "budget": 20,
        "spent": 20,
        "reserved": 0,
        "returned": 0,
    }
    assert [row["accuracy"] for row in done["history"]] == [0.6, 0.8]
    assert done["stop_advice"] == []
    assert [row["budget_spent"] for row in done["history"]] == [10, 20]
    assert [row["labels"] for row in done["history"]] == [10, 10]
    assert [row["model_version"] for row in done["history"]] == [2, 3]
    problems, counts = central.ask(verify)
    assert problems == []
    assert counts["allocations"] == 2


def test_a_grant_bears_a_signature_that_sites_can_verify(waiting, waiting_sites):
    central, campaign_id, campaign = waiting
    agents, _ = waiting_sites
    for agent in agents:
        install_and_offer(agent, campaign_id, campaign, 1)
    central.tick_until(in_phase("labeling", 1))
    public = Ed25519PublicKey.from_public_bytes(
        (central.config.identity_folder / "grant.pub").read_bytes()
    )
    grants = open_grants(agents[0])
    assert grants
    for grant in grants:
        terms = GrantTerms(
            grant_id=grant.grant_id,
            campaign_id=grant.campaign_id,
            candidate_id=grant.candidate_id,
            site_id="",
            agent_name="",
            model_version=grant.model_version,
            cycle=0,
            reason=GrantReason(grant.reason),
            expires_at=grant.expire_time.seconds,
        )
        public.verify(grant.signature, grant_message(terms, grant.ledger_sequence))


def test_a_waiting_agent_is_woken_by_its_first_grant(waiting, waiting_sites):
    central, campaign_id, campaign = waiting
    agents, _ = waiting_sites
    for agent in agents:
        install_and_offer(agent, campaign_id, campaign, 1)
    call = agents[0].grants.ListGrants.future(
        grant_pb2.ListGrantsRequest(page_size=10, wait_seconds=30)
    )
    time.sleep(0.1)
    assert not call.done()
    started = time.monotonic()
    central.tick()
    assert call.result(timeout=60).grants
    assert time.monotonic() - started < 25


def test_granted_candidates_are_never_granted_again(central, sites):
    campaign_id, campaign = central.create()
    first = run_cycle(central, sites, campaign_id, campaign, cycle=1)
    second = run_cycle(central, sites, campaign_id, campaign, cycle=2)
    ids = [grant.candidate_id for grants in first + second for grant in grants]
    assert len(ids) == len(set(ids)) == 20


def test_expired_grants_give_their_labels_back(waiting, waiting_sites):
    central, campaign_id, campaign = waiting
    agents, portals = waiting_sites
    for agent in agents:
        install_and_offer(agent, campaign_id, campaign, 1)
    central.tick_until(in_phase("labeling", 1))
    north, south = (open_grants(agent) for agent in agents)
    report(portals[0], north)
    central.clock.offset += campaign.grant_lifetime_seconds + central.config.expiry_grace_seconds
    central.clock.offset += 2
    status = central.tick_until(lambda s: campaign_status(s)["ledger"]["reserved"] == 0)
    assert campaign_status(status)["ledger"]["spent"] == len(north)
    assert campaign_status(status)["ledger"]["returned"] == len(south)
    late = report(portals[1], south[:1])
    assert late.outcomes[0].state == grant_pb2.OUTCOME_STATE_EXPIRED


def test_a_canary_version_reaches_its_agents_first(central, sites):
    campaign_id, campaign = central.create(canary_ratio=0.5)
    agents, _ = sites
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    central.tick_until(lambda s: campaign_status(s)["canary_version"] == 2)
    question = model_pb2.GetModelVersionRequest(campaign_id=campaign_id)
    offered = [agent.models.GetModelVersion(question).version for agent in agents]
    assert set(offered) <= {1, 2}
    assert 2 in offered
    for agent, version in zip(agents, offered, strict=True):
        if version == 2:
            agent.models.ReportInstall(
                model_pb2.ReportInstallRequest(
                    request_id=uuid.uuid4().bytes,
                    campaign_id=campaign_id,
                    version=2,
                    state=model_pb2.INSTALL_STATE_INSTALLED,
                )
            )
    central.tick_until(lambda s: campaign_status(s)["model_version"] == 2)


def test_a_worse_model_is_rolled_back_and_the_campaign_goes_on(central, sites):
    training = {"accuracies": {"1": 0.9, "2": 0.2, "3": 0.95}}
    campaign_id, campaign = central.create(training=training)
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    status = central.tick_until(in_phase("labeling", 2))
    assert campaign_status(status)["model_version"] == 1
    assert campaign_status(status)["training"]["state"] == "rolled_back"
    assert "below" in campaign_status(status)["training"]["error"]


def test_failing_training_spends_no_further_budget(central, sites):
    campaign_id, campaign = central.create(training={"fail": True})
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    status = central.tick_until(lambda s: "repeatedly" in campaign_status(s)["because"])
    assert campaign_status(status)["phase"] == "training"
    assert campaign_status(status)["ledger"]["spent"] == 10
    assert campaign_status(status)["ledger"]["reserved"] == 0


def test_a_bundle_with_a_flipped_byte_is_never_offered(central, sites):
    campaign_id, campaign = central.create(training={"pause_seconds": 0.3})
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    run = central.config.folder / "training" / campaign_id.hex() / "run-1"
    deadline = time.monotonic() + 60
    while not (run / "evaluation.json").exists() and time.monotonic() < deadline:
        central.ask(lambda office: None)
        if not (run / "request.json").exists():
            central.tick()
        time.sleep(0.02)
    first = json.loads((run.parent / "run-0" / "request.json").read_text())
    assert first["first_label_count"] == campaign.cycle_budget_labels
    content = bytearray((run / "bundle").read_bytes())
    content[-1] ^= 1
    (run / "bundle").write_bytes(bytes(content))
    status = central.tick_until(lambda s: s["campaigns"][0]["training"]["state"] == "rolled_back")
    assert campaign_status(status)["model_version"] == 1
    assert "differs from the manifest" in campaign_status(status)["training"]["error"]


def test_where_cells_are_counted_with_noise_their_number_is_the_operators(central):
    campaign_id, _ = central.create(egress="histogram")
    folder = central.config.folder / "training" / campaign_id.hex() / "run-0"
    central.tick_until(lambda status: (folder / "request.json").exists())
    assert json.loads((folder / "request.json").read_text())["first_label_count"] == 0


def test_a_bundle_downloads_whole_and_from_an_offset(waiting, waiting_sites):
    _, campaign_id, _ = waiting
    agent = waiting_sites[0][0]
    answer = agent.models.GetModelVersion(model_pb2.GetModelVersionRequest(campaign_id=campaign_id))
    assert answer.version == 1

    def download(offset):
        request = model_pb2.DownloadBundleRequest(campaign_id=campaign_id, version=1, offset=offset)
        return b"".join(chunk.content for chunk in agent.models.DownloadBundle(request))

    content = download(0)
    assert len(content) == answer.size_bytes
    assert hashlib.sha256(content).digest() == answer.bundle_sha256
    assert download(100) == content[100:]


def test_a_restart_goes_on_without_granting_twice(runner, config):
    first = runner.start(config)
    campaign_id, campaign = first.create()
    machines = [first.enroll(site) for site in ("north", "south")]
    first.tick_until(in_phase("waiting", 1))
    for machine in machines:
        install_and_offer(machine, campaign_id, campaign, 1)
    first.tick_until(in_phase("labeling", 1))
    before = first.desk.office.ledger.digest
    runner.stop(first)
    second = runner.start(config)
    second.tick()
    assert second.desk.office.ledger.digest == before


def test_training_survives_the_coordinators_death_and_is_not_started_twice(runner, config):
    first = runner.start(config)
    campaign_id, campaign = first.create(training={"pause_seconds": 1.5})
    machines = [first.enroll(site) for site in ("north", "south")]
    portals = [first.enroll(site, "portal") for site in ("north", "south")]
    run_cycle(first, (machines, portals), campaign_id, campaign, cycle=1)
    run = config.folder / "training" / campaign_id.hex() / "run-1"
    first.tick_until(lambda _: (run / "starts.txt").exists())
    runner.stop(first)
    second = runner.start(config)
    status = second.tick_until(lambda s: campaign_status(s)["model_version"] == 2)
    assert len((run / "starts.txt").read_text().splitlines()) == 1
    assert campaign_status(status)["ledger"]["spent"] == 10


def test_a_training_that_was_killed_is_started_again(central, sites):
    campaign_id, campaign = central.create(training={"pause_seconds": 1.0})
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    run = Path(central.config.folder) / "training" / campaign_id.hex() / "run-1"
    central.tick_until(lambda _: (run / "starts.txt").exists())
    os.kill(int((run / "starts.txt").read_text().split()[1]), signal.SIGKILL)
    central.tick_until(lambda s: campaign_status(s)["model_version"] == 2)
    assert len((run / "starts.txt").read_text().splitlines()) == 2


def test_what_is_stored_replays_to_the_same_ledger(central, sites):
    campaign_id, campaign = central.create()
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    store = open_store(central.config.store_url)
    replayed = load_ledger(store)
    store.close()
    assert replayed.digest == central.desk.office.ledger.digest
    assert replayed.books(campaign_id).total == central.desk.office.ledger.books(campaign_id).total


def test_a_cycle_does_not_wait_for_an_agent_without_samples_of_it(waiting, waiting_sites):
    central, campaign_id, campaign = waiting
    agents, _ = waiting_sites
    idle = central.enroll("north", "agent", "idle")
    idle.models.ListCampaigns(model_pb2.ListCampaignsRequest())
    for agent in agents:
        install_and_offer(agent, campaign_id, campaign, 1)
    status = central.tick_until(lambda s: "2 of 3" in campaign_status(s)["because"])
    assert campaign_status(status)["phase"] == "waiting"
    central.clock.offset += central.config.join_grace_seconds + 1
    central.tick_until(in_phase("labeling", 1))


def test_a_cycle_waits_for_an_agent_that_asked_for_the_model(waiting, waiting_sites):
    central, campaign_id, campaign = waiting
    agents, _ = waiting_sites
    slow = central.enroll("north", "agent", "slow")
    slow.models.ListCampaigns(model_pb2.ListCampaignsRequest())
    slow.models.GetModelVersion(model_pb2.GetModelVersionRequest(campaign_id=campaign_id))
    for agent in agents:
        install_and_offer(agent, campaign_id, campaign, 1)
    central.clock.offset += central.config.join_grace_seconds + 1
    status = central.tick_until(lambda s: "2 of 3" in campaign_status(s)["because"])
    assert campaign_status(status)["phase"] == "waiting"
    central.clock.offset += campaign.pool_timeout_seconds
    central.tick_until(in_phase("labeling", 1))


@pytest.mark.postgres
def test_a_campaign_runs_on_postgresql_as_on_sqlite(runner, config, fresh_postgres_url):
    central = runner.start(config.model_copy(update={"database_url": fresh_postgres_url}))
    agents = [central.enroll(site) for site in ("north", "south")]
    portals = [central.enroll(site, "portal") for site in ("north", "south")]
    campaign_id, campaign = central.create(cycles=1)
    run_cycle(central, (agents, portals), campaign_id, campaign, cycle=1)
    status = central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    assert campaign_status(status)["ledger"]["spent"] == 10
    assert central.ask(verify)[0] == []


def test_explore_labels_tell_the_live_accuracy_of_the_model_in_use(central, sites):
    campaign_id, campaign = central.create(explore_ratio=0.5)
    for cycle in (1, 2):
        run_cycle(central, sites, campaign_id, campaign, cycle=cycle)
    status = central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    untrained, row = campaign_status(status)["history"]
    assert untrained["live_accuracy"] is None
    assert 0 <= row["live_accuracy"] <= 1
    low, high = row["live_interval"]
    assert low <= row["live_accuracy"] <= high


def test_a_site_that_claims_doubt_and_is_always_right_loses_trust(central, sites):
    campaign_id, campaign = central.create(
        explore_ratio=1.0, budget_labels=80, cycle_budget_labels=40
    )
    agents, portals = sites
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    assert central.ask(lambda office: measured_trust(office, campaign, campaign_id)) is None
    central.tick_until(in_phase("waiting", 2))
    # North claims to be right half the time; south claims to know nothing. Both predict class 0.
    for number, claim in enumerate((32, 0)):
        columns = {"top_probabilities": bytes([claim]) * 40, "predicted_classes": bytes(80)}
        agent, seed = agents[number], 10 + number
        install_and_offer(agent, campaign_id, campaign, 2, rows=40, seed=seed, **columns)
    central.tick_until(in_phase("labeling", 2))
    north, south = (open_grants(agent) for agent in agents)
    report(portals[0], north[::2], class_index=1)
    report(portals[0], north[1::2], class_index=0)
    report(portals[1], south, class_index=0)
    trust = central.ask(lambda office: measured_trust(office, campaign, campaign_id))
    assert trust[0] > 0.9
    assert trust[1] < 0.5


def test_overlap_asks_for_some_items_twice(central, sites):
    campaign_id, campaign = central.create(overlap_count=2, overlap_ratio=0.4, cycles=1)
    first = run_cycle(central, sites, campaign_id, campaign, cycle=1)
    grants = [grant for found in first for grant in found]
    again = [g for g in grants if g.reason == grant_pb2.GRANT_REASON_OVERLAP]
    ids = [grant.candidate_id for grant in grants]
    assert again
    assert all(ids.count(grant.candidate_id) == 2 for grant in again)
    assert len(grants) <= campaign.cycle_budget_labels


def test_no_site_passes_its_share_of_the_budget(central, sites):
    campaign_id, campaign = central.create(site_share_cap=0.5, cycles=2)
    for cycle in (1, 2):
        run_cycle(central, sites, campaign_id, campaign, cycle=cycle)
        spent = central.desk.office.ledger.books(campaign_id).sites
        assert all(account.taken <= 10 for account in spent.values())
    status = central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    assert campaign_status(status)["ledger"]["spent"] == 20


def test_a_campaign_whose_pools_are_used_up_completes(central, sites):
    campaign_id, campaign = central.create(budget_labels=100, cycle_budget_labels=50, cycles=5)
    for cycle in (1, 2):
        agents, portals = sites
        central.tick_until(in_phase("waiting", cycle))
        for number, agent in enumerate(agents):
            install_and_offer(agent, campaign_id, campaign, cycle, seed=number)
        if cycle == 1:
            central.tick_until(in_phase("labeling", 1))
            for agent, portal in zip(agents, portals, strict=True):
                report(portal, open_grants(agent))
    status = central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    assert campaign_status(status)["ledger"]["spent"] == 24


def test_a_paused_campaign_grants_nothing_until_it_is_resumed(waiting, waiting_sites):
    central, campaign_id, campaign = waiting
    agents, _ = waiting_sites

    def set_state(office, state):
        record = office.store.get(CampaignRecord, campaign_id)
        with office.store.transaction() as writer:
            writer.put(dataclasses.replace(record, state=state))

    central.ask(set_state, CampaignState.PAUSED)
    for agent in agents:
        install_and_offer(agent, campaign_id, campaign, 1)
    for _ in range(3):
        central.tick()
    assert not open_grants(agents[0])
    central.ask(set_state, CampaignState.ACTIVE)
    central.tick_until(in_phase("labeling", 1))


def test_a_restored_backup_never_passes_the_budget(runner, config, folder_with_model):
    template, campaign_id, campaign = folder_with_model
    shutil.copytree(template, config.folder)
    central = runner.start(config)
    agents = [central.enroll(site) for site in ("north", "south")]
    portals = [central.enroll(site, "portal") for site in ("north", "south")]
    backup = config.folder.with_name("backup.db")
    central.ask(lambda office: office.store.close())
    shutil.copy(config.folder / "coordinator.db", backup)
    granted = run_cycle(central, (agents, portals), campaign_id, campaign, cycle=1)
    seen = max(grant.ledger_sequence for found in granted for grant in found)
    runner.stop(central)
    for path in config.folder.glob("coordinator.db*"):
        path.unlink()
    shutil.copy(backup, config.folder / "coordinator.db")

    restored = runner.start(config)
    books = restored.desk.office.ledger.books(campaign_id)
    assert (books.written_off, books.available) == (10, 10)
    assert restored.desk.office.ledger.sequence > seen
    again = [Machine(restored, agent.key, agent.certificate_der) for agent in agents]
    for number, agent in enumerate(again):
        agent.sequence = 5
        install_and_offer(agent, campaign_id, campaign, 1, seed=10 + number)
    restored.tick_until(in_phase("labeling", 1))
    fresh = [
        grant.ledger_sequence
        for agent in again
        for grant in agent.grants.ListGrants(
            grant_pb2.ListGrantsRequest(page_size=100, after_ledger_sequence=seen)
        ).grants
    ]
    assert len(fresh) == 10
    late = report(Machine(restored, portals[0].key, portals[0].certificate_der), granted[0])
    assert {outcome.state for outcome in late.outcomes} == {grant_pb2.OUTCOME_STATE_UNSPECIFIED}
    assert restored.ask(verify)[0] == []
    runner.stop(restored)
    once_more = runner.start(config)
    assert once_more.desk.office.ledger.books(campaign_id).written_off == 10


def test_a_crash_before_the_high_water_mark_loses_no_label(waiting, waiting_sites, runner):
    central, campaign_id, campaign = waiting
    agents, _ = waiting_sites
    mark = central.config.high_water_path
    for agent in agents:
        install_and_offer(agent, campaign_id, campaign, 1)
    central.tick_until(in_phase("labeling", 1))
    mark.unlink()
    runner.stop(central)
    again = runner.start(central.config)
    books = again.desk.office.ledger.books(campaign_id)
    assert (books.written_off, books.total.reserved) == (0, 10)


def test_outcomes_that_a_restore_forgot_are_not_spent_again(waiting, waiting_sites, runner):
    central, campaign_id, campaign = waiting
    agents, portals = waiting_sites
    for number, agent in enumerate(agents):
        install_and_offer(agent, campaign_id, campaign, 1, seed=number)
    central.tick_until(in_phase("labeling", 1))
    central.ask(lambda office: office.store.close())
    database = central.config.folder / "coordinator.db"
    backup = shutil.copy(database, central.config.folder.with_name("backup.db"))
    told = open_grants(agents[0])
    report(portals[0], told)
    runner.stop(central)
    for path in central.config.folder.glob("coordinator.db*"):
        path.unlink()
    shutil.copy(backup, database)
    restored = runner.start(central.config)
    books = restored.desk.office.ledger.books(campaign_id)
    assert books.written_off == len(told)
    restored.clock.offset += campaign.grant_lifetime_seconds + 100
    restored.tick()
    assert books.total.returned == 10
    assert books.available + books.total.reserved == campaign.budget_labels - len(told)


def test_what_another_version_of_the_allocator_decided_is_counted_and_not_taken_for_a_forgery(
    central, sites
):
    campaign_id, campaign = central.create(budget_labels=10)
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    made = central.ask(lambda office: office.store.find(AllocationRecord, campaign_id=campaign_id))

    def rewrite(kept, picks):
        def write(office):
            with office.store.transaction() as writer:
                for record in made:
                    inputs = json.dumps(json.loads(record.inputs_json)[:kept])
                    writer.put(dataclasses.replace(record, inputs_json=inputs, picks_digest=picks))

        central.ask(write)
        problems, counts = central.ask(verify)
        return len(problems), counts["allocations"], counts["older_allocations"]

    assert len(made) == 1
    assert rewrite(3, made[0].picks_digest) == (0, 1, 0)
    assert rewrite(2, "ab" * 32) == (0, 0, len(made)), "logs of older versions name no method"
    assert rewrite(3, "ab" * 32) == (len(made), len(made), 0), "a forgery stays one"


def test_logged_inputs_that_no_pool_could_have_are_named_and_not_made_again(central, sites):
    campaign_id, campaign = central.create(budget_labels=10)
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    central.tick_until(lambda s: campaign_status(s)["state"] == "completed")
    made = central.ask(lambda o: o.store.find(AllocationRecord, campaign_id=campaign_id))[0]
    inputs = json.loads(made.inputs_json)
    inputs[0]["class_labels"].append(7)

    def write(office):
        with office.store.transaction() as writer:
            writer.put(dataclasses.replace(made, inputs_json=json.dumps(inputs)))

    central.ask(write)
    problems, counts = central.ask(verify)
    assert counts["allocations"] == 1
    (problem,) = problems
    assert "cycle 1: the logged inputs are not those of a pool: class_labels must have" in problem


def phase_of_cycle(office, campaign_id, cycle):
    """Phase of an allocation, from its logged inputs."""
    values = json.loads(office.store.get(AllocationRecord, campaign_id, cycle).inputs_json)[0]
    counts = {n: np.array(values[n]) for n in ("class_labels", "site_labels")}
    rest = {n: values[n] for n in ("calibration_error", "model_trained")}
    return phase_of(Progress(**counts, **rest), Policy())


def test_the_first_labels_go_to_what_stands_for_most_others_whatever_labels_exist_already(
    central, sites
):
    agents, portals = sites
    campaign_id, campaign = central.create(explore_ratio=0.5, class_floor_labels=3)
    central.tick_until(in_phase("waiting", 1))
    for portal in portals:
        portal.candidates.ReportSite(
            candidate_pb2.ReportSiteRequest(
                request_id=uuid.uuid4().bytes,
                campaign_id=campaign_id,
                day=20_000,
                label_counts=np.array([40, 40, 40], "<u4").tobytes(),
                label_count=120,
            )
        )
    bands = np.zeros(30, np.uint8)
    bands[:5] = (9, 8, 7, 6, 5)
    for number, agent in enumerate(agents):
        columns = {"density_cost": bands.tobytes()}
        install_and_offer(agent, campaign_id, campaign, 1, rows=30, seed=number, **columns)
    central.tick_until(in_phase("labeling", 1))
    granted = [open_grants(agent) for agent in agents]
    for number, grants in enumerate(granted):
        ids = np.random.default_rng(number).bytes(16 * 30)
        wanted = {ids[16 * row : 16 * row + 16] for row in range(5)}
        assert {grant.candidate_id for grant in grants} == wanted
        assert {grant.reason for grant in grants} == {grant_pb2.GRANT_REASON_USEFUL}
    assert central.ask(phase_of_cycle, campaign_id, 1).value == "cold"
    for portal, grants in zip(portals, granted, strict=True):
        report(portal, grants)
    run_cycle(central, sites, campaign_id, campaign, cycle=2)
    assert central.ask(phase_of_cycle, campaign_id, 2).value == "warm"
    assert central.ask(verify)[0] == []


def test_rows_that_an_untrained_model_scored_wait_until_their_agent_has_scored_again(
    central, sites
):
    agents, portals = sites
    campaign_id, campaign = central.create(
        site_share_cap=1.0, cycles=3, budget_labels=30, pool_timeout_seconds=600
    )
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    central.tick_until(in_phase("waiting", 2))
    install_and_offer(agents[0], campaign_id, campaign, 2, rows=20, seed=10)
    central.clock.offset += campaign.pool_timeout_seconds
    central.tick_until(in_phase("labeling", 2))
    granted = [open_grants(agent) for agent in agents]
    assert [len(grants) for grants in granted] == [10, 0]
    assert {grant.model_version for grant in granted[0]} == {2}
    report(portals[0], granted[0])
    run_cycle(central, sites, campaign_id, campaign, cycle=3)
    assert central.ask(verify)[0] == []


def test_with_nothing_else_on_offer_scores_of_the_other_kind_count():
    heads = [segment(version) for version in (1, 1, 2)]
    assert scored_alike(heads, {1}, 1) == (heads[:2], False)
    assert scored_alike(heads, {1}, 2) == (heads[2:], True)
    assert scored_alike(heads[:2], {1}, 2) == (heads[:2], False)
    # The only agent runs a canary that was rolled back, and never goes down again.
    assert scored_alike(heads[2:], {1}, 1) == (heads[2:], True)


def segment(version: int) -> SegmentRecord:
    """The head of a batch that a version scored."""
    values = dict.fromkeys((item.name for item in dataclasses.fields(SegmentRecord)), 0)
    return SegmentRecord(**values | {"model_version": version})


@pytest.mark.parametrize(
    ("evaluated", "reported", "phase"),
    [(0.04, 300, "hot"), (0.3, 20, "warm"), (-1.0, 20, "hot"), (-1.0, 0, "warm")],
    ids=["evaluation good", "evaluation bad", "only portals know", "nobody knows"],
)
def test_the_phase_follows_from_how_well_the_released_model_is_calibrated(
    central, sites, evaluated, reported, phase
):
    campaign_id, campaign = central.create(
        training={"calibration_error": evaluated}, budget_labels=40, cycle_budget_labels=20
    )
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    for portal in sites[1]:
        portal.candidates.ReportSite(
            candidate_pb2.ReportSiteRequest(
                request_id=uuid.uuid4().bytes,
                campaign_id=campaign_id,
                day=20_000,
                temperature_milli=1_000 if reported else 0,
                calibration_error_milli=reported,
            )
        )
    run_cycle(central, sites, campaign_id, campaign, cycle=2)
    assert central.ask(phase_of_cycle, campaign_id, 2).value == phase
    assert central.ask(verify)[0] == []


def test_samples_that_were_only_counted_are_explored_and_bought_by_the_ids_that_were_sent(
    central, sites
):
    agents, portals = sites
    campaign_id, campaign = central.create(merge_equal_rows=True, site_share_cap=0.5)
    run_cycle(central, sites, campaign_id, campaign, cycle=1)
    central.tick_until(in_phase("waiting", 2))
    for number, agent in enumerate(agents):
        told = agent.models.ListCampaigns(model_pb2.ListCampaignsRequest()).campaigns[0]
        assert told.equal_rows_max == 5
        columns = {
            name: bytes([1, 0][:width]) * 5
            for name, width in COLUMN_WIDTHS.items()
            if name != "candidate_ids"
        }
        install_and_offer(
            agent, campaign_id, campaign, 2, rows=5, seed=10 + number,
            further_counts=bytes([40, 40, 40, 40, 0]), **columns,
        )  # fmt: skip
    central.tick_until(in_phase("labeling", 2))
    granted = [open_grants(agent) for agent in agents]
    assert sum(len(grants) for grants in granted) == 10
    assert len({g.candidate_id for grants in granted for g in grants}) == 10
    assert not any(g.candidate_id.endswith(UNNAMED) for grants in granted for g in grants)
    for portal, grants in zip(portals, granted, strict=True):
        report(portal, grants)
    assert central.ask(verify)[0] == []

    def chances(office):
        grants = office.ledger.grants(campaign_id)
        return [
            g.terms.inclusion_trillionths for g in grants if g.terms.reason is GrantReason.EXPLORE
        ]

    # One explore label over two sites of 165 samples each.
    assert central.ask(chances) == [round(1e12 * 0.5 / 165)]
