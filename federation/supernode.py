"""`perimeter-federation supernode`: a site's Flower node and its executor.

Both only call out: the node to the centre's proxy, the executor to the node on loopback. The node
proves who it is with the key that `node enroll` made; the trainer is reached by its socket.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from federation.children import ChildSpec, Family, supervise
from federation.errors import RequestInvalid
from federation.settings import NodeSettings, split_address
from federation.superlink import SECRET_NAME, make_secret

NODE_KEY_NAME = "node_key"
AUTHORITY_NAME = "ca.pem"


def run(settings: NodeSettings) -> None:
    """Runs node and executor until SIGTERM or SIGINT.

    Raises:
        RequestInvalid: The identity folder lacks a file; enrol the node first.
    """
    for name in (NODE_KEY_NAME, AUTHORITY_NAME):
        if not (settings.identity / name).is_file():
            raise RequestInvalid(
                f"{settings.identity / name} is missing; run `perimeter-federation node enroll`"
            )
    settings.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_secret(settings.work / SECRET_NAME)
    family = Family()
    for spec in child_specs(settings, runtime_port(settings.runtime_address)):
        family.start(spec)
    supervise(family)


def child_specs(settings: NodeSettings, port: int) -> list[ChildSpec]:
    """Returns the node's and the executor's command lines."""
    host, _ = split_address(settings.runtime_address)
    work, secret = settings.work, str(settings.work / SECRET_NAME)
    environment = {"FLWR_HOME": str(work / "flower"), "OMP_NUM_THREADS": "1"}
    socket_path = json.dumps(os.fspath(settings.trainer_socket))
    node = [
        *(sys.executable, "-m", "federation.node_process", "--superlink", settings.proxy),
        *("--root-certificates", str(settings.identity / AUTHORITY_NAME)),
        *("--auth-supernode-private-key", str(settings.identity / NODE_KEY_NAME)),
        *("--isolation", "process", "--host", host, "--port", str(port)),
        *("--superexec-auth-secret-file", secret),
        *("--node-config", f"trainer-socket={socket_path}"),
    ]
    executor = [
        *(sys.executable, "-m", "federation.node_executor", "--insecure"),
        *("--runtime-api-address", f"{host}:{port}", "--superexec-auth-secret-file", secret),
    ]
    return [
        ChildSpec("node", node, work, work / "node.log", environment),
        ChildSpec("executor", executor, work, work / "executor.log", environment),
    ]


def runtime_port(address: str) -> int:
    """Returns the port of the address, or a free one for port 0."""
    host, port = split_address(address)
    if port:
        return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def identity_of(folder: Path) -> dict[str, str]:
    """Returns `identity.json` of an identity folder."""
    return dict(json.loads((folder / "identity.json").read_bytes()))
