"""`perimeter-federation node enroll TOKEN`: a site's node gets its keys and its certificate.

Both keys are made here and stay here. The token names the coordinator's authority, so the first
connection is already verified: there is no trust on first use.
"""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from perimeter.v1.enrollment_pb2 import EnrollRequest, EnrollResponse
from perimeter.v1.enrollment_pb2_grpc import EnrollmentServiceStub

from federation.errors import EnrollmentFailed
from federation.run_files import write_json, write_whole

TOKEN_PREFIX = "pmt1."  # noqa: S105 - the version mark of join tokens
ROLE = "node"
ENROLL_SECONDS = 30.0


@dataclass(frozen=True)
class JoinToken:
    """What a join token says: where to enrol, whom to trust there, and as what."""

    enroll: str
    coordinator: str
    authority_der: bytes
    secret: bytes
    site_id: str
    role: str
    name: str


def read_token(token: str) -> JoinToken:
    """Reads a join token.

    Raises:
        EnrollmentFailed: It is cut, changed, or for another role.
    """
    if not token.startswith(TOKEN_PREFIX):
        raise EnrollmentFailed(f"a join token starts with {TOKEN_PREFIX!r}; copy it whole")
    body = token.removeprefix(TOKEN_PREFIX).strip()
    try:
        values = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        made = JoinToken(
            str(values["enroll"]),
            str(values["coordinator"]),
            base64.b64decode(values["authority"], validate=True),
            base64.b64decode(values["secret"], validate=True),
            str(values["site"]),
            str(values["role"]),
            str(values["name"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EnrollmentFailed(
            f"the join token cannot be read ({error!r}); copy it whole"
        ) from None
    if made.role != ROLE:
        raise EnrollmentFailed(f"the join token is for the role {made.role}, not for a node")
    return made


def enroll(token: str, folder: Path) -> str:
    """Enrols this machine's node and writes its identity folder; returns `site/name`.

    Raises:
        EnrollmentFailed: The token was used or is over, or the answer cannot be trusted.
    """
    join = read_token(token)
    key, node_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    answer = _ask(join, key, node_key)
    _check(join, key, answer)
    write_identity(folder, join, answer, (key, node_key))
    return f"{answer.site_id}/{answer.name}"


def write_identity(
    folder: Path,
    join: JoinToken,
    answer: EnrollResponse,
    keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey],
) -> None:
    """Writes keys (mode 0600), certificates and `identity.json`; that file comes last."""
    key, node_key = keys
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem, openssh = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    write_whole(folder / "key.pem", private, mode=0o600)
    write_whole(folder / "node_key", node_key.private_bytes(pem, openssh, plain), mode=0o600)
    public = node_key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    write_whole(folder / "node_key.pub", public + b"\n")
    certificate = x509.load_der_x509_certificate(answer.certificate_der)
    authority = x509.load_der_x509_certificate(answer.authority_der)
    write_whole(folder / "cert.pem", certificate.public_bytes(pem))
    write_whole(folder / "ca.pem", authority.public_bytes(pem))
    write_whole(folder / "release.pub", answer.release_public_key)
    write_whole(folder / "grant.pub", answer.grant_public_key)
    identity = {
        "site_id": answer.site_id,
        "role": ROLE,
        "name": answer.name,
        "coordinator": join.coordinator,
        "trust_domain": trust_domain_of(certificate),
    }
    write_json(folder / "identity.json", identity)


def trust_domain_of(certificate: x509.Certificate) -> str:
    """Returns the trust domain that a machine certificate names.

    Raises:
        EnrollmentFailed: It names none.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise EnrollmentFailed("the certificate names no machine") from None
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith("perimeter://"):
            return uri.removeprefix("perimeter://").partition("/")[0]
    raise EnrollmentFailed("the certificate names no machine of a trust domain")


def _ask(
    join: JoinToken, key: ec.EllipticCurvePrivateKey, node_key: ec.EllipticCurvePrivateKey
) -> EnrollResponse:
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
    )
    request = EnrollRequest(
        request_id=uuid.uuid4().bytes,
        join_secret=join.secret,
        csr_der=csr.public_bytes(serialization.Encoding.DER),
        node_public_key_der=node_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    authority = x509.load_der_x509_certificate(join.authority_der)
    roots = authority.public_bytes(serialization.Encoding.PEM)
    with grpc.secure_channel(join.enroll, grpc.ssl_channel_credentials(roots)) as channel:
        service: Any = EnrollmentServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer: EnrollResponse = service.Enroll(request, timeout=ENROLL_SECONDS)
        except grpc.RpcError as error:
            refused: Any = error
            code, text = refused.code().name, refused.details()
            raise EnrollmentFailed(f"the coordinator refused ({code}): {text}") from None
    return answer


def _check(join: JoinToken, key: ec.EllipticCurvePrivateKey, answer: EnrollResponse) -> None:
    """The answer must come from the token's authority and certify our key for the token's site."""
    try:
        certificate = x509.load_der_x509_certificate(answer.certificate_der)
        authority = x509.load_der_x509_certificate(answer.authority_der)
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrollmentFailed(f"the certificate cannot be trusted: {error}") from None
    if answer.authority_der != join.authority_der:
        raise EnrollmentFailed("the answer names another authority than the join token")
    if certificate.public_key() != key.public_key() or answer.site_id != join.site_id:
        raise EnrollmentFailed("the certificate is not for this machine")
