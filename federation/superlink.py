"""`perimeter-federation superlink`: Flower's SuperLink and its executor on the centre's loopback.

The SuperLink keeps its state in a database and runs in process isolation, so that it survives a
kill in the middle of a round. Its Control API has no authentication: the address must be a
loopback one, and only `/v1/fleet/*` is published, by `perimeter-federation proxy`.

A watcher registers each node whose public key the coordinator puts into the `nodes` folder as
`<site>.<name>.pub`, takes off those whose file went, and writes `registered.json`, which tells
training runs which node belongs to which site.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from federation.children import ChildSpec, Family, supervise
from federation.control import Control, KnownNode
from federation.errors import ControlFailed, RequestInvalid
from federation.file_watch import FileWatch
from federation.flower_transport import REGISTERED_NAME
from federation.run_files import write_json, write_whole
from federation.settings import SuperlinkSettings, split_address

SECRET_NAME = "superexec.secret"  # noqa: S105 - the name of a file
DATABASE_NAME = "superlink.db"
WATCH_SECONDS = 1.0
_log = logging.getLogger(__name__)


def run(settings: SuperlinkSettings) -> None:
    """Runs the SuperLink, its executor and the watcher until SIGTERM or SIGINT.

    Raises:
        RequestInvalid: The address is not a loopback address, or a file is missing.
    """
    check_loopback(settings.address)
    for path in (settings.certificate, settings.private_key, settings.authority):
        if not path.is_file():
            raise RequestInvalid(f"{path} is missing; run `perimeter-coordinator init` first")
    settings.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.nodes.mkdir(parents=True, exist_ok=True)
    make_secret(settings.work / SECRET_NAME)
    family = Family()
    for spec in child_specs(settings):
        family.start(spec)
    watcher = NodeWatcher(settings.nodes, lambda: Control(settings.address, settings.authority))
    renewal = FileWatch(settings.certificate)

    def tick() -> None:
        watcher.tick()
        if renewal.changed():
            _log.info("the certificate was renewed; the superlink starts again")
            family.restart("superlink")

    supervise(family, tick)


def child_specs(settings: SuperlinkSettings) -> list[ChildSpec]:
    """Returns the SuperLink's and the executor's command lines."""
    host, port = split_address(settings.address)
    work, secret = settings.work, str(settings.work / SECRET_NAME)
    flower = Path(sys.executable).parent
    environment = {"FLWR_HOME": str(work / "flower"), "OMP_NUM_THREADS": "1"}
    link = [
        *(str(flower / "flower-superlink"), "--host", host, "--port", str(port)),
        *("--ssl-ca-certfile", str(settings.authority)),
        *("--ssl-certfile", str(settings.certificate)),
        *("--ssl-keyfile", str(settings.private_key)),
        *("--enable-supernode-auth", "--isolation", "process"),
        *("--database", str(work / DATABASE_NAME), "--superexec-auth-secret-file", secret),
        "--disable-runtime-dependency-installation",
    ]
    executor = [
        *(sys.executable, "-m", "federation.central_executor"),
        *("--runtime-api-address", settings.address),
        *("--root-certificates", str(settings.authority)),
        *("--superexec-auth-secret-file", secret),
    ]
    return [
        ChildSpec("superlink", link, work, work / "superlink.log", environment),
        ChildSpec("executor", executor, work, work / "executor.log", environment),
    ]


def check_loopback(address: str) -> None:
    """Raises `RequestInvalid` unless the address is a loopback one.

    >>> check_loopback("127.0.0.1:8000")
    """
    host, _ = split_address(address)
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise RequestInvalid(
            f"the SuperLink must listen on a loopback address, not {host}: whoever reaches its "
            "control paths can start runs; publish it with `perimeter-federation proxy`"
        )


def make_secret(path: Path) -> None:
    """Writes 32 random bytes with mode 0600, once."""
    if not path.exists():
        write_whole(path, secrets.token_bytes(32), mode=0o600)


class NodeWatcher:
    """Brings the SuperLink's list of nodes in line with the `nodes` folder.

    Args:
        folder: Holds one `<site>.<name>.pub` per node, written by the coordinator.
        connect: Opens a connection to the SuperLink.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        connect: Callable[[], Control],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._connect, self._clock = folder, connect, clock
        self._next_at = 0.0
        self._seen: object = None

    def tick(self) -> None:
        """Looks at the folder at most once a second; an unreachable SuperLink is tried again."""
        if self._clock() < self._next_at:
            return
        self._next_at = self._clock() + WATCH_SECONDS
        stamp = [(p.name, p.stat().st_mtime_ns) for p in sorted(self._folder.glob("*.pub"))]
        if stamp == self._seen:
            return
        try:
            control = self._connect()
            try:
                self._align(control)
            finally:
                control.close()
        except (ControlFailed, RequestInvalid, OSError) as error:
            _log.info("nodes are not registered yet: %s", error)
            return
        self._seen = stamp

    def _align(self, control: Control) -> None:
        known = {node.public_key: node for node in control.nodes()}
        wanted = {to_pem(p.read_bytes()): p for p in sorted(self._folder.glob("*.pub"))}
        for key, node in known.items():
            if key not in wanted and _is_listed(node):
                control.unregister(node.node_id)
                _log.info("node %d is off the list", node.node_id)
        nodes = []
        for key, path in wanted.items():
            site, _, name = path.name.removesuffix(".pub").partition(".")
            found = known.get(key)
            node_id = found.node_id if found else control.register(key, path.stem)
            nodes.append({"node_id": str(node_id), "site": site, "name": name})
        write_json(self._folder / REGISTERED_NAME, {"nodes": nodes})
        _log.info("%d nodes are registered", len(nodes))


def _is_listed(node: KnownNode) -> bool:
    return node.status != "unregistered"


def to_pem(openssh: bytes) -> bytes:
    """Returns an OpenSSH public key in the PEM form that the SuperLink compares.

    Raises:
        RequestInvalid: It is no public key.
    """
    try:
        key = load_ssh_public_key(openssh)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RequestInvalid(f"a node's public key cannot be read: {error}") from None
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_registered(folder: Path) -> list[dict[str, str]]:
    """Returns the entries of `registered.json`; none when it is not there yet."""
    path = folder / REGISTERED_NAME
    return list(json.loads(path.read_bytes())["nodes"]) if path.exists() else []
