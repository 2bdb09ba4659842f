"""What the operator sees: one status value, as JSON and as Prometheus metrics.

Only counts, names of sites and machines, and states stand in it; nothing of a site's data is known
here in the first place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.advice import stop_advice
from coordinator.agreement import changes_of, gain_of
from coordinator.core.campaign import Campaign
from coordinator.core.entries import GrantState
from coordinator.core.ledger import Account, CampaignBooks
from coordinator.core.records import (
    CampaignRecord,
    CounterRecord,
    CycleRecord,
    CycleResultRecord,
    InstallRecord,
    MachineRecord,
    ModelVersionRecord,
    PoolReportRecord,
    SiteReportRecord,
    TrainingRunRecord,
)
from coordinator.core.stability import Change
from coordinator.office import Office
from coordinator.pools import measure_progress
from coordinator.registry import agents_of, evaluation_of, rollout_of

MESSAGES_RECEIVED = "messages_received"
BYTES_RECEIVED = "bytes_received"


def status_of(office: Office) -> dict[str, Any]:
    """Returns the whole status as JSON-ready values; keys are documented in `docs/operator.md`."""
    campaigns = [_campaign(office, record) for record in office.store.find(CampaignRecord)]
    totals = [campaign["ledger"] for campaign in campaigns]
    return {
        "time": office.clock(),
        "ledger": {
            name: sum(total[name] for total in totals)
            for name in ("budget", "spent", "reserved", "returned")
        },
        "ledger_sequence": office.ledger.sequence,
        "campaigns": campaigns,
        "sites": sorted({m.site_id for m in office.store.find(MachineRecord)}),
        "machines": [_machine(office, m) for m in office.store.find(MachineRecord)],
        "received": {
            "messages": _counter(office, MESSAGES_RECEIVED),
            "bytes": _counter(office, BYTES_RECEIVED),
        },
    }


def _counter(office: Office, name: str) -> int:
    stored = office.store.get(CounterRecord, name)
    return (stored.total if stored else 0) + office.counted.get(name, 0)


def _machine(office: Office, machine: MachineRecord) -> dict[str, Any]:
    installs = office.store.find(
        InstallRecord, site_id=machine.site_id, role=machine.role, name=machine.name
    )
    return {
        "site": machine.site_id,
        "role": machine.role,
        "name": machine.name,
        "revoked": machine.revoked,
        "installed": {r.campaign_id.hex(): r.version for r in installs if r.installed},
    }


def _account(books: CampaignBooks | None, campaign: Campaign) -> dict[str, int]:
    total = books.total if books else Account()
    budget = books.funding.budget_labels if books else campaign.budget_labels
    return {
        "budget": budget,
        "spent": total.spent,
        "reserved": total.reserved,
        "returned": total.returned,
    }


def _campaign(office: Office, record: CampaignRecord) -> dict[str, Any]:
    campaign = office.campaign(record)
    key = record.campaign_id
    books = office.ledger.books(key) if office.ledger.knows(key) else None
    cycle = office.store.get(CycleRecord, key)
    run = office.store.get(TrainingRunRecord, key, cycle.run) if cycle else None
    rollout = rollout_of(office, campaign, key)
    account = _account(books, campaign)
    history = history_of(office, campaign, key)
    floors_met = floors_are_met(office, campaign, key)
    advice = stop_advice(history, floors_met=floors_met, least_gain_per_cost=campaign.price)
    return {
        "campaign_id": key.hex(),
        "name": record.name,
        "kind": campaign.kind,
        "state": record.state.value,
        "cycle": cycle.cycle if cycle else 0,
        "cycles": campaign.cycles,
        "phase": cycle.phase.value if cycle else "initial",
        "because": office.reasons.get(key, ""),
        "ledger": account,
        "labels": account["spent"],
        "written_off": books.written_off if books else 0,
        "grants": _grant_counts(office, key),
        "model_version": rollout.released_version,
        "canary_version": rollout.canary_version,
        "training": _training(run),
        "settings": campaign.passed_on,
        "sites": {site_id: _site(office, key, books, site_id) for site_id in campaign.sites},
        "agents": _agents(office, campaign, key),
        "history": history,
        "floors_met": floors_met,
        "price": campaign.price,
        "stop": campaign.stop,
        "stop_advice": list(advice.reasons),
    }


def floors_are_met(office: Office, campaign: Campaign, campaign_id: bytes) -> bool:
    """Whether every class has the labels that the campaign asks for."""
    if not campaign.class_floor_labels:
        return True
    grants = office.ledger.grants(campaign_id)
    reports = office.store.find(SiteReportRecord, campaign_id=campaign_id)
    progress = measure_progress(campaign, grants, reports, cells=np.zeros(0, dtype=np.int64))
    return bool((progress.class_labels >= campaign.class_floor_labels).all())


def _grant_counts(office: Office, campaign_id: bytes) -> dict[str, int]:
    counts = {state.value.lower(): 0 for state in GrantState}
    for grant in office.ledger.grants(campaign_id):
        counts[grant.state.value.lower()] += 1
    return counts


def _training(run: TrainingRunRecord | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "run": run.run,
        "state": run.state.value,
        "round": run.round,
        "rounds": run.rounds,
        "version": run.next_version,
        "error": run.error,
    }


def _site(
    office: Office, campaign_id: bytes, books: CampaignBooks | None, site_id: str
) -> dict[str, int]:
    account = books.site(site_id) if books else Account()
    report = office.store.get(SiteReportRecord, campaign_id, site_id)
    return {
        "spent": account.spent,
        "reserved": account.reserved,
        "returned": account.returned,
        "reported_labels": report.label_count if report else 0,
    }


def _agents(office: Office, campaign: Campaign, campaign_id: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for agent in agents_of(office, campaign):
        install = office.store.get(
            InstallRecord, campaign_id, agent.site_id, agent.role, agent.name
        )
        pool = office.store.get(PoolReportRecord, campaign_id, agent.site_id, agent.name)
        current = pool if pool and pool.generation == agent.generation else None
        rows.append(
            {
                "site": agent.site_id,
                "name": agent.name,
                "installed_version": install.version if install and install.installed else 0,
                "pool_version": current.model_version if current else 0,
                "pool_complete": bool(current and current.complete),
                "pool_count": _sum_of_counts(current.class_counts) if current else 0,
            }
        )
    return rows


def _sum_of_counts(raw: bytes) -> int:
    return sum(int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4))


def history_of(office: Office, campaign: Campaign, campaign_id: bytes) -> list[dict[str, Any]]:
    """Returns what each finished cycle brought, oldest first, as in the status."""
    changes = changes_of(office, campaign, campaign_id)
    rows = []
    for result in office.store.find(CycleResultRecord, campaign_id=campaign_id):
        row = _result(result)
        row["held_out_count"] = _held_out_count(office, campaign_id, result.model_version)
        change = changes.get(result.cycle)
        row["agreement"] = change.stability.agreement if change else None
        row["changed_ratio"] = change.stability.changed_ratio if change else None
        row["gain_interval"] = (
            list(gain_of(office, campaign_id, result.cycle, change)) if change else None
        )
        rows.append(row)
    return rows


def unlabelled_row(cycle: int, change: Change) -> dict[str, Any]:
    """Returns a row of the history for a version of which nothing but its change is known yet."""
    share = change.stability.changed_ratio
    return {
        "cycle": cycle,
        "labels": 0,
        "accuracy": None,
        "held_out_count": 0,
        "live_accuracy": None,
        "live_interval": None,
        "agreement": change.stability.agreement,
        "changed_ratio": share,
        "gain_interval": [-share, share],
    }


def _held_out_count(office: Office, campaign_id: bytes, version: int) -> int:
    evaluation = evaluation_of(office.store.get(ModelVersionRecord, campaign_id, version))
    return evaluation.example_count if evaluation else 0


def _result(result: CycleResultRecord) -> dict[str, Any]:
    return {
        "cycle": result.cycle,
        "labels": result.labels,
        "budget_spent": result.budget_spent,
        "accuracy": None if result.accuracy < 0 else result.accuracy,
        "macro_f1": None if result.macro_f1 < 0 else result.macro_f1,
        "model_version": result.model_version,
        "seconds": result.seconds,
        "live_accuracy": None if result.live_accuracy < 0 else result.live_accuracy,
        "live_interval": None if result.live_low < 0 else [result.live_low, result.live_high],
    }


class _StatusCollector(Collector):
    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> list[Metric]:
        labels = CounterMetricFamily(
            "perimeter_labels", "Labels by account", labels=["campaign", "account"]
        )
        grants = GaugeMetricFamily(
            "perimeter_grants", "Grants by state", labels=["campaign", "state"]
        )
        version = GaugeMetricFamily(
            "perimeter_model_version", "Released version", labels=["campaign"]
        )
        accuracy = GaugeMetricFamily(
            "perimeter_accuracy_ratio", "Federated test accuracy", labels=["campaign"]
        )
        for campaign in self._status["campaigns"]:
            name = campaign["name"]
            for account, count in campaign["ledger"].items():
                labels.add_metric([name, account], count)
            for state, count in campaign["grants"].items():
                grants.add_metric([name, state], count)
            version.add_metric([name], campaign["model_version"])
            measured = [r["accuracy"] for r in campaign["history"] if r["accuracy"] is not None]
            if measured:
                accuracy.add_metric([name], measured[-1])
        return [labels, grants, version, accuracy, *self._received()]

    def _received(self) -> list[Metric]:
        received = self._status["received"]
        messages = CounterMetricFamily("perimeter_messages_received", "Messages from sites")
        messages.add_metric([], received["messages"])
        size = CounterMetricFamily("perimeter_bytes_received", "Bytes of messages from sites")
        size.add_metric([], received["bytes"])
        return [messages, size]


def metrics_text(status: dict[str, Any]) -> bytes:
    """Returns the Prometheus text of a status from `status_of`."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    return generate_latest(registry)
