"""Local push: programs on the device send samples over HTTP on loopback or a Unix socket.

`POST /` with the raw bytes of one sample. 202: it is in the sealed queue. 400, 413: it cannot be
used, the answer says why. 503: try again later. The listener refuses callers that a browser page
could be (an `Origin` header, a foreign `Host`), because pages reach loopback too.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from edge_agent.config import Limits, SourceConfig
from edge_agent.errors import ConfigError, SampleRefused, StorageError
from edge_agent.queue.journal import Refusal
from edge_agent.sources.decoding import canonical, check_size
from edge_agent.sources.intake import Delivery, Intake

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]", "")
_READ_SECONDS = 30


class PushListener:
    """Serves one push source in threads of its own.

    Args:
        config: The source; `listen` says where.
        limits: Sizes.
        intake: Takes the samples.
        clock: Seconds since 1970.
        wake: Called when a sample was taken.
    """

    def __init__(
        self,
        config: SourceConfig,
        limits: Limits,
        intake: Intake,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self.config = config
        self._limits = limits
        self._intake = intake
        self._clock = clock
        self._wake = wake
        self._server = self._bound()
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the listener; what was acknowledged is in the queue."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5)
        self._server.server_close()

    @property
    def address(self) -> str:
        """`host:port` or `unix:path` where it listens."""
        if self.config.listen.startswith("unix:"):
            return self.config.listen
        host = self.config.listen.rpartition(":")[0]
        return f"{host}:{self._server.socket.getsockname()[1]}"

    def accept(self, raw: bytes) -> tuple[int, str]:
        """Takes one sample; returns the HTTP status and a word for the caller."""
        try:
            self._intake.make_room()
            if self._intake.campaign_id(self.config) is None:
                return 503, f"campaign {self.config.campaign!r} is not known yet; try again later"
            contents = canonical(raw, self.config.kind, self._limits)
            added = self._intake.take(self.config, Delivery(contents), self._clock())
        except SampleRefused as error:
            return self.refuse(error)
        except (StorageError, ConfigError) as error:
            return 503, str(error)
        self._wake()
        return 202, "stored" if added else "known already"

    def refuse(self, error: SampleRefused) -> tuple[int, str]:
        """Logs a refusal; returns the HTTP status and the reason."""
        refusal = Refusal(self.config.name, error.reason, str(error), "push")
        # When even the log has no room, the caller still gets the reason.
        with contextlib.suppress(StorageError, ConfigError):
            self._intake.take(self.config, Delivery((), [refusal]), self._clock())
        return (413 if error.reason == "too-large" else 400), str(error)

    def check_announced(self, length: int) -> None:
        """Refuses a body by its announced size, before it is read."""
        check_size(length, self._limits)

    def _bound(self) -> _Server:
        handler = type("Handler", (_Handler,), {"listener": self})
        if self.config.listen.startswith("unix:"):
            path = Path(self.config.listen.removeprefix("unix:"))
            path.unlink(missing_ok=True)
            server = _Server(str(path), handler, family=socket.AF_UNIX)
            path.chmod(0o600)
            return server
        host, _, port = self.config.listen.rpartition(":")
        family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
        return _Server((host.strip("[]"), int(port)), handler, family=family)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: Any, handler: Any, *, family: socket.AddressFamily) -> None:
        self.address_family = family
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up early is no fault of the daemon and leaves nothing behind."""


class _Handler(BaseHTTPRequestHandler):
    listener: PushListener
    timeout = _READ_SECONDS
    server_version = "perimeter-agent"
    sys_version = ""

    def do_POST(self) -> None:
        """Takes one sample."""
        if not self._is_local_program():
            self._answer(403, "only programs on this device may push")
            return
        try:
            length = int(self.headers.get("Content-Length", "0"))
            self.listener.check_announced(length)
        except ValueError:
            self._answer(400, "Content-Length must be a number")
            return
        except SampleRefused as error:
            self._answer(*self.listener.refuse(error))
            return
        raw = self.rfile.read(length)
        if len(raw) < length:
            self._answer(400, "the body is shorter than announced")
            return
        self._answer(*self.listener.accept(raw))

    def _is_local_program(self) -> bool:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        return "Origin" not in self.headers and host in _LOCAL_HOSTS

    def address_string(self) -> str:
        """Unix sockets have no caller address."""
        return "local"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited name
        """Requests are not logged; refusals are, in the queue."""

    def _answer(self, status: int, word: str) -> None:
        body = json.dumps({"message": word}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        # An unread body would be taken for the next request.
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        self.wfile.write(body)
