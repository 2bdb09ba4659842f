"""A coordinator and a portal in memory, behind real gRPC with real mutual TLS on loopback."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import secrets
import struct
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import grpc
from agent_models import SCHEMA, TEXT, signed_bundle
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from perimeter.v1 import (
    candidate_pb2,
    candidate_pb2_grpc,
    enrollment_pb2,
    enrollment_pb2_grpc,
    grant_pb2,
    grant_pb2_grpc,
    item_pb2,
    item_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

TRUST_DOMAIN = "test.perimeter"
SITE = "north"
FINAL = {3, 4, 5, 6, 2}


def pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    """A certificate authority."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = (
            self._builder(name, name, self.key.public_key(), 3600)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.der = self.certificate.public_bytes(serialization.Encoding.DER)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject, issuer, public_key, seconds, begins=-300):
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(seconds=begins))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
        )

    def issue(self, public_key, role="agent", name="a1", site=SITE, *, seconds=3600, begins=-300):
        uri = f"perimeter://{TRUST_DOMAIN}/site/{site}/{role}/{name}"
        names = [
            x509.UniformResourceIdentifier(uri),
            x509.DNSName(f"{role}.{site}.{TRUST_DOMAIN}"),
        ]
        if role == "coordinator":
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            self._builder(
                x509.Name([]), self.certificate.subject, public_key, seconds, begins=begins
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def server_credentials(self, role: str, *, mutual: bool, site: str = SITE):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.issue(key.public_key(), role, role, site)
        pair = (pem(key), certificate.public_bytes(serialization.Encoding.PEM))
        return grpc.ssl_server_credentials([pair], self.pem if mutual else None, mutual)


class Coordinator(
    candidate_pb2_grpc.CandidateServiceServicer,
    grant_pb2_grpc.GrantServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
    enrollment_pb2_grpc.EnrollmentServiceServicer,
    enrollment_pb2_grpc.IdentityServiceServicer,
):
    """Keeps everything it receives. `rows()` is the pool as the coordinator sees it."""

    def __init__(self, authority: Authority, port: int = 0) -> None:
        self.authority = authority
        self.release_key = Ed25519PrivateKey.generate()
        self.grant_key = Ed25519PrivateKey.generate()
        self.secrets: dict[bytes, bool] = {}
        self.enrolled: dict[bytes, tuple[bytes, enrollment_pb2.EnrollResponse]] = {}
        self.campaigns: dict[str, model_pb2.Campaign] = {}
        self.bundles: dict[tuple[bytes, int], bytes] = {}
        self.announced: dict[bytes, int] = {}
        self.batches: list[candidate_pb2.CandidateBatch] = []
        self.taken: dict[tuple[bytes, int], bytes] = {}
        self.reports: list[candidate_pb2.ReportPoolRequest] = []
        self.installs: list[model_pb2.ReportInstallRequest] = []
        self.grants: list[grant_pb2.Grant] = []
        self.outcomes: dict[bytes, list[int]] = defaultdict(list)
        self.received: list[bytes] = []
        self.refuse_batches = ""
        self.cut_download_after = 0
        self.acknowledge = True
        self.certificate_seconds = 3600
        self.renewals = 0
        self._arrived = threading.Condition()
        self._server: grpc.Server | None = None
        self.port = port
        self.start()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(16))
        for service, module in (
            ("CandidateService", candidate_pb2_grpc),
            ("GrantService", grant_pb2_grpc),
            ("ModelService", model_pb2_grpc),
            ("IdentityService", enrollment_pb2_grpc),
        ):
            getattr(module, f"add_{service}Servicer_to_server")(self, self._server)
        credentials = self.authority.server_credentials("coordinator", mutual=True)
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        self._server.start()
        self._enroll_server = grpc.server(ThreadPoolExecutor(2))
        enrollment_pb2_grpc.add_EnrollmentServiceServicer_to_server(self, self._enroll_server)
        self.enroll_port = self._enroll_server.add_secure_port(
            "127.0.0.1:0", self.authority.server_credentials("coordinator", mutual=False)
        )
        self._enroll_server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._enroll_server.stop(0).wait()

    def token(self, role: str = "agent", name: str = "a1", **changes) -> str:
        secret = secrets.token_bytes(32)
        self.secrets[secret] = False
        fields = {
            "enroll": f"127.0.0.1:{self.enroll_port}",
            "coordinator": f"127.0.0.1:{self.port}",
            "authority": base64.b64encode(self.authority.der).decode(),
            "secret": base64.b64encode(secret).decode(),
            "site": SITE,
            "role": role,
            "name": name,
        } | changes
        return "pmt1." + base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")

    def add_campaign(self, name="tickets", kind="text", view="raw") -> bytes:
        campaign_id = hashlib.sha256(name.encode()).digest()[:16]
        self.campaigns[name] = model_pb2.Campaign(
            campaign_id=campaign_id,
            name=name,
            state=model_pb2.CAMPAIGN_STATE_ACTIVE,
            label_schema_json=SCHEMA.canonical_json(),
            kind=kind,
            view=view,
            candidate_key_salt=bytes(16),
            overlap_count=1,
        )
        return campaign_id

    def publish(self, campaign_id: bytes, version: int, raw: bytes | None = None, **changes):
        changes.setdefault("features", TEXT)
        raw = raw or signed_bundle(campaign_id, version, self.release_key, **changes)
        self.bundles[campaign_id, version] = raw
        self.announced[campaign_id] = version

    def grant(self, campaign_id: bytes, candidate_id: bytes, *, expires_at: int, **changes):
        grant = grant_pb2.Grant(
            grant_id=changes.get("grant_id", secrets.token_bytes(16)),
            campaign_id=campaign_id,
            candidate_id=candidate_id,
            model_version=self.announced.get(campaign_id, 1),
            reason=grant_pb2.GRANT_REASON_USEFUL,
            ledger_sequence=len(self.grants) + 1,
        )
        grant.expire_time.seconds = expires_at
        message = (
            b"perimeter-grant-v1\0"
            + grant.grant_id
            + grant.campaign_id
            + grant.candidate_id
            + struct.pack(
                "<IqIQ", grant.model_version, expires_at, grant.reason, grant.ledger_sequence
            )
        )
        grant.signature = changes.get("key", self.grant_key).sign(message)
        with self._arrived:
            self.grants.append(grant)
            self._arrived.notify_all()
        return grant

    def rows(self, campaign_id: bytes) -> dict[bytes, int]:
        """Candidate id to model version, as the batches in order of arrival say."""
        pool: dict[bytes, int] = {}
        for batch in self.batches:
            if batch.campaign_id != campaign_id:
                continue
            if batch.replaces_older_versions:
                pool = {i: v for i, v in pool.items() if v >= batch.model_version}
            ids = [batch.candidate_ids[i : i + 16] for i in range(0, 16 * batch.row_count, 16)]
            pool |= dict.fromkeys(ids, batch.model_version)
        return pool

    # -- services ---------------------------------------------------------------------------------

    def Enroll(self, request, context):
        self.received.append(request.SerializeToString())
        if request.request_id in self.enrolled:
            return self.enrolled[request.request_id][1]
        if self.secrets.get(request.join_secret, True):
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, "JOIN_TOKEN_INVALID")
        self.secrets[request.join_secret] = True
        response = enrollment_pb2.EnrollResponse(
            certificate_der=self._certificate(request.csr_der),
            authority_der=self.authority.der,
            site_id=SITE,
            name="a1",
            release_public_key=self.release_key.public_key().public_bytes_raw(),
            grant_public_key=self.grant_key.public_key().public_bytes_raw(),
        )
        self.enrolled[request.request_id] = (request.join_secret, response)
        return response

    def _certificate(self, csr_der: bytes) -> bytes:
        csr = x509.load_der_x509_csr(csr_der)
        assert csr.is_signature_valid
        leaf = self.authority.issue(csr.public_key(), seconds=self.certificate_seconds)
        return leaf.public_bytes(serialization.Encoding.DER)

    def RenewCertificate(self, request, context):
        self.renewals += 1
        return enrollment_pb2.RenewCertificateResponse(
            certificate_der=self._certificate(request.csr_der)
        )

    def StreamCandidateBatches(self, requests, context):
        for batch in requests:
            self.received.append(batch.SerializeToString())
            if self.refuse_batches:
                refuse(context, grpc.StatusCode.FAILED_PRECONDITION, self.refuse_batches)
            key = (batch.campaign_id, batch.sequence)
            body = batch.SerializeToString(deterministic=True)
            if key in self.taken:
                assert self.taken[key] == body, "a sequence was used for two batches"
            else:
                latest = max((s for c, s in self.taken if c == key[0]), default=0)
                assert batch.sequence > latest
                self.taken[key] = body
                self.batches.append(batch)
            if not self.acknowledge:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut before the acknowledgement")
            yield candidate_pb2.CandidateBatchAck(
                sequence=batch.sequence, new_row_count=batch.row_count
            )

    def ReportPool(self, request, context):
        self.received.append(request.SerializeToString())
        self.reports.append(request)
        return candidate_pb2.ReportPoolResponse()

    def ListGrants(self, request, context):
        def found():
            return [g for g in self.grants if g.ledger_sequence > request.after_ledger_sequence]

        with self._arrived:
            self._arrived.wait_for(
                lambda: found() or not context.is_active(), timeout=request.wait_seconds
            )
            return grant_pb2.ListGrantsResponse(grants=found()[: request.page_size])

    def RecordOutcomes(self, request, context):
        answer = grant_pb2.RecordOutcomesResponse()
        for outcome in request.outcomes:
            if outcome.state not in (1, 6):
                refuse(context, grpc.StatusCode.PERMISSION_DENIED, "OUTCOME_NOT_YOURS")
            self.outcomes[outcome.grant_id].append(outcome.state)
            answer.outcomes.add(grant_id=outcome.grant_id, state=outcome.state)
        return answer

    def ListCampaigns(self, request, context):
        return model_pb2.ListCampaignsResponse(campaigns=self.campaigns.values())

    def GetModelVersion(self, request, context):
        version = self.announced.get(request.campaign_id, 0)
        raw = self.bundles.get((request.campaign_id, version), b"")
        return model_pb2.GetModelVersionResponse(
            version=version,
            size_bytes=len(raw),
            bundle_sha256=hashlib.sha256(raw).digest() if raw else b"",
        )

    def DownloadBundle(self, request, context):
        raw = self.bundles[request.campaign_id, request.version]
        for start in range(request.offset, len(raw), 1000):
            if self.cut_download_after and start >= self.cut_download_after:
                self.cut_download_after = 0
                context.abort(grpc.StatusCode.UNAVAILABLE, "the line broke")
            yield model_pb2.BundleChunk(content=raw[start : start + 1000])

    def ReportInstall(self, request, context):
        self.installs.append(request)
        return model_pb2.ReportInstallResponse()


class Portal(item_pb2_grpc.IntakeServiceServicer):
    """Takes items; a repeat of a grant changes nothing."""

    def __init__(self, authority: Authority, *, site: str = SITE) -> None:
        self.authority = authority
        self.items: dict[bytes, item_pb2.Item] = {}
        self.deliveries = 0
        self.egress_lines: list[bytes] = []
        self.unmaskings: list[item_pb2.Unmasking] = []
        self.answers: list[item_pb2.AnswerUnmaskingRequest] = []
        self.knows_unmasking = True
        self.asked_count = 0
        self.refuse_with: tuple[grpc.StatusCode, str] | None = None
        self.lose_answers = 0
        self.port = 0
        self.site = site
        self.start()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        item_pb2_grpc.add_IntakeServiceServicer_to_server(self, self._server)
        credentials = self.authority.server_credentials("portal", mutual=True, site=self.site)
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def RecordEgress(self, request, context):
        if self.refuse_with is not None:
            refuse(context, *self.refuse_with)
        self.egress_lines += [line for line in request.lines if line not in self.egress_lines]
        if not self.egress_lines:
            return item_pb2.RecordEgressResponse()
        last = json.loads(self.egress_lines[-1])
        return item_pb2.RecordEgressResponse(
            last_sequence=last["sequence"], last_digest=bytes.fromhex(last["digest"])
        )

    def ListUnmaskings(self, request, context):
        self.asked_count += 1
        if not self.knows_unmasking:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        answered = {answer.unmasking_id for answer in self.answers}
        waiting = [u for u in self.unmaskings if u.unmasking_id not in answered]
        return item_pb2.ListUnmaskingsResponse(unmaskings=waiting)

    def AnswerUnmasking(self, request, context):
        self.answers.append(request)
        return item_pb2.AnswerUnmaskingResponse(taken=True)

    def DeliverItem(self, request, context):
        self.deliveries += 1
        if self.refuse_with is not None:
            refuse(context, *self.refuse_with)
        duplicate = request.item.grant.grant_id in self.items
        self.items.setdefault(request.item.grant.grant_id, request.item)
        if self.lose_answers:
            self.lose_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return item_pb2.DeliverItemResponse(duplicate=duplicate)


def refuse(context, code: grpc.StatusCode, reason: str) -> None:
    context.set_trailing_metadata((("perimeter-reason", reason),))
    context.abort(code, "refused")
