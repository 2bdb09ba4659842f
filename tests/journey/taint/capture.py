"""A relay that ends TLS on both sides and keeps every plaintext byte that passes.

It stands where the network between a site and the centre is. Towards the site it shows a
certificate that the test's authority signed; towards the centre it uses the identity of the machine
whose traffic it carries, so both ends check each other as they always do.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import itertools
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CHUNK = 1 << 16
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class KeyPair:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


def make_authority(folder: Path) -> KeyPair:
    """Makes an authority of the test: `ca.pem` and `ca.key` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority in {folder.name}")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=6))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _written(certificate, key, KeyPair(folder / "ca.pem", folder / "ca.key"))


def _written(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, pair: KeyPair
) -> KeyPair:
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pair


def issue_server_pair(
    authority: KeyPair, folder: Path, *, uris: tuple[str, ...] = (), hosts: tuple[str, ...] = ()
) -> KeyPair:
    """Signs a server certificate for 127.0.0.1 and localhost with an authority of the test.

    Args:
        authority: Whom the site trusts.
        folder: Where the new pair is written.
        uris: URI names, for clients that look at them.
        hosts: Further DNS names.
    """
    signer = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    names += [x509.DNSName(name) for name in ("localhost", *hosts)]
    names += [x509.UniformResourceIdentifier(uri) for uri in uris]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=6))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    return _written(certificate, key, KeyPair(folder / "relay.pem", folder / "relay.key"))


@dataclass(frozen=True)
class Wire:
    """One wire to listen on.

    Attributes:
        name: Used in the names of the records.
        upstream: (host, port) of the centre.
        shown: What the site sees; None for a wire without TLS.
        trusted: Authority of the centre, as a PEM file.
        identity: Returns the machine's pair at the moment of a connection, since it is renewed;
            None where the centre asks for no client certificate.
        protocols: ALPN names, h2 for gRPC.
        upstream_name: Name to check in the centre's certificate.
    """

    name: str
    upstream: tuple[str, int]
    shown: KeyPair | None
    trusted: Path | None
    identity: Callable[[], KeyPair | None] = lambda: None
    protocols: tuple[str, ...] = ("h2",)
    upstream_name: str = "localhost"


class CaptureRelay:
    """Listens on a free loopback port until it is closed; one event loop in a thread of its own.

    Args:
        wire: Which wire.
        records: Folder that gets `<wire>-<number>-out.bin` (from the site) and `-in.bin`.
    """

    def __init__(self, wire: Wire, records: Path) -> None:
        self._wire = wire
        self._records = records
        records.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count(1)
        self._is_cut = False
        self._open: set[asyncio.StreamWriter] = set()
        self.failures: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._ask(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Name of the wire."""
        return self._wire.name

    @property
    def address(self) -> str:
        """`host:port` for the site."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Breaks every open connection and refuses new ones until `mend`."""
        self._is_cut = True
        self._ask(self._drop_all())

    def mend(self) -> None:
        """Lets connections through again."""
        self._is_cut = False

    def close(self) -> None:
        """Ends the relay."""
        if self._thread.is_alive():
            self._ask(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _ask(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._site_side())

    async def _end(self) -> None:
        # On the loop's own thread: a connection that ends at this moment counts the same waiters.
        self._server.close()
        await self._drop_all()

    async def _drop_all(self) -> None:
        held, self._open = self._open, set()
        for writer in held:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        host, port = self._wire.upstream
        security = self._centre_side()
        try:
            centre_reader, centre_writer = await asyncio.open_connection(
                host,
                port,
                ssl=security,
                server_hostname=self._wire.upstream_name if security else None,
            )
        except OSError as error:
            self.failures.append(f"{self._wire.name}: {type(error).__name__}: {error}")
            writer.transport.abort()
            return
        self._open |= {writer, centre_writer}
        stem = f"{self._wire.name}-{next(self._numbers):04d}"
        await asyncio.gather(
            _pump(reader, centre_writer, self._records / f"{stem}-out.bin"),
            _pump(centre_reader, writer, self._records / f"{stem}-in.bin"),
        )
        self._open -= {writer, centre_writer}

    def _site_side(self) -> ssl.SSLContext | None:
        if self._wire.shown is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._wire.shown.certificate, self._wire.shown.key)
        context.set_alpn_protocols(list(self._wire.protocols))
        if self._wire.trusted is not None:
            context.load_verify_locations(self._wire.trusted)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _centre_side(self) -> ssl.SSLContext | None:
        if self._wire.trusted is None:
            return None
        context = ssl.create_default_context(cafile=str(self._wire.trusted))
        context.set_alpn_protocols(list(self._wire.protocols))
        pair = self._wire.identity()
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: Path) -> None:
    """Copies until either end closes; a byte is on record before it goes on."""
    with record.open("ab", buffering=0) as kept, contextlib.suppress(OSError, ssl.SSLError):
        while chunk := await source.read(_CHUNK):
            kept.write(chunk)
            sink.write(chunk)
            await sink.drain()
    with contextlib.suppress(OSError, RuntimeError):
        sink.close()
