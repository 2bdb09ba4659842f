"""What a demo will do: campaigns, budgets, sites, addresses. Decided once, before any process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulations.demo.layout import Layout
from simulations.demo.samples import CampaignSource, device_names
from simulations.demo.supervisor import free_ports

SITE_NAMES = ("alder", "birch", "cedar")
MARKER_COUNT = 200


@dataclass(frozen=True)
class CampaignPlan:
    """One campaign and its money.

    Attributes:
        source: Samples and classes.
        cycle_budget_labels: Labels a cycle may buy.
        cycles: Number of cycles.
        buckets: text: rows of the n-gram table.
    """

    source: CampaignSource
    cycle_budget_labels: int
    cycles: int
    buckets: int = 4096

    @property
    def budget_labels(self) -> int:
        """Labels in all."""
        return self.cycle_budget_labels * self.cycles


@dataclass(frozen=True)
class SitePorts:
    """Loopback ports of one site's portal."""

    web: int
    intake: int


@dataclass(frozen=True)
class Ports:
    """All loopback ports of the demo."""

    main: int
    enroll: int
    metrics: int
    superlink: int
    proxy: int
    sites: dict[str, SitePorts]


@dataclass(frozen=True)
class DemoPlan:
    """Everything that is decided before the first process starts.

    Attributes:
        layout: Folders.
        campaigns: What is labeled.
        ports: Addresses.
        sites: Site slugs in order.
        devices: Device names, the same at each site.
        human: Whether a person labels.
        expert_accuracy: Share of right answers of the simulated experts.
        markers: Strings planted in texts.
        seed: Seed of every draw.
    """

    layout: Layout
    campaigns: tuple[CampaignPlan, ...]
    ports: Ports
    sites: tuple[str, ...]
    devices: tuple[str, ...]
    human: bool = False
    expert_accuracy: float = 1.0
    markers: tuple[str, ...] = field(default=())
    seed: int = 7

    @property
    def raw_bytes(self) -> dict[str, int]:
        """Size of each campaign's pool in bytes."""
        return {c.source.name: _raw_bytes(c.source) for c in self.campaigns}


def _raw_bytes(source: CampaignSource) -> int:
    pool = (sample.content for sample in source.samples if sample.device)
    return sum(len(c.encode()) if isinstance(c, str) else c.nbytes for c in pool)


def make_plan(
    work: Path, campaigns: Sequence[CampaignPlan], *, markers: Sequence[str] = (), human: bool
) -> DemoPlan:
    """Chooses free ports and puts the plan together."""
    sites = tuple(sorted({site for c in campaigns for site in c.source.sites}))
    ports = free_ports(5 + 2 * len(sites))
    pairs = {site: SitePorts(*ports[5 + 2 * i : 7 + 2 * i]) for i, site in enumerate(sites)}
    return DemoPlan(
        layout=Layout(work.resolve()),
        campaigns=tuple(campaigns),
        ports=Ports(ports[0], ports[1], ports[2], ports[3], ports[4], sites=pairs),
        sites=sites,
        devices=device_names(),
        human=human,
        markers=tuple(markers),
    )
