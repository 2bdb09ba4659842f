"""Makes the centre and the sites by the commands that a person would type."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from simulations.demo.config_files import (
    LOOPBACK,
    agent_file,
    campaign_file,
    coordinator_file,
    federation_files,
    node_files,
    portal_file,
)
from simulations.demo.expert import PASSWORD_FILE, USER_NAME
from simulations.demo.materialise import held_out_file, write_campaign
from simulations.demo.plan import CampaignPlan, DemoPlan
from simulations.demo.supervisor import ProcessSpec, Supervisor, run_command, wait_for_port

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
COMMANDS_AT_ONCE = 3


class SetUp:
    """One demo's centre and sites; `centre` first, then `sites`."""

    def __init__(self, plan: DemoPlan, supervisor: Supervisor, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._tell = tell
        self._coordinator = coordinator_file(plan)

    def centre(self) -> None:
        """Writes the samples; makes and starts coordinator, SuperLink and proxy."""
        plan = self._plan
        self._tell("making the coordinator, its keys and the campaigns")
        for campaign in plan.campaigns:
            write_campaign(campaign.source, plan.layout)
        config = ("--config", str(self._coordinator))
        self._run("central", "coordinator", "init", *config)
        for campaign in plan.campaigns:
            path = str(campaign_file(plan, campaign))
            self._run("central", "coordinator", "campaign", "create", path, *config)
        files = federation_files(plan)
        self._start("central", "coordinator", "coordinator", "serve", *config)
        self._start("central", "superlink", "federation", "superlink", str(files["superlink"]))
        self._start("central", "proxy", "federation", "proxy", str(files["proxy"]))
        for port in (plan.ports.main, plan.ports.enroll, plan.ports.metrics):
            wait_for_port(port, supervisor=self._supervisor)

    def sites(self) -> None:
        """Enrols every machine of every site with its own token and starts all processes."""
        with ThreadPoolExecutor(COMMANDS_AT_ONCE) as pool:
            list(pool.map(self._make_site, self._plan.sites))
        wait_for_port(self._plan.ports.proxy, supervisor=self._supervisor)
        for site in self._plan.sites:
            self._start_site(site)

    def _make_site(self, site: str) -> None:
        self._tell(f"enrolling the machines of {site}")
        folder = self._plan.layout.site(site)
        portal = ("--config", str(portal_file(self._plan, site)))
        token = self._token(site, "portal", "portal", "--host", LOOPBACK)
        self._run(site, "review_portal", "enroll", *portal, "-", stdin_text=token + "\n")
        self._run(site, "review_portal", "init", *portal)
        self._add_expert(site, portal)
        for campaign in self._plan.campaigns:
            if site in campaign.source.sites:
                self._import_held_out(site, campaign, portal)
        node_files(self._plan, site)
        identity = ("--identity", str(folder.node / "identity"))
        self._run(
            site, "federation", "node", "enroll", self._token(site, "node", "node"), *identity
        )
        for device in self._plan.devices:
            config = agent_file(self._plan, site, device)
            token = self._token(site, "agent", device)
            self._run(
                site, "edge_agent", "enroll", "--config", str(config), "-", stdin_text=token + "\n"
            )

    def _add_expert(self, site: str, portal: tuple[str, ...]) -> None:
        path = self._plan.layout.site(site).expert / PASSWORD_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(15) + "\n")
        secret = ("--password-file", str(path))
        self._run(site, "review_portal", "user", *portal, *secret, "add", USER_NAME)

    def _import_held_out(self, site: str, campaign: CampaignPlan, portal: tuple[str, ...]) -> None:
        folder = self._plan.layout.site(site)
        path = held_out_file(folder, campaign.source.name)
        if campaign.source.kind == "text":
            # The shared view is the masked one, so the test set is masked as the pool is.
            path = self._masked(site, path)
        chosen = ("--campaign", campaign.source.name, "--split", "test", str(path))
        self._run(site, "review_portal", "import", *portal, *chosen)

    def _masked(self, site: str, path: Path) -> Path:
        answers, target = path.with_suffix(".masked"), path.with_suffix(".masked.jsonl")
        self._run(site, "edge_agent", "mask", str(path), "--out", str(answers))
        labels = {row["id"]: row["label"] for row in map(json.loads, path.open(encoding="utf-8"))}
        with target.open("w", encoding="utf-8") as lines:
            for answer in map(json.loads, answers.open(encoding="utf-8")):
                if answer["state"] == "masked":
                    row = {
                        "id": answer["id"],
                        "text": answer["masked"],
                        "label": labels[answer["id"]],
                    }
                    lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        return target

    def _token(self, site: str, role: str, name: str, *more: str) -> str:
        config = ("--config", str(self._coordinator))
        named = ("--site", site, "--role", role, "--name", name, *more)
        return self._run("central", "coordinator", "join-token", *config, *named).strip()

    def _start_site(self, site: str) -> None:
        plan, folder = self._plan, self._plan.layout.site(site)
        root = folder.root
        self._start(site, "portal", "review_portal", "serve", "--config", str(root / "portal.toml"))
        self._start(site, "trainer", "federation", "trainer", str(root / "trainer.toml"))
        self._start(site, "node", "federation", "supernode", str(root / "node.toml"))
        for device in plan.devices:
            config = str(root / device / "agent.toml")
            self._start(site, device, "edge_agent", "run", "--config", config)
        if not plan.human:
            address = f"http://{LOOPBACK}:{plan.ports.sites[site].web}"
            known = ("--portal", address, "--knowledge", str(folder.expert))
            chance = ("--accuracy", str(plan.expert_accuracy), "--seed", str(plan.seed))
            wait_for_port(plan.ports.sites[site].web, supervisor=self._supervisor)
            self._start(site, "expert", "simulations.demo.expert", *known, *chance)

    def _logs(self, place: str) -> Path:
        layout = self._plan.layout
        return layout.central_logs if place == "central" else layout.site(place).logs

    def _run(self, place: str, package: str, *arguments: str, stdin_text: str = "") -> str:
        command = (sys.executable, "-m", package, *arguments)
        return run_command(
            command,
            log=self._logs(place) / "set-up.log",
            timeout_seconds=300,
            stdin_text=stdin_text,
        )

    def _start(self, place: str, name: str, package: str, *arguments: str) -> None:
        full = name if place == "central" else f"{place}/{name}"
        command = (sys.executable, "-m", package, *arguments)
        log = self._logs(place) / f"{name}.log"
        self._supervisor.start(ProcessSpec(full, command, log, QUIET))
