"""A whole federation of real processes on loopback, with a capture relay on every wire that leaves.

Each process is started by its own command. Two sites, one device each; coordinator, SuperLink and
fleet proxy as the centre. The sites know nothing but the relays' addresses.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from simulations.demo.supervisor import (
    ProcessSpec,
    Supervisor,
    free_ports,
    log_tail,
    run_command,
    wait_for_port,
)
from tests.journey.taint.capture import CaptureRelay, KeyPair, Wire, issue_server_pair
from tests.journey.taint.planting import CLASSES, Planted

SITES = ("clinic-a", "clinic-b")
CAMPAIGN = "tickets"
PASSWORD = "a long passphrase for taint tests 41"
ROOT = Path(__file__).resolve().parents[3]
INJECTED = Path(__file__).with_name("injected")


@dataclass
class SiteUnderTest:
    """Folders, ports and planted secrets of a site."""

    name: str
    root: Path
    planted: Planted
    web_port: int
    intake_port: int
    relays: dict[str, CaptureRelay] = field(default_factory=dict)

    @property
    def web(self) -> str:
        """Address of the portal's pages."""
        return f"http://127.0.0.1:{self.web_port}"


class FederationUnderTest:
    """Builds, starts and watches everything.

    Args:
        folder: Gets `central/`, `sites/`, `logs/` and `records/`; keep its path short.
        planted: What each site holds; its samples must lie in `sites/<name>/samples`.
        patches: Faults and leaks to switch on, by name, each with its secret; none for the real
            system.
    """

    def __init__(
        self, folder: Path, planted: Mapping[str, Planted], patches: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.central = folder, folder / "central"
        self.records, self.logs = folder / "records", folder / "logs"
        self.supervisor = Supervisor()
        ports = free_ports(5 + 2 * len(SITES))
        self.main, self.enroll, self.metrics, self.superlink, self.proxy = ports[:5]
        self.sites = {
            name: SiteUnderTest(
                name, folder / "sites" / name, planted[name], ports[5 + 2 * n], ports[6 + 2 * n]
            )
            for n, name in enumerate(SITES)
        }
        self.relays: list[CaptureRelay] = []
        self._environment = {
            "PYTHONPATH": f"{INJECTED}{os.pathsep}{ROOT}",
            "PYTHONFAULTHANDLER": "1",
            "GRPC_VERBOSITY": "DEBUG",
            "PERIMETER_TAINT_CALLS": str(folder / "calls"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        if patches:
            described = folder / "patches.json"
            described.parent.mkdir(parents=True, exist_ok=True)
            described.write_text(json.dumps(patches))
            self._environment["PERIMETER_TAINT_PATCHES"] = str(described)

    # --- starting ---

    def start(self) -> None:
        """Starts the centre, enrols and starts the sites."""
        self.supervisor.__enter__()
        self._make_centre()
        for site in self.sites.values():
            self._make_site(site)
        for site in self.sites.values():
            self._start_site(site)

    def halt(self) -> None:
        """Ends all processes, so that nothing changes any more while it is searched."""
        self.supervisor.stop_all()

    def stop(self) -> None:
        """Ends all processes and relays."""
        self.supervisor.__exit__(None, None, None)
        for relay in self.relays:
            relay.close()

    def _command(self, package: str, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", package, *arguments)

    def _run(self, package: str, *arguments: str, stdin_text: str = "", **more: str) -> str:
        settings = {**self._environment, **more}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            log = self.logs / "setup.log"
            return run_command(
                self._command(package, *arguments),
                log=log,
                timeout_seconds=600,
                stdin_text=stdin_text,
            )
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def _spawn(self, name: str, package: str, *arguments: str, site: str = "") -> None:
        place = self.folder / "sites" / site if site else self.central
        log = place / "logs" / f"{name}.log"
        spec = ProcessSpec(name, self._command(package, *arguments), log, self._environment)
        self.supervisor.start(spec)

    def _make_centre(self) -> None:
        self.central.mkdir(parents=True)
        config = self.folder / "coordinator.toml"
        federation = json.dumps([sys.executable, "-m", "federation"])
        config.write_text(
            f'folder = "{self.central / "state"}"\nlisten_address = "127.0.0.1:{self.main}"\n'
            f'enroll_address = "127.0.0.1:{self.enroll}"\nlog_level = "debug"\n'
            f'metrics_address = "127.0.0.1:{self.metrics}"\nfederation_command = {federation}\n'
            f'superlink_address = "127.0.0.1:{self.superlink}"\n'
        )
        self._run("coordinator", "init", "--config", str(config))
        self._run(
            "coordinator", "campaign", "create", str(self._campaign_file()), "--config", str(config)
        )
        identity = self.central / "state" / "identity"
        nodes = self.central / "state" / "nodes"
        nodes.mkdir(exist_ok=True)
        common = (
            f'certificate = "{identity}/server.pem"\nprivate_key = "{identity}/server.key"\n'
            f'authority = "{identity}/ca.pem"\n'
        )
        (self.folder / "superlink.toml").write_text(
            f'work = "{self.central / "flower"}"\naddress = "127.0.0.1:{self.superlink}"\n'
            f'nodes = "{nodes}"\n{common}'
        )
        (self.folder / "proxy.toml").write_text(
            f'address = "127.0.0.1:{self.proxy}"\n'
            f'superlink = "127.0.0.1:{self.superlink}"\n{common}'
        )
        self._spawn("coordinator", "coordinator", "serve", "--config", str(config))
        self._spawn("superlink", "federation", "superlink", str(self.folder / "superlink.toml"))
        self._spawn("proxy", "federation", "proxy", str(self.folder / "proxy.toml"))
        for port in (self.main, self.enroll, self.metrics, self.proxy):
            wait_for_port(port, supervisor=self.supervisor, timeout_seconds=600)
        self._shown = issue_server_pair(
            KeyPair(identity / "ca.pem", identity / "ca.key"), self.folder / "relay"
        )

    def _campaign_file(self) -> Path:
        path = self.folder / "campaign.toml"
        classes, sites = json.dumps(CLASSES), json.dumps(SITES)
        path.write_text(
            f'name = "{CAMPAIGN}"\nkind = "text"\nclasses = {classes}\nsites = {sites}\n'
            "budget_labels = 48\ncycle_budget_labels = 24\ncycles = 2\nmin_new_labels = 6\n"
            'grant_lifetime = "15m"\npool_timeout = "4m"\nlabel_timeout = "4m"\n'
            "[features]\nbuckets = 512\ntokens_max = 64\n"
            "[training]\nrounds = 2\nround_timeout_seconds = 60\nnode_wait_seconds = 60\n"
        )
        return path

    # --- sites ---

    def _relay(
        self, name: str, port: int, identity: Path | None = None, alpn: str = "h2"
    ) -> CaptureRelay:
        def pair() -> KeyPair | None:
            if identity is None or not (identity / "cert.pem").exists():
                return None
            return KeyPair(identity / "cert.pem", identity / "key.pem")

        authority = self.central / "state" / "identity" / "ca.pem"
        wire = Wire(
            name, ("127.0.0.1", port), shown=self._shown, trusted=authority, identity=pair,
            protocols=(alpn,),
        )  # fmt: skip
        relay = CaptureRelay(wire, self.records)
        self.relays.append(relay)
        return relay

    def _token(self, site: SiteUnderTest, role: str, relay: CaptureRelay) -> str:
        enroll = site.relays["enroll"]
        hosts = ("--host", "127.0.0.1") if role == "portal" else ()
        return self._run(
            "coordinator", "join-token", "--config", str(self.folder / "coordinator.toml"),
            "--site", site.name, "--role", role, "--name", f"{role}-1", *hosts,
            PERIMETER_COORDINATOR_PUBLIC_ADDRESS=relay.address,
            PERIMETER_COORDINATOR_PUBLIC_ENROLL_ADDRESS=enroll.address,
        ).strip()  # fmt: skip

    def _make_site(self, site: SiteUnderTest) -> None:
        root = site.root
        (root / "agent.toml").write_text(
            f'state = "agent"\nportal = "127.0.0.1:{site.intake_port}"\nunmask = "approved"\n'
            f'[[sources]]\nname = "rows"\ncampaign = "{CAMPAIGN}"\nkind = "text"\ntype = "file"\n'
            'path = "samples/rows.jsonl"\n'
            f'[[sources]]\nname = "files"\ncampaign = "{CAMPAIGN}"\nkind = "text"\n'
            'type = "folder"\n'
            'path = "samples/texts"\npattern = "*.txt"\n'
            "[timing]\ntick_seconds = 0.3\nsettle_seconds = 0.2\nmodel_poll_seconds = 1.0\n"
            "unmask_poll_seconds = 0.3\n"
            "grant_wait_seconds = 3\nretry_first_seconds = 0.2\nretry_longest_seconds = 2.0\n"
        )
        (root / "portal.toml").write_text(
            f'folder = "portal"\nweb_port = {site.web_port}\nintake_port = {site.intake_port}\n'
            'intake_host = "127.0.0.1"\ncoordinator_poll_seconds = 1.0\n'
            "outcome_delay_seconds = 0.5\nreport_seconds = 2.0\n"
            "login_per_minute = 100\nlogin_per_address_per_minute = 1000\n"
        )
        agent = self._relay(f"{site.name}-agent", self.main, root / "agent" / "identity")
        portal = self._relay(f"{site.name}-portal", self.main, root / "portal" / "identity")
        node = self._relay(f"{site.name}-node", self.main, root / "node" / "identity")
        fleet = self._relay(f"{site.name}-fleet", self.proxy, alpn="http/1.1")
        enroll = self._relay(f"{site.name}-enroll", self.enroll)
        site.relays |= {"agent": agent, "portal": portal, "node": node, "fleet": fleet}
        site.relays["enroll"] = enroll
        self._run("edge_agent", "enroll", "--config", str(root / "agent.toml"), "-",
                  stdin_text=self._token(site, "agent", agent))  # fmt: skip
        portal_config = ("--config", str(root / "portal.toml"))
        self._run("review_portal", "enroll", *portal_config, "-",
                  stdin_text=self._token(site, "portal", portal) + "\n")  # fmt: skip
        self._run("review_portal", "init", *portal_config)
        self._run("federation", "node", "enroll", self._token(site, "node", node),
                  "--identity", str(root / "node" / "identity"))  # fmt: skip
        for name in site.planted.user_names[:4]:
            self._run("review_portal", "user", *portal_config, "add", name, "--name", name,
                      PERIMETER_PORTAL_PASSWORD=PASSWORD)  # fmt: skip
        lead = site.planted.user_names[4]
        self._run("review_portal", "user", *portal_config, "add", lead, "--name", lead,
                  "--role", "site_lead", PERIMETER_PORTAL_PASSWORD=PASSWORD)  # fmt: skip
        self._run("review_portal", "import", *portal_config, "--campaign", CAMPAIGN,
                  "--split", "test", str(root / "samples" / "test.jsonl"))  # fmt: skip
        (root / "trainer.toml").write_text('label_store = "portal"\nsocket = "trainer.sock"\n')
        (root / "node.toml").write_text(
            f'work = "node/flower"\nidentity = "node/identity"\nproxy = "{fleet.address}"\n'
            'trainer_socket = "trainer.sock"\n'
        )

    def _start_site(self, site: SiteUnderTest) -> None:
        root, name = site.root, site.name
        self._spawn(f"{name}-portal", "review_portal", "serve", "--verbose",
                    "--config", str(root / "portal.toml"), site=name)  # fmt: skip
        self._spawn(
            f"{name}-trainer", "federation", "trainer", str(root / "trainer.toml"), site=name
        )
        self._spawn(f"{name}-node", "federation", "supernode", str(root / "node.toml"), site=name)
        wait_for_port(site.web_port, supervisor=self.supervisor, timeout_seconds=600)
        self._spawn(
            f"{name}-agent", "edge_agent", "run", "--config", str(root / "agent.toml"), site=name
        )

    # --- watching ---

    def status(self) -> dict[str, object]:
        """What `perimeter-coordinator status --json` says."""
        config = str(self.folder / "coordinator.toml")
        said: dict[str, object] = json.loads(
            self._run("coordinator", "status", "--json", "--config", config)
        )
        return said

    def versions(self) -> int:
        """How many training runs have left a bundle."""
        return len(list((self.central / "state" / "training").glob("*/run-*/bundle")))

    def wait(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Waits until something holds.

        Raises:
            AssertionError: It did not in time; the ends of all logs are in the message.
        """
        end = time.monotonic() + seconds
        while not holds():
            self.supervisor.check()
            assert time.monotonic() < end, f"waited {seconds} s for {what}\n{self.log_ends()}"
            time.sleep(0.3)

    def log_ends(self) -> str:
        """The ends of all logs."""
        logs = sorted(self.folder.rglob("*.log"))
        return "\n".join(f"== {log.relative_to(self.folder)}\n{log_tail(log)}" for log in logs)

    def revive(self) -> list[str]:
        """Starts ended processes again, as a service manager would; returns their names."""
        ended = [name for name in self.supervisor.names if not self.supervisor.alive(name)]
        for name in ended:
            self.supervisor.restart(name)
        return ended

    def central_processes(self) -> list[int]:
        """Process ids of the centre."""
        return [self.supervisor.pid(name) for name in ("coordinator", "superlink", "proxy")]
