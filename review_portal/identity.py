"""The portal's own identity, and whose certificate a caller shows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from review_portal.errors import EnrollmentFailed

_SAN = re.compile(
    r"perimeter://(?P<trust>[^/]+)/site/(?P<site>[a-z0-9-]{1,40})"
    r"/(?P<role>agent|portal|node|operator)/(?P<name>[^/]+)"
)
FILES = ("key.pem", "cert.pem", "ca.pem", "grant.pub", "identity.json")


@dataclass(frozen=True)
class Identity:
    """What enrolment gave to this portal.

    Attributes:
        folder: Where its files are.
        site_id: Slug of the site.
        name: Name of the portal inside the site.
        coordinator: host:port.
        trust_domain: Trust domain of all certificates.
        grant_public_key: Ed25519, 32 bytes.
    """

    folder: Path
    site_id: str
    name: str
    coordinator: str
    trust_domain: str
    grant_public_key: bytes

    def pem(self, name: str) -> bytes:
        """Returns one of the PEM files: key.pem, cert.pem or ca.pem."""
        return (self.folder / name).read_bytes()


@dataclass(frozen=True)
class Peer:
    """Whose certificate it is."""

    trust_domain: str
    site_id: str
    role: str
    name: str


def parse_san(uri: str) -> Peer | None:
    """Returns whom a certificate's URI names, or None.

    >>> parse_san("perimeter://demo/site/alder/agent/cam-1").name
    'cam-1'
    """
    found = _SAN.fullmatch(uri)
    if found is None:
        return None
    return Peer(found["trust"], found["site"], found["role"], found["name"])


def peer_of(certificate_pem: bytes) -> Peer | None:
    """Returns whom a verified peer certificate names, or None when it names nobody of ours."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return parse_san(uris[0]) if len(uris) == 1 else None


def load_identity(folder: Path) -> Identity:
    """Reads what enrolment wrote.

    Raises:
        EnrollmentFailed: Files are missing or malformed.
    """
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise EnrollmentFailed(
            f"{folder} lacks {', '.join(missing)}; run `perimeter-portal enroll` with a join token"
        )
    try:
        fields = json.loads((folder / "identity.json").read_text("utf-8"))
        return Identity(
            folder=folder,
            site_id=fields["site_id"],
            name=fields["name"],
            coordinator=fields["coordinator"],
            trust_domain=fields["trust_domain"],
            grant_public_key=(folder / "grant.pub").read_bytes(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EnrollmentFailed(f"{folder}/identity.json is malformed: {error}") from None
