"""Who this device is: its key, certificate and trusted keys, as files of `<state>/identity/`.

The private key is made here and never leaves. A renewed pair replaces the old one in an order that
a crash can interrupt anywhere: the new certificate is complete on disk before anything is replaced.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.errors import IdentityError, StorageFull

_KEY, _CERTIFICATE, _REQUEST = "key.pem", "cert.pem", "request.der"
_NEXT_KEY, _NEXT_CERTIFICATE, _NEXT_REQUEST = "key.next.pem", "cert.next.pem", "request.next.der"


@dataclass(frozen=True)
class Identity:
    """A loaded identity.

    Attributes:
        site_id: Site of the device.
        name: Name of the device in its site.
        trust_domain: Installation that the certificate belongs to.
        coordinator: `host:port` of the coordinator.
        key_pem: Private key.
        certificate_pem: Leaf certificate.
        authority_pem: Certificate of the authority.
        release_key: Ed25519 key that signs bundles, 32 bytes.
        grant_key: Ed25519 key that signs grants, 32 bytes.
        begins_at: Start of the certificate, seconds since 1970.
        expires_at: End of the certificate, seconds since 1970.
    """

    site_id: str
    name: str
    trust_domain: str
    coordinator: str
    key_pem: bytes
    certificate_pem: bytes
    authority_pem: bytes
    release_key: bytes
    grant_key: bytes
    begins_at: float
    expires_at: float

    @property
    def renews_at(self) -> float:
        """Half of the certificate's life."""
        return (self.begins_at + self.expires_at) / 2

    @property
    def portal_host(self) -> str:
        """DNS name that only a portal of the own site has in its certificate."""
        return f"portal.{self.site_id}.{self.trust_domain}"


@dataclass(frozen=True)
class SigningRequest:
    """A key that waits for its certificate.

    Attributes:
        request_der: PKCS#10 request without any name.
        request_id: 16 bytes; the same for every sending of the same request.
    """

    request_der: bytes
    request_id: bytes


class IdentityFolder:
    """Reads and replaces the identity.

    Args:
        folder: `<state>/identity`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> Identity:
        """Returns the identity; finishes a replacement that was interrupted.

        Raises:
            IdentityError: The device is not enrolled, or a file is damaged.
        """
        self._finish_replacement()
        try:
            described = json.loads((self.folder / "identity.json").read_bytes())
            certificate_pem = (self.folder / _CERTIFICATE).read_bytes()
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            return Identity(
                site_id=described["site_id"],
                name=described["name"],
                trust_domain=described["trust_domain"],
                coordinator=described["coordinator"],
                key_pem=(self.folder / _KEY).read_bytes(),
                certificate_pem=certificate_pem,
                authority_pem=(self.folder / "ca.pem").read_bytes(),
                release_key=(self.folder / "release.pub").read_bytes(),
                grant_key=(self.folder / "grant.pub").read_bytes(),
                begins_at=certificate.not_valid_before_utc.timestamp(),
                expires_at=certificate.not_valid_after_utc.timestamp(),
            )
        except FileNotFoundError:
            raise IdentityError(
                "this device is not enrolled; run `perimeter-agent enroll` with a join token"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise IdentityError(
                f"the identity in {self.folder} is damaged ({error}); enrol again"
            ) from None

    def is_enrolled(self) -> bool:
        """True when an identity is there."""
        return (self.folder / "identity.json").exists()

    def pending_request(self, *, salt: bytes = b"") -> SigningRequest:
        """Returns the request for the next certificate; makes key and request when there is none.

        Both are stored first, so that a repeat after a lost answer is the same request.

        Args:
            salt: What the request is for, such as a join secret; another one makes another id.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / _NEXT_REQUEST
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
            der = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
            write_durably(self.folder / _NEXT_KEY, _private_pem(key), mode=0o600)
            write_durably(path, der)
        request_der = path.read_bytes()
        request_id = hashlib.sha256(b"perimeter-request\0" + salt + request_der).digest()[:16]
        return SigningRequest(request_der, request_id)

    def drop_request(self) -> None:
        """Forgets a request that was refused, so that the next one has a new key."""
        for name in (_NEXT_REQUEST, _NEXT_KEY):
            (self.folder / name).unlink(missing_ok=True)

    def install(self, certificate_der: bytes) -> None:
        """Replaces key and certificate by the pending key and its certificate.

        Raises:
            IdentityError: The certificate belongs to another key.
        """
        certificate = _checked_certificate(certificate_der, self.folder / _NEXT_KEY)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        write_durably(self.folder / _NEXT_CERTIFICATE, pem)
        self._finish_replacement()

    def _finish_replacement(self) -> None:
        if not (self.folder / _NEXT_CERTIFICATE).exists():
            return
        if (self.folder / _NEXT_KEY).exists():
            (self.folder / _NEXT_KEY).replace(self.folder / _KEY)
        (self.folder / _NEXT_REQUEST).unlink(missing_ok=True)
        (self.folder / _NEXT_CERTIFICATE).replace(self.folder / _CERTIFICATE)
        _sync_folder(self.folder)


def trust_domain_of(certificate_der: bytes) -> str:
    """Returns the trust domain in the certificate's URI name.

    Raises:
        IdentityError: There is no such name.
    """
    certificate = x509.load_der_x509_certificate(certificate_der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith("perimeter://"):
            return uri.removeprefix("perimeter://").split("/", 1)[0]
    raise IdentityError("the certificate names no site; the coordinator is not a Perimeter one")


def certificate_end(certificate_pem: bytes) -> str:
    """Returns the end of a certificate as a date for people."""
    end = x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc
    return end.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replaces a file so that it is there whole after a crash, or not at all.

    Raises:
        StorageFull: The disk is full; the old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise StorageFull(
            f"cannot write {path}: {error.strerror}; free space on the disk"
        ) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _checked_certificate(certificate_der: bytes, key_path: Path) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (ValueError, OSError) as error:
        raise IdentityError(f"the new certificate cannot be used: {error}") from None
    if certificate.public_key() != key.public_key():
        raise IdentityError("the new certificate belongs to another key; enrol again")
    return certificate
