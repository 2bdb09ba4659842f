"""What a long-lived coordinator does now and then: fresh server certificates, fewer old answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from coordinator.config import CoordinatorConfig
from coordinator.core.records import AnswerRecord
from coordinator.errors import IdentityMissing
from coordinator.identity import Authority, make_server_identity
from coordinator.office import Office

SERVER_STEMS = ("server", "superlink", "fleet")
MAINTENANCE_SECONDS = 3_600
ANSWER_LIFETIME_SECONDS = 30 * 86_400


def renew_servers(config: CoordinatorConfig, authority: Authority, now: int) -> None:
    """Makes the server certificates, or renews those that end within 30 days."""
    for stem in SERVER_STEMS:
        hosts = (*config.hosts, f"{stem}.{config.trust_domain}")
        make_server_identity(config.identity_folder, stem, authority, hosts=hosts, now=now)


def maintain(office: Office) -> None:
    """Does what is due, at most once an hour."""
    now = office.clock()
    if now < office.maintained_at + MAINTENANCE_SECONDS:
        return
    office.maintained_at = now
    renew_servers(office.config, office.authority, now)
    oldest = now - ANSWER_LIFETIME_SECONDS
    office.commit((), lambda writer: writer.discard(AnswerRecord, "answered_at", oldest))


def read_server_files(folder: Path) -> tuple[bytes, bytes, bytes]:
    """Returns key, certificate and authority of the coordinator's own listeners, in PEM.

    Raises:
        IdentityMissing: A file is absent or unreadable.
    """
    try:
        key = (folder / "server.key").read_bytes()
        certificate = (folder / "server.pem").read_bytes()
        authority = (folder / "ca.pem").read_bytes()
    except OSError as error:
        raise IdentityMissing(
            f"{error.filename} cannot be read; run `perimeter-coordinator init` first"
        ) from None
    return key, certificate, authority


def credentials(folder: Path, *, mutual: bool) -> grpc.ServerCredentials:
    """Returns server credentials that take up a renewed certificate at the next handshake.

    Args:
        folder: Identity folder.
        mutual: Whether callers must hold a certificate of the authority.
    """

    def configuration() -> grpc.ServerCertificateConfiguration:
        key, certificate, authority = read_server_files(folder)
        roots = authority if mutual else None
        return grpc.ssl_server_certificate_configuration([(key, certificate)], roots)

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        # None means unchanged, which the stubs do not know.
        _when_changed(folder / "server.pem", configuration),  # type: ignore[arg-type]
        require_client_authentication=mutual,
    )


def _when_changed(
    path: Path, configuration: Callable[[], grpc.ServerCertificateConfiguration]
) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    seen = path.stat().st_mtime_ns

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        stamp = path.stat().st_mtime_ns
        if stamp == seen:
            return None
        seen = stamp
        return configuration()

    return fetch
