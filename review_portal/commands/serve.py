"""`perimeter-portal serve`: pages, intake and the link to the coordinator in one process."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from review_portal.app import create_app
from review_portal.commands.settings import config_of, link_of
from review_portal.config import PortalConfig
from review_portal.enrollment import write_whole
from review_portal.errors import ConfigInvalid
from review_portal.intake import IntakeDesk, start_intake
from review_portal.label_store import LabelStore
from review_portal.portal import Portal, open_portal
from review_portal.store.key_places import choose

logger = logging.getLogger(__name__)

CERTIFICATE_CHECK_SECONDS = 60.0
SWITCH_SECONDS = 0.0005


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--verbose", action="store_true", help="log each request")


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM."""
    config = config_of(arguments)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Each SQL statement of an answer gives the interpreter away; beside a thread that counts, the
    # usual 5 ms until it comes back would add up to a tenth of a second.
    sys.setswitchinterval(SWITCH_SECONDS)
    choose(config.folder / "keys", config.key_store)
    store = LabelStore.open(config.folder)
    link = link_of(config, store)
    portal = open_portal(config, clock=time.time, link=link, store=store)
    stop_intake, intake_port = _start_intake(portal)
    listener = _listen(config)
    server = uvicorn.Server(_uvicorn_config(portal, verbose=arguments.verbose))
    _announce(config, listener.getsockname()[1], intake_port)
    if link is not None:
        link.start()
    portal.quality.start()
    # The server passes a signal on once it has shut down; this end is as clean as any other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        return 0
    finally:
        stop_intake()
        portal.quality.stop()
        if link is not None:
            link.stop()
        store.close()
    return 0


def _start_intake(portal: Portal) -> tuple[Callable[[], None], int]:
    if portal.link is None:
        print(
            "not enrolled yet: no items will come in until `perimeter-portal enroll` has run",
            file=sys.stderr,
        )
        return (lambda: None), 0
    desk = IntakeDesk(
        store=portal.store,
        config=portal.config,
        identity=portal.link.identity,
        egress=portal.egress,
        words=portal.words,
        clock=portal.clock,
        campaign_missing=portal.wake,
    )
    server, port = start_intake(desk)
    return (lambda: _stop(server)), port


def _stop(server: grpc.Server) -> None:
    server.stop(grace=2).wait()


def _listen(config: PortalConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.web_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.web_host, config.web_port))
    except OSError as error:
        raise ConfigInvalid(
            f"cannot listen on {config.web_host}:{config.web_port}: {error.strerror}; "
            "choose another web_port"
        ) from None
    listener.listen(256)
    return listener


def _uvicorn_config(portal: Portal, *, verbose: bool) -> uvicorn.Config:
    settings: dict[str, Any] = {
        "log_level": "info" if verbose else "warning",
        "access_log": verbose,
        "server_header": False,
        "timeout_graceful_shutdown": 3,
        "timeout_keep_alive": 60,
        "ws": "none",
        "lifespan": "off",
    }
    certificate, key = _tls_files(portal)
    if certificate:
        settings |= {"ssl_certfile": certificate, "ssl_keyfile": key}
    config = uvicorn.Config(create_app(portal), **settings)
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        _follow_renewal(config.ssl, certificate, key)
    return config


def _tls_files(portal: Portal) -> tuple[str, str]:
    config = portal.config
    if config.web_tls == "files":
        return str(config.web_certificate), str(config.web_key)
    if config.web_tls == "enrolled":
        if portal.link is None:
            raise ConfigInvalid('web_tls = "enrolled" needs `perimeter-portal enroll` first')
        folder = portal.link.identity.folder
        return str(folder / "cert.pem"), str(folder / "key.pem")
    return "", ""


def _follow_renewal(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Loads a renewed certificate into the running server; new connections use it."""
    import threading

    def follow() -> None:
        loaded = Path(certificate).stat().st_mtime_ns
        while True:
            time.sleep(CERTIFICATE_CHECK_SECONDS)
            found = Path(certificate).stat().st_mtime_ns
            if found != loaded:
                context.load_cert_chain(certificate, key)
                loaded = found

    threading.Thread(target=follow, name="certificate-watch", daemon=True).start()


def _announce(config: PortalConfig, web_port: int, intake_port: int) -> None:
    scheme = "http" if config.web_tls == "off" else "https"
    host = f"[{config.web_host}]" if ":" in config.web_host else config.web_host
    address = f"{scheme}://{host}:{web_port}"
    serving = {"web": address, "intake": f"{config.intake_host}:{intake_port}", "pid": os.getpid()}
    write_whole(config.folder / "serving.json", json.dumps(serving).encode())
    print(f"portal at {address}, intake on port {intake_port}", flush=True)
