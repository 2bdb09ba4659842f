"""A real portal on a free port, a real certificate authority, and a coordinator of a few lines."""

from __future__ import annotations

import datetime
import hashlib
import io
import ipaddress
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import numpy as np
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from perimeter.v1 import grant_pb2, item_pb2
from PIL import Image

from model_bundle.label_schema import LabelSchema
from review_portal import wire
from review_portal.app import create_app
from review_portal.core.model import GrantReason, GrantView, Kind, MaskView, NewItem, Role
from review_portal.identity import Identity
from review_portal.label_store import LabelStore
from review_portal.portal import Portal
from review_portal.store import items
from review_portal.store.campaigns import (
    CampaignSettings,
    NewCampaign,
    find_campaign,
    put_settings,
    settings_of,
)

CAMPAIGN_ID = hashlib.sha256(b"campaign").digest()[:16]
PASSWORD = "correct horse battery"
CLASSES = ("card", "loan", "other")


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def new_campaign(**changes) -> NewCampaign:
    fields = {
        "campaign_id": CAMPAIGN_ID,
        "name": "tickets",
        "kind": Kind.TEXT,
        "schema": LabelSchema(CLASSES),
        "guideline": "# Card\nAnything about **cards**.",
    }
    return NewCampaign(**{**fields, **changes})


def new_item(number: int, **changes) -> NewItem:
    item_id = hashlib.sha256(f"item {number}".encode()).digest()[:16]
    grant = GrantView(
        grant_id=item_id,
        candidate_id=hashlib.sha256(b"candidate" + item_id).digest()[:16],
        reason=GrantReason.USEFUL,
        expire_at=2e9,
        ledger_sequence=number,
        model_version=1,
    )
    fields = {
        "item_id": item_id,
        "campaign_id": CAMPAIGN_ID,
        "kind": Kind.TEXT,
        "content": f"my card {number} of <PERSON_1> is lost".encode(),
        "mask": MaskView("perimeter-masking-1", "strict", True, ((13, 23, "PERSON"),)),
        "grant": grant,
        "probabilities": (0.7, 0.2, 0.1),
        "model_version": 1,
    }
    return NewItem(**{**fields, **changes})


class Bench:
    """A label store with a campaign, and short ways to fill it."""

    def __init__(self, store: LabelStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.people: dict[str, int] = {}
        store.put_campaign(new_campaign(), clock())

    def set(self, **settings) -> None:
        def work(connection):
            known = settings_of(connection, CAMPAIGN_ID)
            put_settings(connection, CAMPAIGN_ID, CampaignSettings(**{**vars(known), **settings}))

        self.store.database.write(work)

    def receive(self, *new: NewItem) -> None:
        def work(connection):
            campaign = find_campaign(connection, CAMPAIGN_ID)
            settings = settings_of(connection, CAMPAIGN_ID)
            intake = items.Intake(campaign, settings, self.store.keys, self.clock())
            for entry in new:
                items.receive(connection, intake, entry, "agent:test")

        self.store.database.write(work)

    def fill(self, count: int, **changes) -> list[NewItem]:
        made = [new_item(number, **changes) for number in range(count)]
        self.receive(*made)
        return made


@dataclass
class Server:
    """A running portal.

    Attributes:
        url: Where it listens.
        portal: What is inside.
    """

    url: str
    portal: Portal
    stop: Callable[[], None] = field(repr=False, default=lambda: None)

    def add(self, username: str, role: Role = Role.EXPERT) -> int:
        return self.portal.access.add_person(username, PASSWORD, role=role, display_name="")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20)

    def login(self, username: str) -> httpx.Client:
        client = self.client()
        page = client.get("/login").text
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
        form = {"username": username, "password": PASSWORD, "csrf_token": token}
        done = client.post("/login", data=form)
        assert done.status_code == 303, done.text
        client.headers["X-CSRF-Token"] = client.get("/api/session").json()["csrf_token"]
        return client


def serve(portal: Portal) -> Server:
    config = uvicorn.Config(
        create_app(portal), host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=10)

    return Server(f"http://127.0.0.1:{port}", portal, stop)


def fresh_token() -> str:
    return uuid.uuid4().hex


def png(value: int = 128) -> bytes:
    made = io.BytesIO()
    Image.new("L", (8, 8), value).save(made, "PNG")
    return made.getvalue()


def npy(steps: int = 5, channels: int = 2) -> bytes:
    made = io.BytesIO()
    np.save(made, np.arange(steps * channels, dtype="<f4").reshape(steps, channels))
    return made.getvalue()


class Authority:
    """A certificate authority like the coordinator's."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        self.grant_key = ed25519.Ed25519PrivateKey.generate()
        self.certificate = self._sign(self.name, self.key.public_key(), None, days=10)

    def _sign(self, subject, key, names, *, days: float) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(names is None, None), critical=True)
        )
        if names is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def leaf(self, uri: str, key=None, *, days: float = 1) -> tuple[bytes, bytes]:
        """Returns key and certificate in PEM."""
        made = key or ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.UniformResourceIdentifier(uri),
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        if portal := re.match(r"perimeter://([^/]+)/site/([^/]+)/portal/", uri):
            names.append(x509.DNSName(f"portal.{portal[2]}.{portal[1]}"))
        public = made if key is not None else made.public_key()
        certificate = self._sign(x509.Name([]), public, names, days=days)
        key_pem = (
            b""
            if key is not None
            else made.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return key_pem, certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def grant(self, number: int, **changes) -> grant_pb2.Grant:
        grant = grant_pb2.Grant(
            grant_id=hashlib.sha256(f"grant {number}".encode()).digest()[:16],
            campaign_id=CAMPAIGN_ID,
            candidate_id=hashlib.sha256(f"candidate {number}".encode()).digest()[:16],
            model_version=1,
            reason=grant_pb2.GRANT_REASON_USEFUL,
            ledger_sequence=number,
        )
        grant.expire_time.seconds = changes.pop("expire_seconds", 2_000_000_000)
        for name, value in changes.items():
            setattr(grant, name, value)
        grant.signature = self.grant_key.sign(wire.grant_bytes(grant))
        return grant

    def identity(self, folder: Path, *, site_id: str = "alder", coordinator: str = "") -> Identity:
        folder.mkdir(parents=True, exist_ok=True)
        key, certificate = self.leaf(f"perimeter://test/site/{site_id}/portal/main")
        (folder / "key.pem").write_bytes(key)
        (folder / "cert.pem").write_bytes(certificate)
        (folder / "ca.pem").write_bytes(self.pem)
        public = self.grant_key.public_key().public_bytes_raw()
        (folder / "grant.pub").write_bytes(public)
        fields = {
            "site_id": site_id, "role": "portal", "name": "main", "coordinator": coordinator,
            "trust_domain": "test",
        }  # fmt: skip
        (folder / "identity.json").write_text(json.dumps(fields))
        return Identity(folder, site_id, "main", coordinator, "test", public)


def delivery(grant: grant_pb2.Grant, **changes) -> item_pb2.DeliverItemRequest:
    item = item_pb2.Item(
        grant=grant,
        kind=item_pb2.SAMPLE_KIND_TEXT,
        content=b"my card of <PERSON_1> is lost",
        mask_report=item_pb2.MaskReport(
            policy_version="perimeter-masking-1",
            detector_digest=bytes(32),
            level="strict",
            verified=True,
        ),
        probabilities=np.array([0.7, 0.2, 0.1], "<f4").tobytes(),
        model_version=1,
    )
    for name, value in changes.items():
        if name == "mask_report":
            item.mask_report.CopyFrom(value)
        else:
            setattr(item, name, value)
    return item_pb2.DeliverItemRequest(request_id=uuid.uuid4().bytes, item=item)


def tls_server(authority: Authority, add: Callable[[grpc.Server], None], *, mutual: bool):
    """Starts a gRPC server of the central side; returns it and its address."""
    server = grpc.server(ThreadPoolExecutor(2))
    add(server)
    key, certificate = authority.leaf("perimeter://test/site/central/operator/coordinator")
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], authority.pem, require_client_auth=mutual
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, f"127.0.0.1:{port}"
