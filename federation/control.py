"""Talks to the SuperLink's Control API, protobuf over HTTPS on loopback.

The one module that knows this interface of Flower; a test drives it against a real SuperLink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from federation.app_bundle import build_app_bundle
from federation.errors import ControlFailed

FINISHED = "finished"
RUN_LIST_MAX = 1000
R = TypeVar("R")


@dataclass(frozen=True)
class RunStatus:
    """State of a run: pending, starting, running or finished; then completed, failed or stopped."""

    run_id: int
    status: str
    outcome: str = ""
    details: str = ""
    attempt: int = 0


@dataclass(frozen=True)
class KnownNode:
    """A node that the SuperLink knows: its id, public key in PEM, and status."""

    node_id: int
    public_key: bytes
    status: str


class Control:
    """A connection to one SuperLink.

    Args:
        address: host:port.
        authority: PEM file of the authority that signed the SuperLink's certificate.
    """

    def __init__(self, address: str, authority: Path) -> None:
        try:
            self._client = ControlHttpClient.from_server_address(
                address,
                insecure=False,
                root_certificates=authority.read_bytes(),
                interceptors=[RuntimeVersionHttpInterceptor(component_name="perimeter")],
            )
        except OSError as error:
            raise ControlFailed(f"authority {authority} cannot be read: {error}") from None

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def start_run(self, config: Mapping[str, Any]) -> int:
        """Starts a run of this installation's app and returns its id.

        Raises:
            ControlFailed: The SuperLink refused, or is not there (retry).
        """
        content, digest = build_app_bundle()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(digest, content, {})),
            override_config=user_config_to_proto(dict(config)),
        )
        reply = self._call(lambda: self._client.StartRun(request))
        if not reply.HasField("run_id"):
            raise ControlFailed("the SuperLink did not start the run")
        return int(reply.run_id)

    def find_runs(self, key: str, value: str) -> list[RunStatus]:
        """Returns the runs whose configuration holds this text, oldest first."""
        request = ListRunsRequest(limit=RUN_LIST_MAX)
        runs = self._call(lambda: self._client.ListRuns(request)).run_dict
        found = [
            _status(run)
            for run in runs.values()
            if key in run.override_config and run.override_config[key].string == value
        ]
        return sorted(found, key=lambda run: run.attempt)

    def run_status(self, run_id: int) -> RunStatus:
        """Returns the state of a run.

        Raises:
            ControlFailed: The SuperLink does not know it, or is not there (retry).
        """
        request = ListRunsRequest(run_id=run_id)
        runs = self._call(lambda: self._client.ListRuns(request)).run_dict
        if run_id not in runs:
            raise ControlFailed(f"the SuperLink does not know run {run_id}")
        return _status(runs[run_id])

    def stop_run(self, run_id: int) -> None:
        """Stops a run."""
        self._call(lambda: self._client.StopRun(StopRunRequest(run_id=run_id)))

    def nodes(self) -> list[KnownNode]:
        """Returns all registered nodes."""
        reply = self._call(lambda: self._client.ListNodes(ListNodesRequest()))
        return [KnownNode(int(n.node_id), n.public_key, n.status) for n in reply.nodes_info]

    def register(self, public_key: bytes, name: str) -> int:
        """Registers a node's public key (PEM) and returns its node id."""
        request = RegisterNodeRequest(public_key=public_key, name=name)
        return int(self._call(lambda: self._client.RegisterNode(request)).node_id)

    def unregister(self, node_id: int) -> None:
        """Takes a node off the list; its requests are refused from then on."""
        request = UnregisterNodeRequest(node_id=node_id)
        self._call(lambda: self._client.UnregisterNode(request))

    def _call(self, call: Callable[[], R]) -> R:
        try:
            return call()
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            raise ControlFailed(f"the SuperLink answered {code}", retry=code >= 500) from None
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise ControlFailed(f"the SuperLink does not answer: {error}", retry=True) from None


def _status(run: Any) -> RunStatus:
    attempt = run.override_config["attempt"].sint64 if "attempt" in run.override_config else 0
    status = run.status
    return RunStatus(run.run_id, status.status, status.sub_status, status.details, int(attempt))
