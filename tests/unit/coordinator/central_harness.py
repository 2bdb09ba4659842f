"""A whole coordinator on loopback with real certificates, and machines that call it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from perimeter.v1 import (
    candidate_pb2,
    candidate_pb2_grpc,
    enrollment_pb2,
    enrollment_pb2_grpc,
    grant_pb2,
    grant_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

from coordinator import bootstrap, scheduler
from coordinator.admission import Desk
from coordinator.campaign_file import create_campaign
from coordinator.config import CoordinatorConfig
from coordinator.core.campaign import Campaign
from coordinator.core.records import COLUMN_WIDTHS
from coordinator.enrollment import TokenTerms, make_join_token
from coordinator.identity import Subject, pem_of
from coordinator.observation import status_of

STAND_IN = Path(__file__).parent / "stand_in_federation.py"
TIMEOUT = 60


class TestClock:
    """The real time, moved by hand."""

    __test__ = False

    def __init__(self) -> None:
        self.offset = 0

    def __call__(self) -> int:
        return int(time.time()) + self.offset


def new_key_and_csr(curve: Any = None) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    der = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return key, der


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_token(token: str) -> dict[str, str]:
    return json.loads(base64.urlsafe_b64decode(token.removeprefix("pmt1.")))


@dataclass
class Machine:
    """An enrolled machine of a site with a channel of its own."""

    central: Central
    key: ec.EllipticCurvePrivateKey
    certificate_der: bytes
    sequence: int = 0
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        self.channel = self.central.mutual_channel(key_pem(self.key), pem_of(self.certificate_der))
        self.candidates = candidate_pb2_grpc.CandidateServiceStub(self.channel)
        self.grants = grant_pb2_grpc.GrantServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.identity = enrollment_pb2_grpc.IdentityServiceStub(self.channel)

    def send(self, *batches: candidate_pb2.CandidateBatch) -> list[Any]:
        return list(self.candidates.StreamCandidateBatches(iter(batches), timeout=TIMEOUT))


@dataclass
class Central:
    """The running coordinator."""

    config: CoordinatorConfig
    desk: Desk
    servers: bootstrap.Servers
    loop: asyncio.AbstractEventLoop
    clock: TestClock

    def ask(self, question: Callable[..., Any], *args: Any) -> Any:
        return self.desk.ask_from_thread(question, *args)

    def tick(self) -> None:
        if self.ask(scheduler.tick):
            self.loop.call_soon_threadsafe(self.desk.announce_grants)

    def tick_until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.tick()
            status = self.ask(status_of)
            if condition(status):
                return status
            time.sleep(0.02)
        raise AssertionError(f"not reached: {json.dumps(status, indent=1)}")

    @property
    def authority(self) -> bytes:
        return (self.config.identity_folder / "ca.pem").read_bytes()

    def mutual_channel(self, key: bytes, certificate: bytes) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self.authority, key, certificate)
        return grpc.secure_channel(f"127.0.0.1:{self.servers.port}", credentials)

    def enroll_stub(self) -> Any:
        credentials = grpc.ssl_channel_credentials(self.authority)
        channel = grpc.secure_channel(f"127.0.0.1:{self.servers.enroll_port}", credentials)
        return enrollment_pb2_grpc.EnrollmentServiceStub(channel)

    def token(self, site: str, role: str, name: str, lifetime: int = 900) -> str:
        terms = TokenTerms(Subject(site, role, name, ("127.0.0.1",)), "e:1", "c:2", lifetime)

        def make(office: Any) -> str:
            return make_join_token(
                office.store, office.authority, terms, now=self.clock(), entropy=os.urandom
            )

        return self.ask(make)

    def enroll(self, site: str, role: str = "agent", name: str = "one") -> Machine:
        key, csr = new_key_and_csr()
        node_key = b""
        if role == "node":
            public = ec.generate_private_key(ec.SECP384R1()).public_key()
            node_key = public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        answer = self.enroll_stub().Enroll(
            enrollment_pb2.EnrollRequest(
                request_id=uuid.uuid4().bytes,
                join_secret=base64.b64decode(read_token(self.token(site, role, name))["secret"]),
                csr_der=csr,
                node_public_key_der=node_key,
            ),
            timeout=TIMEOUT,
        )
        return Machine(self, key, answer.certificate_der)

    def create(self, **changes: Any) -> tuple[bytes, Campaign]:
        values: dict[str, Any] = {
            "name": "digits",
            "kind": "image",
            "classes": ("0", "1", "2"),
            "sites": ("north", "south"),
            "budget_labels": 20,
            "cycle_budget_labels": 10,
            "cycles": 2,
            "grant_lifetime_seconds": 3_600,
        }
        campaign = Campaign(**{**values, **changes})

        def make(office: Any) -> bytes:
            record = create_campaign(office.store, campaign, now=self.clock(), entropy=os.urandom)
            return record.campaign_id

        return self.ask(make), campaign


class Runner:
    """Starts and stops coordinators on one folder, each in a thread of its own."""

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        self.running: list[tuple[Central, threading.Thread]] = []

    def start(self, config: CoordinatorConfig) -> Central:
        bootstrap.initialise(config, int(time.time()))
        desk = Desk(bootstrap.open_office(config, clock=self.clock))
        bootstrap.heal_restore(desk.office)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()

        async def begin() -> bootstrap.Servers:
            made = bootstrap.Servers(desk)
            await made.start()
            return made

        servers = asyncio.run_coroutine_threadsafe(begin(), loop).result(TIMEOUT)
        central = Central(config, desk, servers, loop, self.clock)
        self.running.append((central, thread))
        return central

    def stop(self, central: Central) -> None:
        (pair,) = [pair for pair in self.running if pair[0] is central]
        self.running.remove(pair)
        stopping = asyncio.run_coroutine_threadsafe(central.servers.stop(), central.loop)
        stopping.result(TIMEOUT)
        central.desk.close()
        central.desk.office.store.close()
        central.loop.call_soon_threadsafe(central.loop.stop)
        pair[1].join(TIMEOUT)


def make_batch(
    campaign_id: bytes, campaign: Campaign, *, sequence: int, rows: int = 8, **changes: Any
) -> candidate_pb2.CandidateBatch:
    """A sound batch of `rows` candidates with random ids and scores."""
    rng = np.random.default_rng(changes.pop("seed", sequence))
    classes = len(campaign.classes)
    columns = {
        "candidate_ids": rng.bytes(16 * rows),
        "margins": rng.integers(0, 64, rows, dtype=np.uint8).tobytes(),
        "top_probabilities": rng.integers(0, 64, rows, dtype=np.uint8).tobytes(),
        "entropies": rng.integers(0, 64, rows, dtype=np.uint8).tobytes(),
        "divergence_risk": rng.integers(0, 256, rows, dtype=np.uint8).tobytes(),
        "predicted_classes": rng.integers(0, classes, rows).astype("<u2").tobytes(),
        "runner_up_classes": rng.integers(0, classes, rows).astype("<u2").tobytes(),
        "prototype_classes": rng.integers(0, classes, rows).astype("<u2").tobytes(),
        "cell_ids": rng.integers(0, 8, rows).astype("<u2").tobytes(),
        "density_cost": rng.integers(0, 128, rows, dtype=np.uint8).tobytes(),
    }
    assert set(columns) == set(COLUMN_WIDTHS)
    fields: dict[str, Any] = {
        "request_id": uuid.uuid4().bytes,
        "campaign_id": campaign_id,
        "sequence": sequence,
        "model_version": 1,
        "label_schema_digest": campaign.label_schema.digest(),
        "day": 20_000,
        "row_count": rows,
        "replaces_older_versions": sequence == 1,
        **columns,
    }
    return candidate_pb2.CandidateBatch(**{**fields, **changes})


def reason_of(error: grpc.RpcError) -> str:
    """The stable reason of a refused call."""
    return dict(error.trailing_metadata() or ()).get("perimeter-reason", "")


def install_and_offer(machine, campaign_id, campaign, version, rows=12, seed=None, **columns):
    """What an agent does with a new version: report it, score its pool, say that it is done."""
    report = model_pb2.ReportInstallRequest(
        request_id=uuid.uuid4().bytes,
        campaign_id=campaign_id,
        version=version,
        state=model_pb2.INSTALL_STATE_INSTALLED,
    )
    machine.models.ReportInstall(report)
    machine.sequence += 1
    batch = make_batch(
        campaign_id,
        campaign,
        sequence=machine.sequence,
        rows=rows,
        model_version=version,
        replaces_older_versions=True,
        seed=seed,
        **columns,
    )
    machine.send(batch)
    machine.candidates.ReportPool(
        candidate_pb2.ReportPoolRequest(
            request_id=uuid.uuid4().bytes,
            campaign_id=campaign_id,
            model_version=version,
            day=20_000,
            class_counts=np.array([rows, 0, 0], dtype="<u4").tobytes(),
            complete=True,
        )
    )


def open_grants(machine):
    return list(machine.grants.ListGrants(grant_pb2.ListGrantsRequest(page_size=1000)).grants)


def report(machine, grants, state=grant_pb2.OUTCOME_STATE_LABELED, request_id=None, class_index=0):
    outcomes = [
        grant_pb2.Outcome(
            grant_id=grant.grant_id,
            state=state,
            class_index_plus_one=class_index + 1 if state == grant_pb2.OUTCOME_STATE_LABELED else 0,
        )
        for grant in grants
    ]
    request = grant_pb2.RecordOutcomesRequest(
        request_id=request_id or uuid.uuid4().bytes, outcomes=outcomes
    )
    return machine.grants.RecordOutcomes(request)


def campaign_status(status):
    return status["campaigns"][0]


def in_phase(phase, cycle):
    def check(status):
        campaign = campaign_status(status)
        return campaign["phase"] == phase and campaign["cycle"] == cycle

    return check


def run_cycle(central, sites, campaign_id, campaign, *, cycle):
    agents, portals = sites
    central.tick_until(in_phase("waiting", cycle))
    for number, agent in enumerate(agents):
        install_and_offer(agent, campaign_id, campaign, cycle, seed=number)
    central.tick_until(in_phase("labeling", cycle))
    granted = [open_grants(agent) for agent in agents]
    for portal, grants in zip(portals, granted, strict=True):
        report(portal, grants)
    return granted
