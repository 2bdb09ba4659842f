"""Reads how far the federation is, and what it came to."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulations.demo.config_files import LOOPBACK
from simulations.demo.outcome import (
    CampaignOutcome,
    CycleOutcome,
    EgressOutcome,
    LedgerOutcome,
    SiteOutcome,
    TaintOutcome,
)
from simulations.demo.plan import CampaignPlan, DemoPlan
from simulations.demo.tickets import MARKER_ALPHABET

Status = Mapping[str, Any]
COMPLETED = "completed"
_MARKER = re.compile(rb"mk[%s]{10}" % MARKER_ALPHABET.encode(), re.IGNORECASE)


def read_status(metrics_port: int) -> Status | None:
    """Returns the coordinator's status, None while it cannot be reached."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{metrics_port}/status", timeout=10) as page:
            status: Status = json.load(page)
            return status
    except (OSError, ValueError):
        return None


def save_metrics(metrics_port: int, folder: Path, name: str) -> None:
    """Keeps a copy of the coordinator's metrics page; none while it cannot be reached."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://{LOOPBACK}:{metrics_port}/metrics", timeout=30) as page,
    ):
        (folder / f"{name}.prom").write_bytes(page.read())


def is_done(status: Status) -> bool:
    """Tells whether every campaign is complete and every agent runs its last version."""
    return all(
        campaign["phase"] == COMPLETED
        and all(a["installed_version"] == campaign["model_version"] for a in campaign["agents"])
        for campaign in status["campaigns"]
    )


def campaign_outcome(
    plan: CampaignPlan, status: Status, *, raw_bytes: int, stored: Mapping[int, Mapping[str, int]]
) -> CampaignOutcome:
    """Returns what a campaign came to.

    Args:
        plan: The campaign.
        status: Its part of the coordinator's status.
        raw_bytes: Size of its pool.
        stored: Cycle to site to expert labels that the site's store held at the cycle's end.
    """
    source = plan.source
    pool = [sample for sample in source.samples if sample.device]
    cycles = [
        CycleOutcome(
            cycle=row["cycle"],
            labels=sum(stored.get(row["cycle"], {}).values()),
            budget_spent=row["budget_spent"],
            accuracy=row["accuracy"] or 0.0,
            macro_f1=row["macro_f1"] or 0.0,
            model_version=row["model_version"],
            seconds=row["seconds"],
            labels_by_site=stored.get(row["cycle"], {}),
        )
        for row in status["history"]
    ]
    return CampaignOutcome(
        name=source.name,
        kind=source.kind,
        class_count=len(source.classes),
        pool_count=len(pool),
        test_count=len(source.samples) - len(pool),
        raw_bytes=raw_bytes,
        ledger=LedgerOutcome(**status["ledger"]),
        cycles=tuple(cycles),
        notes=source.notes,
    )


def labels_in_stores(plan: DemoPlan, campaign: Status) -> dict[str, int]:
    """Counts the labels that experts gave under grants, in each site's own store.

    Args:
        plan: The demo.
        campaign: One campaign's part of the coordinator's status.

    Returns:
        Site to count.
    """
    from review_portal.label_store import LabelStore

    counts: dict[str, int] = {}
    for site in campaign["sites"]:
        with LabelStore.open(plan.layout.site(site).portal, read_only=True) as store:
            counts[site] = store.expert_label_count(bytes.fromhex(campaign["campaign_id"]))
    return counts


def site_outcomes(
    plan: DemoPlan, status: Status, labels: Mapping[str, Mapping[str, int]]
) -> list[SiteOutcome]:
    """Returns what each site came to."""
    outcomes = []
    for site in plan.sites:
        held = [c.source for c in plan.campaigns if site in c.source.sites]
        counts = {source.name: source.class_counts(site) for source in held}
        versions: dict[str, dict[str, int]] = {device: {} for device in plan.devices}
        for campaign in status["campaigns"]:
            for agent in campaign["agents"]:
                if agent["site"] == site:
                    versions[agent["name"]][campaign["name"]] = agent["installed_version"]
        outcomes.append(
            SiteOutcome(
                site=site,
                labels=labels[site],
                pool={name: sum(classes.values()) for name, classes in counts.items()},
                class_counts=counts,
                model_versions=versions,
            )
        )
    return outcomes


def egress_outcome(plan: DemoPlan, status: Status) -> EgressOutcome:
    """Returns what the coordinator received; the devices' own ledgers tell the kinds."""
    from edge_agent.egress_ledger import records

    kinds: dict[str, Counter[str]] = {}
    for site in plan.sites:
        for device in plan.devices:
            for record in records(plan.layout.site(site).agent(device) / "egress"):
                name = "devices: " + record.method.rpartition("/")[2]
                kinds.setdefault(name, Counter()).update(messages=1, bytes=record.size_bytes)
    received = status["received"]
    known = sum(kinds.values(), Counter[str]())
    rest = {name: received[name] - known[name] for name in ("messages", "bytes")}
    if min(rest.values()) > 0:
        kinds["portals and nodes: outcomes, totals, polls"] = Counter(rest)
    by_kind = {name: dict(kinds[name]) for name in sorted(kinds)}
    return EgressOutcome(received["messages"], received["bytes"], by_kind)


def search_markers(folder: Path, markers: Sequence[str]) -> TaintOutcome:
    """Searches every byte of every file under a folder for the planted markers.

    A marker counts as found in any letter case; files are read whole, links are not followed.
    """
    planted = {marker.encode().lower() for marker in markers}
    found: set[bytes] = set()
    files = size = 0
    for path in _files(folder):
        content = path.read_bytes()
        files += 1
        size += len(content)
        found |= {hit.lower() for hit in _MARKER.findall(content)} & planted
    return TaintOutcome(len(planted), len(found), files, size)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
