"""From a join token to an identity: one call over TLS that the token itself makes trustworthy.

The token carries the authority's certificate, so even the first connection is verified.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from perimeter.v1 import enrollment_pb2

from edge_agent.config import AgentConfig
from edge_agent.egress import Address, EgressGuard, GuardedChannel
from edge_agent.egress_ledger import EgressLedger
from edge_agent.errors import IdentityError, PeerRefused
from edge_agent.identity import Identity, IdentityFolder, trust_domain_of, write_durably

_METHOD = "perimeter.v1.EnrollmentService/Enroll"
_SECONDS = 30.0


@dataclass(frozen=True)
class JoinToken:
    """What a join token says.

    Attributes:
        enroll: `host:port` of the enrolment listener.
        coordinator: `host:port` of the main listener.
        authority_der: Certificate of the authority.
        secret: 32 bytes, good for one certificate.
        site_id: Site that the certificate will name.
        role: Must be agent here.
        name: Name of the device.
    """

    enroll: str
    coordinator: str
    authority_der: bytes
    secret: bytes
    site_id: str
    role: str
    name: str


def parse_token(token: str) -> JoinToken:
    """Reads a join token.

    Raises:
        IdentityError: It is cut, mistyped, or for another role.
    """
    start, _, body = token.strip().partition(".")
    try:
        fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        parsed = JoinToken(
            enroll=str(fields["enroll"]),
            coordinator=str(fields["coordinator"]),
            authority_der=base64.b64decode(fields["authority"], validate=True),
            secret=base64.b64decode(fields["secret"], validate=True),
            site_id=str(fields["site"]),
            role=str(fields["role"]),
            name=str(fields["name"]),
        )
        x509.load_der_x509_certificate(parsed.authority_der)
    except (ValueError, TypeError, KeyError, binascii.Error):
        start = ""
    if start != "pmt1":
        raise IdentityError(
            "this is not a whole join token; it begins with pmt1. and is one line "
            "(`perimeter-coordinator join-token` prints it)"
        )
    if parsed.role != "agent":
        raise IdentityError(
            f"this join token is for a {parsed.role}; ask the operator for one with role agent"
        )
    return parsed


def enroll(config: AgentConfig, token_text: str, clock: Callable[[], float]) -> Identity:
    """Makes a key, asks for its certificate, and writes the identity.

    Raises:
        IdentityError: The token is wrong or used, or the state belongs to another site.
        PeerError: The coordinator cannot be reached or refused.
    """
    token = parse_token(token_text)
    folder = IdentityFolder(config.state_folder / "identity")
    _check_same_site(folder, token)
    pending = folder.pending_request(salt=token.secret)
    request = enrollment_pb2.EnrollRequest(
        request_id=pending.request_id, join_secret=token.secret, csr_der=pending.request_der
    )
    answer = _call(config, token, request, clock)
    try:
        _write_trust(folder.folder, token, answer)
        folder.install(answer.certificate_der)
    except ValueError as error:
        raise IdentityError(f"the coordinator's answer cannot be used: {error}") from None
    return folder.load()


def _call(
    config: AgentConfig,
    token: JoinToken,
    request: enrollment_pb2.EnrollRequest,
    clock: Callable[[], float],
) -> enrollment_pb2.EnrollResponse:
    ledger = EgressLedger(
        config.state_folder / "egress", file_bytes_max=config.limits.egress_file_bytes
    )
    credentials = grpc.ssl_channel_credentials(_pem(token.authority_der))
    channel = GuardedChannel(
        Address("enrollment", token.enroll, credentials), EgressGuard(ledger, clock)
    )
    try:
        answer: enrollment_pb2.EnrollResponse = channel.call(
            _METHOD, request, enrollment_pb2.EnrollResponse, seconds=_SECONDS
        )
    except PeerRefused as error:
        raise IdentityError(
            f"the join token was refused ({error.reason}): it is wrong, used or older than its "
            "15 minutes; ask the operator for a new one"
        ) from None
    finally:
        channel.close()
    return answer


def _check_same_site(folder: IdentityFolder, token: JoinToken) -> None:
    if not folder.is_enrolled():
        return
    known = json.loads((folder.folder / "identity.json").read_bytes())
    if (known["site_id"], known["name"]) != (token.site_id, token.name):
        raise IdentityError(
            f"this state folder belongs to {known['site_id']}/{known['name']}, the token is for "
            f"{token.site_id}/{token.name}; use another state folder"
        )


def _write_trust(folder: Path, token: JoinToken, answer: enrollment_pb2.EnrollResponse) -> None:
    if answer.authority_der != token.authority_der:
        raise IdentityError("the coordinator answered with another authority than the token's")
    if len(answer.release_public_key) != 32 or len(answer.grant_public_key) != 32:
        raise IdentityError("the coordinator answered without its signing keys")
    described = {
        "site_id": answer.site_id,
        "role": "agent",
        "name": answer.name,
        "coordinator": token.coordinator,
        "trust_domain": trust_domain_of(answer.certificate_der),
    }
    write_durably(folder / "ca.pem", _pem(answer.authority_der))
    write_durably(folder / "release.pub", answer.release_public_key)
    write_durably(folder / "grant.pub", answer.grant_public_key)
    write_durably(folder / "identity.json", json.dumps(described, indent=1).encode())


def _pem(der: bytes) -> bytes:
    certificate = x509.load_der_x509_certificate(der)
    return certificate.public_bytes(serialization.Encoding.PEM)
