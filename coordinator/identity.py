"""Keys and certificates: the authority, what it issues, and who a certificate names.

Only this module touches cryptography. One P-256 authority per installation signs short-lived
leaves whose single URI name `perimeter://<trust-domain>/site/<site_id>/<role>/<name>` says who
calls; names that a request asks for are ignored. Which certificates are still honoured is not
decided here.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.durable_files import write_durably
from coordinator.errors import CsrInvalid, IdentityMissing

ROLES = ("agent", "portal", "node", "operator")
AUTHORITY_LIFETIME_DAYS = 3_650
SERVER_LIFETIME_DAYS = 90
SERVER_RENEWAL_DAYS = 30
CLOCK_SKEW_SECONDS = 300
CSR_BYTES_MAX = 4_096
NODE_KEY_BYTES_MAX = 256
_SUBJECT = re.compile(
    r"perimeter://(?P<domain>[a-z0-9.-]+)/site/(?P<site>[a-z0-9-]{1,40})"
    r"/(?P<role>agent|portal|node|operator)/(?P<name>[a-z0-9-]{1,40})"
)
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True)
class Caller:
    """Who holds a certificate; the serial is in hex."""

    site_id: str
    role: str
    name: str
    serial: str
    expires_at: int

    @property
    def label(self) -> str:
        """`site/role/name`, the caller's key in records."""
        return f"{self.site_id}/{self.role}/{self.name}"


@dataclass(frozen=True)
class Subject:
    """Whom a certificate shall name.

    Attributes:
        site_id: Slug.
        role: One of `ROLES`.
        name: Slug, unique for the role inside the site.
        hosts: DNS names and IP addresses under which it serves; portals only.
    """

    site_id: str
    role: str
    name: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leaf:
    """An issued certificate in DER with its serial in hex and its end in seconds since 1970."""

    der: bytes
    serial: str
    expires_at: int


def read_csr(der: bytes) -> x509.CertificateSigningRequest:
    """Reads a PKCS#10 request and checks its signature and key.

    Raises:
        CsrInvalid: It is too long, broken, not signed by its own key, or not P-256 or P-384.
    """
    if not 0 < len(der) <= CSR_BYTES_MAX:
        raise CsrInvalid(f"the signing request must have 1 to {CSR_BYTES_MAX} bytes")
    try:
        csr = x509.load_der_x509_csr(der)
        key = csr.public_key()
        signed = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise CsrInvalid("the signing request cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise CsrInvalid("the key must be an elliptic-curve key on P-256 or P-384")
    if not signed:
        raise CsrInvalid("the signing request is not signed by its own key")
    return csr


def node_key_openssh(der: bytes) -> str:
    """Returns a federation node's P-384 public key (SubjectPublicKeyInfo, DER) in OpenSSH form.

    Raises:
        CsrInvalid: It is no P-384 key.
    """
    if not 0 < len(der) <= NODE_KEY_BYTES_MAX:
        raise CsrInvalid(f"the node key must have 1 to {NODE_KEY_BYTES_MAX} bytes")
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CsrInvalid("the node key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise CsrInvalid("the node key must be an elliptic-curve key on P-384")
    form = serialization.Encoding.OpenSSH
    return key.public_bytes(form, serialization.PublicFormat.OpenSSH).decode()


def read_caller(pem: bytes, trust_domain: str) -> Caller | None:
    """Returns whom a peer certificate names, None when it names nobody of this trust domain."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    match = _SUBJECT.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None or match["domain"] != trust_domain:
        return None
    return Caller(
        match["site"],
        match["role"],
        match["name"],
        f"{certificate.serial_number:x}",
        int(certificate.not_valid_after_utc.timestamp()),
    )


class Authority:
    """Signs leaves; made by `load_authority`."""

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, trust_domain: str
    ) -> None:
        self._certificate = certificate
        self._key = key
        self.trust_domain = trust_domain
        self.der = certificate.public_bytes(serialization.Encoding.DER)

    def issue(
        self, csr: x509.CertificateSigningRequest, subject: Subject, *, now: int, lifetime: int
    ) -> Leaf:
        """Issues a leaf for the key of a checked request; all names come from `subject`.

        Args:
            csr: From `read_csr`.
            subject: Whom to name.
            now: Seconds since 1970-01-01 UTC.
            lifetime: Seconds from now to the end.
        """
        uri = (
            f"perimeter://{self.trust_domain}/site/{subject.site_id}/{subject.role}/{subject.name}"
        )
        hosts = (f"{subject.role}.{subject.site_id}.{self.trust_domain}", *subject.hosts)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if subject.role == "portal":
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.UniformResourceIdentifier(uri), *_host_names(hosts)]
        return self._sign(csr.public_key(), names, usages, now=now, lifetime=lifetime)

    def issue_server(
        self, key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], *, now: int
    ) -> Leaf:
        """Issues a server leaf for a key of the central side."""
        lifetime = SERVER_LIFETIME_DAYS * 86_400
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        return self._sign(key.public_key(), _host_names(hosts), usages, now=now, lifetime=lifetime)

    def _sign(
        self,
        key: object,
        names: list[x509.GeneralName],
        usages: list[x509.ObjectIdentifier],
        *,
        now: int,
        lifetime: int,
    ) -> Leaf:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError("only elliptic-curve keys are certified")
        end = now + lifetime
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_utc(now - CLOCK_SKEW_SECONDS))
            .not_valid_after(_utc(end))
            # Critical, since the subject is empty (RFC 5280, 4.1.2.6).
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        der = leaf.public_bytes(serialization.Encoding.DER)
        return Leaf(der, f"{leaf.serial_number:x}", end)


def _utc(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)


def _host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def pem_of(der: bytes) -> bytes:
    """Returns a certificate in PEM."""
    certificate = x509.load_der_x509_certificate(der)
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_authority(folder: Path, trust_domain: str, *, now: int) -> None:
    """Makes the authority's key and certificate (`ca.key`, `ca.pem`) where they are missing."""
    if (folder / "ca.pem").exists() and (folder / "ca.key").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Perimeter {trust_domain}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(now - CLOCK_SKEW_SECONDS))
        .not_valid_after(_utc(now + AUTHORITY_LIFETIME_DAYS * 86_400))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_durably(folder / "ca.key", _private_pem(key), mode=0o600)
    write_durably(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))


def load_authority(folder: Path, trust_domain: str) -> Authority:
    """Reads the authority.

    Raises:
        IdentityMissing: The files are absent or unreadable.
    """
    certificate = x509.load_pem_x509_certificate(_read(folder / "ca.pem"))
    key = serialization.load_pem_private_key(_read(folder / "ca.key"), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityMissing(f"{folder / 'ca.key'} holds no elliptic-curve key")
    return Authority(certificate, key, trust_domain)


def make_server_identity(
    folder: Path, stem: str, authority: Authority, *, hosts: Sequence[str], now: int
) -> None:
    """Makes `<stem>.key` and `<stem>.pem`, or renews them when less than 30 days are left."""
    pem, key_file = folder / f"{stem}.pem", folder / f"{stem}.key"
    if pem.exists() and key_file.exists() and _days_left(pem, now) > SERVER_RENEWAL_DAYS:
        return
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = authority.issue_server(key, hosts, now=now)
    write_durably(key_file, _private_pem(key), mode=0o600)
    write_durably(pem, pem_of(leaf.der))


def _days_left(pem: Path, now: int) -> float:
    certificate = x509.load_pem_x509_certificate(pem.read_bytes())
    return (certificate.not_valid_after_utc.timestamp() - now) / 86_400


def make_signing_key(folder: Path, stem: str) -> None:
    """Makes an Ed25519 pair, `<stem>.key` (PEM) and `<stem>.pub` (32 bytes), where missing."""
    if (folder / f"{stem}.key").exists() and (folder / f"{stem}.pub").exists():
        return
    key = ed25519.Ed25519PrivateKey.generate()
    write_durably(folder / f"{stem}.key", _private_pem(key), mode=0o600)
    write_durably(folder / f"{stem}.pub", key.public_key().public_bytes_raw())


def load_signing_key(folder: Path, stem: str) -> ed25519.Ed25519PrivateKey:
    """Reads the private half of a pair that `make_signing_key` made.

    Raises:
        IdentityMissing: The file is absent or holds another kind of key.
    """
    key = serialization.load_pem_private_key(_read(folder / f"{stem}.key"), password=None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise IdentityMissing(f"{folder / stem}.key holds no Ed25519 key")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityMissing(
            f"{path} cannot be read ({error.strerror}); run `perimeter-coordinator init` first"
        ) from None
