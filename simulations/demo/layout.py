"""Folders of the demo: `central/` for the coordinator's side, `sites/<site>/` for one site."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SiteLayout:
    """Folders of one site; nothing of a site lies elsewhere."""

    root: Path

    def agent(self, device: str) -> Path:
        """State folder of a device's agent."""
        return self.root / device / "agent"

    def source(self, device: str, campaign: str) -> Path:
        """Folder in which a device finds the samples of a campaign."""
        return self.root / device / "sources" / campaign

    @property
    def portal(self) -> Path:
        """State folder of the portal."""
        return self.root / "portal"

    @property
    def node(self) -> Path:
        """State folder of the federation node and the trainer."""
        return self.root / "node"

    @property
    def expert(self) -> Path:
        """What the simulated expert knows: the true classes of this site's own samples."""
        return self.root / "expert"

    @property
    def logs(self) -> Path:
        """Logs of the site's processes."""
        return self.root / "logs"


@dataclass(frozen=True)
class Layout:
    """All folders of one demo under one root."""

    work: Path

    @property
    def central(self) -> Path:
        """Every byte that the coordinator's side writes."""
        return self.work / "central"

    @property
    def coordinator(self) -> Path:
        """State folder of the coordinator."""
        return self.central / "coordinator"

    @property
    def federation(self) -> Path:
        """State folder of SuperLink, superexec and fleet proxy."""
        return self.central / "federation"

    @property
    def central_logs(self) -> Path:
        """Logs of the coordinator's side."""
        return self.central / "logs"

    @property
    def metrics(self) -> Path:
        """Snapshots of the coordinator's metrics page."""
        return self.central / "metrics"

    @property
    def sites(self) -> Path:
        """Parent of the sites' folders."""
        return self.work / "sites"

    def site(self, site: str) -> SiteLayout:
        """Returns the folders of one site."""
        return SiteLayout(self.sites / site)
