"""The demo from first to last: set up, watch, report, leave nothing behind."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulations.demo.config_files import LOOPBACK
from simulations.demo.display import Display
from simulations.demo.errors import DemoTimeout, ProcessEnded, WorkFolderTaken
from simulations.demo.expert import PASSWORD_FILE, USER_NAME
from simulations.demo.outcome import DemoOutcome, report_mapping
from simulations.demo.plan import DemoPlan
from simulations.demo.set_up import SetUp
from simulations.demo.supervisor import Supervisor
from simulations.demo.watch import (
    Status,
    campaign_outcome,
    egress_outcome,
    is_done,
    labels_in_stores,
    read_status,
    save_metrics,
    search_markers,
    site_outcomes,
)

MARK = ".perimeter-demo"
POLL_SECONDS = 0.7
RESTARTS_MAX = 5
CLOSING_SECONDS = 20.0


def claim_folder(work: Path) -> None:
    """Empties the folder of an earlier demo, or makes a new one.

    Raises:
        WorkFolderTaken: The folder holds something that no demo made.
    """
    if work.exists() and any(work.iterdir()):
        if not (work / MARK).exists():
            raise WorkFolderTaken(
                f"{work} holds files that no demo made; choose another folder with WORK="
            )
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / MARK).write_text("made by perimeter-demo, which deletes this folder on its next run\n")


@dataclass
class DemoRun:
    """One run of the demo.

    Attributes:
        plan: What to do.
        display: Where progress is shown.
        time_limit_seconds: After this the run is given up; 0 for no limit.
        on_status: Called with each status; tests kill processes there.
    """

    plan: DemoPlan
    display: Display
    time_limit_seconds: float = 1800.0
    on_status: Callable[[Status, Supervisor], None] = lambda _status, _supervisor: None
    _restarts: Counter[str] = field(default_factory=Counter)
    _stored: dict[str, dict[int, dict[str, int]]] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Runs everything and returns the report.

        Raises:
            DemoError: Something could not be set up, or did not happen in time.
        """
        started, started_on = time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        claim_folder(self.plan.layout.work)
        with Supervisor() as supervisor:
            set_up = SetUp(self.plan, supervisor, self.display.tell)
            set_up.centre()
            set_up.sites()
            set_up_seconds = time.monotonic() - started
            process_count = len(supervisor.names)
            if self.plan.human:
                self._invite()
            status = self._watch(supervisor)
            save_metrics(self.plan.ports.metrics, self.plan.layout.metrics, "final")
            self.display.tell("stopping all processes")
        return report_mapping(
            self._outcome(
                status,
                seconds=time.monotonic() - started,
                setup_seconds=set_up_seconds,
                started_on=started_on,
                process_count=process_count,
            )
        )

    def _invite(self) -> None:
        for site in self.plan.sites:
            secret = self.plan.layout.site(site).expert / PASSWORD_FILE
            address = f"http://{LOOPBACK}:{self.plan.ports.sites[site].web}"
            self.display.keep(
                f"{site}: open {address} and log in as {USER_NAME!r} "
                f"with {secret.read_text().strip()}"
            )

    def _watch(self, supervisor: Supervisor) -> Status:
        deadline = time.monotonic() + self.time_limit_seconds
        limited = self.time_limit_seconds > 0 and not self.plan.human
        while True:
            self._revive(supervisor)
            status = read_status(self.plan.ports.metrics)
            if status is not None:
                self.display.show(status)
                self.on_status(status, supervisor)
                self._keep_counts(status)
                if is_done(status):
                    return status
            if limited and time.monotonic() > deadline:
                raise DemoTimeout(
                    f"the demo did not finish in {self.time_limit_seconds:.0f} s; "
                    f"the logs are under {self.plan.layout.work}"
                )
            time.sleep(POLL_SECONDS)

    def _keep_counts(self, status: Status) -> None:
        """Counts the stores' labels once at the end of each cycle, before the next one's come."""
        for campaign in status["campaigns"]:
            stored = self._stored.setdefault(campaign["name"], {})
            last = max((row["cycle"] for row in campaign["history"]), default=0)
            if last and last not in stored:
                stored[last] = labels_in_stores(self.plan, campaign)
                name = f"{campaign['name']}-cycle-{last}"
                save_metrics(self.plan.ports.metrics, self.plan.layout.metrics, name)

    def _revive(self, supervisor: Supervisor) -> None:
        """Starts ended processes again, as a service manager would."""
        for name in supervisor.names:
            if supervisor.alive(name):
                continue
            self._restarts[name] += 1
            if self._restarts[name] > RESTARTS_MAX:
                supervisor.check()
                raise ProcessEnded(f"{name} ended {self._restarts[name]} times")
            supervisor.restart(name)

    def _outcome(self, status: Status, **times: Any) -> DemoOutcome:
        plan = self.plan
        by_name = {campaign["name"]: campaign for campaign in status["campaigns"]}
        labels: dict[str, dict[str, int]] = {site: {} for site in plan.sites}
        for name, campaign in by_name.items():
            # The last cycle's count is taken again, now that every process has ended.
            stored = labels_in_stores(plan, campaign)
            self._stored[name][max(self._stored[name], default=0)] = stored
            for site, count in stored.items():
                labels[site][name] = count
        campaigns = [
            campaign_outcome(
                campaign,
                by_name[campaign.source.name],
                raw_bytes=plan.raw_bytes[campaign.source.name],
                stored=self._stored[campaign.source.name],
            )
            for campaign in plan.campaigns
        ]
        return DemoOutcome(
            campaigns=campaigns,
            sites=site_outcomes(plan, status, labels),
            egress=egress_outcome(plan, status),
            taint=search_markers(plan.layout.central, plan.markers),
            restarts=dict(self._restarts),
            **times,
        )
