"""What a demo run came to: plain values, and their one JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REPORT_VERSION = 1


@dataclass(frozen=True)
class CycleOutcome:
    """One cycle of one campaign: score, allocate, grant, mask, label, train, sign, install.

    Attributes:
        cycle: From 1.
        labels: Labels in the portals' stores at its end, held-out sets not counted.
        budget_spent: What the ledger had spent at its end.
        accuracy: Share right on the sites' held-out sets, in [0, 1].
        macro_f1: Unweighted mean of the classes' F1, in [0, 1].
        model_version: Version that the cycle ended with.
        seconds: Wall time of the cycle.
        labels_by_site: Labels at its end, by site.
    """

    cycle: int
    labels: int
    budget_spent: int
    accuracy: float
    macro_f1: float
    model_version: int
    seconds: float
    labels_by_site: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LedgerOutcome:
    """The budget of one campaign: what it was, and where it went."""

    budget: int
    spent: int
    reserved: int
    returned: int

    def __add__(self, other: LedgerOutcome) -> LedgerOutcome:
        return LedgerOutcome(
            self.budget + other.budget,
            self.spent + other.spent,
            self.reserved + other.reserved,
            self.returned + other.returned,
        )


@dataclass(frozen=True)
class CampaignOutcome:
    """All of one campaign.

    Attributes:
        name: Campaign slug.
        kind: text or image.
        class_count: Classes in the label schema.
        pool_count: Samples in the devices' pools.
        test_count: Samples in the sites' held-out sets.
        raw_bytes: Size of the samples on the devices, which stayed there.
        ledger: Its budget.
        cycles: In order.
        notes: Sentences that a reader must know.
    """

    name: str
    kind: str
    class_count: int
    pool_count: int
    test_count: int
    raw_bytes: int
    ledger: LedgerOutcome
    cycles: tuple[CycleOutcome, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SiteOutcome:
    """One site at the end.

    Attributes:
        site: Slug.
        labels: Labels in its store by campaign.
        pool: Pool samples by campaign.
        class_counts: Pool samples by campaign and class.
        model_versions: Installed version by device and campaign.
    """

    site: str
    labels: Mapping[str, int]
    pool: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]
    model_versions: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class EgressOutcome:
    """What left the sites towards the coordinator: messages and their bytes, by kind of message."""

    messages: int
    bytes: int
    by_kind: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaintOutcome:
    """Marker strings planted in the raw texts, and what a search of every central byte found."""

    planted: int
    found: int
    files_searched: int
    bytes_searched: int


@dataclass(frozen=True)
class DemoOutcome:
    """All of a demo run."""

    campaigns: Sequence[CampaignOutcome]
    sites: Sequence[SiteOutcome]
    egress: EgressOutcome
    taint: TaintOutcome
    seconds: float
    started_on: str
    setup_seconds: float = 0.0
    process_count: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)


def report_mapping(outcome: DemoOutcome) -> dict[str, Any]:
    """Returns the JSON form of the report.

    >>> ledger = LedgerOutcome(10, 2, 0, 1)
    >>> campaign = CampaignOutcome("digits", "image", 10, 5, 2, 320, ledger, ())
    >>> empty = DemoOutcome(
    ...     [campaign], [], EgressOutcome(0, 0), TaintOutcome(0, 0, 0, 0), 1.0, "2026-01-01"
    ... )
    >>> report_mapping(empty)["ledger"]["spent"]
    2
    """
    total = LedgerOutcome(0, 0, 0, 0)
    for campaign in outcome.campaigns:
        total += campaign.ledger
    return {
        "report_version": REPORT_VERSION,
        "started_on": outcome.started_on,
        "seconds": round(outcome.seconds, 1),
        "setup_seconds": round(outcome.setup_seconds, 1),
        "process_count": outcome.process_count,
        "restarts": dict(outcome.restarts),
        "campaigns": {campaign.name: _campaign(campaign) for campaign in outcome.campaigns},
        "sites": {site.site: _site(site) for site in outcome.sites},
        "ledger": {
            **vars(total),
            "campaigns": {
                campaign.name: dict(vars(campaign.ledger)) for campaign in outcome.campaigns
            },
        },
        "egress": {
            "messages": outcome.egress.messages,
            "bytes": outcome.egress.bytes,
            "by_kind": {name: dict(kind) for name, kind in outcome.egress.by_kind.items()},
            "raw_bytes_kept": sum(campaign.raw_bytes for campaign in outcome.campaigns),
        },
        "markers": dict(vars(outcome.taint)),
    }


def _campaign(campaign: CampaignOutcome) -> dict[str, Any]:
    return {
        "kind": campaign.kind,
        "class_count": campaign.class_count,
        "pool_count": campaign.pool_count,
        "test_count": campaign.test_count,
        "raw_bytes": campaign.raw_bytes,
        "notes": list(campaign.notes),
        "cycles": [_cycle(cycle) for cycle in campaign.cycles],
    }


def _cycle(cycle: CycleOutcome) -> dict[str, Any]:
    return {
        "cycle": cycle.cycle,
        "labels": cycle.labels,
        "budget_spent": cycle.budget_spent,
        "accuracy": round(cycle.accuracy, 4),
        "macro_f1": round(cycle.macro_f1, 4),
        "model_version": cycle.model_version,
        "seconds": round(cycle.seconds, 1),
        "labels_by_site": dict(cycle.labels_by_site),
    }


def _site(site: SiteOutcome) -> dict[str, Any]:
    return {
        "labels": dict(site.labels),
        "pool": dict(site.pool),
        "class_counts": {name: dict(counts) for name, counts in site.class_counts.items()},
        "devices": {
            device: {"model_versions": dict(versions)}
            for device, versions in site.model_versions.items()
        },
    }
