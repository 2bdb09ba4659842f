"""`/metrics` for Prometheus and `/status` as JSON, over plain HTTP on loopback. Read only."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from coordinator.admission import Desk
from coordinator.errors import ConfigInvalid
from coordinator.observation import metrics_text, status_of


class _Handler(BaseHTTPRequestHandler):
    desk: Desk
    server_version = "perimeter-coordinator"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        """Answers `/metrics` and `/status`."""
        if self.path == "/status":
            status = self.desk.ask_from_thread(status_of)
            self._answer(200, "application/json", json.dumps(status).encode())
        elif self.path == "/metrics":
            status = self.desk.ask_from_thread(status_of)
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics_text(status))
        else:
            self._answer(404, "text/plain", b"only /metrics and /status\n")

    def _answer(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - base's name
        """Writes nothing: a scrape a second would drown the log."""


class OperatorPages:
    """The HTTP server and its thread."""

    def __init__(self, desk: Desk, address: str) -> None:
        self._address = address
        self._desk = desk
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> int:
        """Starts serving and returns the port.

        Raises:
            ConfigInvalid: The address cannot be bound.
        """
        host, _, port = self._address.rpartition(":")
        handler = type("Handler", (_Handler,), {"desk": self._desk})
        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), handler)
        except OSError as error:
            raise ConfigInvalid(
                f"metrics_address {self._address} cannot be used: {error.strerror}"
            ) from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self._server.server_address[1]

    def stop(self) -> None:
        """Stops serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
