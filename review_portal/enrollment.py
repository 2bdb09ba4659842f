"""How a portal gets and renews its certificate. The private key never leaves this machine."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message
from perimeter.v1 import enrollment_pb2

from review_portal.egress.archive import EgressArchive
from review_portal.egress.guard import EgressGuard
from review_portal.errors import EnrollmentFailed
from review_portal.identity import Identity, parse_san

TOKEN_PREFIX = "pmt1."  # noqa: S105  a prefix, no secret
CALL_SECONDS = 30
_FIELDS = ("enroll", "coordinator", "authority", "secret", "site", "role", "name")


@dataclass(frozen=True)
class JoinToken:
    """What a join token says.

    Attributes:
        enroll: host:port of the enrolment listener.
        coordinator: host:port of the main listener.
        authority_pem: Certificate of the authority; so there is no trust on first use.
        secret: 32 bytes, single use.
        site_id: Slug of the site.
        name: Name of this portal.
    """

    enroll: str
    coordinator: str
    authority_pem: bytes
    secret: bytes
    site_id: str
    name: str


def parse_join_token(text: str) -> JoinToken:
    """Reads a join token for a portal.

    Raises:
        EnrollmentFailed: It is no join token, or one for another role.
    """
    try:
        packed = text.strip().partition(TOKEN_PREFIX)[2]
        fields = json.loads(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        authority = x509.load_der_x509_certificate(base64.b64decode(fields["authority"]))
        values = {key: str(fields[key]) for key in _FIELDS}
        secret = base64.b64decode(values["secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise EnrollmentFailed(f"this is no join token: {error}; ask for a new one") from None
    if values["role"] != "portal":
        raise EnrollmentFailed(f"the token is for role {values['role']!r}, this is a portal")
    return JoinToken(
        enroll=values["enroll"],
        coordinator=values["coordinator"],
        authority_pem=authority.public_bytes(serialization.Encoding.PEM),
        secret=secret,
        site_id=values["site"],
        name=values["name"],
    )


Send = Callable[[str, Message], Any]
"""Sends a message by its method through the guard and returns the answer."""


def enroll(
    token: JoinToken, folder: Path, archive: EgressArchive, clock: Callable[[], float]
) -> Identity:
    """Makes a key, exchanges the token for a certificate, and writes the identity.

    Args:
        token: The join token.
        folder: Where the identity goes.
        archive: Records what leaves; of this message, which carries a secret, only its digest.
        clock: Seconds since 1970.

    Raises:
        EnrollmentFailed: The coordinator cannot be reached or refuses the token.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    credentials = grpc.ssl_channel_credentials(root_certificates=token.authority_pem)
    request = enrollment_pb2.EnrollRequest(
        request_id=uuid.uuid4().bytes, join_secret=token.secret, csr_der=_csr(key)
    )
    with grpc.secure_channel(token.enroll, credentials) as channel:
        guard = EgressGuard(archive, f"portal/{token.name}", clock)
        try:
            response = guard.call(
                channel,
                "perimeter.v1.EnrollmentService/Enroll",
                request,
                seconds=CALL_SECONDS,
            )
        except grpc.RpcError as error:
            raise EnrollmentFailed(_sentence(error, token.enroll)) from None
    return _write(token, folder, key, response)


def _write(
    token: JoinToken,
    folder: Path,
    key: ec.EllipticCurvePrivateKey,
    response: enrollment_pb2.EnrollResponse,
) -> Identity:
    leaf = x509.load_der_x509_certificate(response.certificate_der)
    uris = leaf.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.UniformResourceIdentifier)
    peer = parse_san(uris[0]) if uris else None
    if peer is None or peer.role != "portal":
        raise EnrollmentFailed("the coordinator issued a certificate for something else")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = {
        "site_id": peer.site_id,
        "role": "portal",
        "name": peer.name,
        "coordinator": token.coordinator,
        "trust_domain": peer.trust_domain,
    }
    write_whole(folder / "ca.pem", token.authority_pem)
    write_whole(folder / "release.pub", response.release_public_key)
    write_whole(folder / "grant.pub", response.grant_public_key)
    write_whole(folder / "identity.json", json.dumps(identity, indent=2).encode())
    write_pair(folder, key, response.certificate_der)
    return Identity(
        folder=folder,
        site_id=peer.site_id,
        name=peer.name,
        coordinator=token.coordinator,
        trust_domain=peer.trust_domain,
        grant_public_key=response.grant_public_key,
    )


def renew(identity: Identity, send: Send) -> None:
    """Gets a fresh certificate for a fresh key over the existing identity.

    Raises:
        grpc.RpcError: The coordinator refuses or cannot be reached; the old one stays in force.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    response = send(
        "perimeter.v1.IdentityService/RenewCertificate",
        enrollment_pb2.RenewCertificateRequest(request_id=uuid.uuid4().bytes, csr_der=_csr(key)),
    )
    write_pair(identity.folder, key, response.certificate_der)


def is_half_over(certificate_pem: bytes, now: float) -> bool:
    """Returns whether a certificate has passed half of its life, so that it should be renewed."""
    leaf = x509.load_pem_x509_certificate(certificate_pem)
    start = leaf.not_valid_before_utc.timestamp()
    end = leaf.not_valid_after_utc.timestamp()
    return now >= (start + end) / 2


def write_pair(folder: Path, key: ec.EllipticCurvePrivateKey, certificate_der: bytes) -> None:
    """Replaces key and certificate.

    The key goes first: readers load the pair again when `cert.pem` changes.
    """
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    leaf = x509.load_der_x509_certificate(certificate_der)
    write_whole(folder / "key.pem", key_pem, mode=0o600)
    write_whole(folder / "cert.pem", leaf.public_bytes(serialization.Encoding.PEM))


def write_whole(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Writes a file that appears whole or not at all."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.rename(path)


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _sentence(error: Any, address: str) -> str:
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return f"the coordinator at {address} cannot be reached: {error.details()}"
    reason = dict(error.trailing_metadata() or ()).get("perimeter-reason", "")
    return f"the coordinator refused the join token: {error.details()} {reason}".strip()
