"""Takes masked items from agents of the same site, over gRPC with mutual TLS."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from perimeter.v1 import item_pb2, item_pb2_grpc
from sqlalchemy import Connection

from review_portal import unmask_intake, wire
from review_portal.config import PortalConfig
from review_portal.core.model import Campaign, Refusal
from review_portal.egress.archive import EgressArchive, Taken
from review_portal.errors import EgressUnwritable
from review_portal.identity import Identity, Peer, peer_of
from review_portal.label_store import LabelStore
from review_portal.store import automatic, items
from review_portal.store.campaigns import CampaignSettings, find_campaign, settings_of
from review_portal.unmask_words import HeldWords

MESSAGE_SLACK_BYTES = 2 << 20
EVIDENCE_SECONDS = 60.0
EVIDENCE_MAX = 64
EGRESS_LINES_MAX = 1000
CODES = {
    "IDENTITY": grpc.StatusCode.PERMISSION_DENIED,
    "SITE_FOREIGN": grpc.StatusCode.PERMISSION_DENIED,
    "GRANT_SIGNATURE": grpc.StatusCode.PERMISSION_DENIED,
    "GRANT_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "CAMPAIGN_UNKNOWN": grpc.StatusCode.UNAVAILABLE,
    "EGRESS_UNWRITABLE": grpc.StatusCode.UNAVAILABLE,
    "MASK_POLICY": grpc.StatusCode.FAILED_PRECONDITION,
    "MASK_UNVERIFIED": grpc.StatusCode.FAILED_PRECONDITION,
}


@dataclass(frozen=True)
class IntakeDesk:
    """What intake needs.

    Attributes:
        store: Where items go.
        config: Limits and known masking policies.
        identity: The portal's own.
        clock: Seconds since the epoch.
        egress: Where copies of the agents' ledgers go.
        words: Where raw words wait for their one viewing; shared with the pages.
        campaign_missing: Called when an item's campaign is not known yet.
        thresholds: When and what `automatic.supported` said last, by campaign, model version and
            settings.
    """

    store: LabelStore
    config: PortalConfig
    identity: Identity
    clock: Callable[[], float]
    egress: EgressArchive
    words: HeldWords = field(default_factory=HeldWords)
    campaign_missing: Callable[[], None] = lambda: None
    thresholds: dict[tuple[bytes, int, CampaignSettings], tuple[float, float | None]] = field(
        default_factory=dict
    )

    def take(self, request: item_pb2.DeliverItemRequest, peer: Peer | None) -> bool | Refusal:
        """Takes one item, durably.

        Returns:
            True when it was there before, False when it is new, or a refusal.
        """
        refused = self._check(request, peer)
        if refused is not None:
            return refused
        item = request.item
        now = self.clock()
        found = self.store.database.read(lambda c: find_campaign(c, item.grant.campaign_id))
        if found is None:
            self.campaign_missing()
            return Refusal("CAMPAIGN_UNKNOWN", "the portal does not know this campaign yet; retry")
        new = wire.read_item(item, found)
        if isinstance(new, Refusal):
            return new
        refused = wire.check_content(new.kind, new.content, bytes_max=self.config.content_bytes_max)
        if refused is not None:
            return refused
        actor = f"agent:{peer.name}" if peer else "agent"

        threshold = self._auto_threshold(found, new.model_version, now)

        def work(connection: Connection) -> bool:
            settings = settings_of(connection, found.campaign_id)
            intake = items.Intake(found, settings, self.store.keys, now)
            fresh = items.receive(connection, intake, new, actor)
            if fresh:
                automatic.consider(connection, intake, new, threshold)
            return fresh

        return not self.store.database.write(work)

    def _auto_threshold(self, campaign: Campaign, model_version: int, now: float) -> float | None:
        """Works the evidence out at most once a minute, and on a reader."""
        settings = self.store.database.read(lambda c: settings_of(c, campaign.campaign_id))
        key = (campaign.campaign_id, model_version, settings)
        known = self.thresholds.get(key)
        if known is None or now - known[0] > EVIDENCE_SECONDS:
            found = self.store.database.read(
                lambda c: automatic.supported(c, campaign.campaign_id, model_version, settings)
            )
            if len(self.thresholds) >= EVIDENCE_MAX:
                self.thresholds.clear()
            known = self.thresholds[key] = (now, found)
        return known[1]

    def take_egress(
        self, request: item_pb2.RecordEgressRequest, peer: Peer | None
    ) -> Taken | Refusal:
        """Takes lines of the caller's own ledger, durably; whose it is, the certificate says."""
        refused = self._check_peer(peer)
        if refused is not None or peer is None:
            return refused or Refusal("IDENTITY", "only agents hand over ledgers")
        if len(request.lines) > EGRESS_LINES_MAX:
            return Refusal("EGRESS_LINES", f"at most {EGRESS_LINES_MAX} lines at once")
        try:
            taken = self.egress.take(f"agent/{peer.name}", request.lines, self.clock())
        except EgressUnwritable:
            return Refusal("EGRESS_UNWRITABLE", "the portal has no room for the ledger; retry")
        if taken.malformed_count:
            return Refusal("EGRESS_MALFORMED", "a line is no record of an egress ledger")
        return taken

    def unmaskings(self, peer: Peer | None) -> list[item_pb2.Unmasking] | Refusal:
        """Returns the viewings that wait for an answer of the caller."""
        refused = self._check_peer(peer)
        if refused is not None or peer is None:
            return refused or Refusal("IDENTITY", "only agents answer unmaskings")
        return unmask_intake.waiting(self.store, peer.name, self.clock())

    def take_answer(
        self, request: item_pb2.AnswerUnmaskingRequest, peer: Peer | None
    ) -> bool | Refusal:
        """Takes a device's answer: the words into memory, all else into the store."""
        refused = self._check_peer(peer)
        if refused is not None or peer is None:
            return refused or Refusal("IDENTITY", "only agents answer unmaskings")
        desk = unmask_intake.AnswerDesk(self.store, self.words, peer.name, self.clock())
        return unmask_intake.take(desk, request)

    def _check_peer(self, peer: Peer | None) -> Refusal | None:
        if peer is None or peer.role != "agent" or peer.trust_domain != self.identity.trust_domain:
            return Refusal("IDENTITY", "only agents deliver items")
        if peer.site_id != self.identity.site_id:
            return Refusal("SITE_FOREIGN", "only agents of this site deliver items here")
        return None

    def _check(self, request: item_pb2.DeliverItemRequest, peer: Peer | None) -> Refusal | None:
        refused = self._check_peer(peer)
        if refused is not None:
            return refused
        if len(request.request_id) != 16:
            return Refusal("REQUEST_ID", "request_id has 16 bytes")
        item = request.item
        refused = wire.check_grant(item.grant, self.identity.grant_public_key, now=self.clock())
        return refused or wire.check_mask_report(item, self.config.mask_policy_versions)


class IntakeServicer(item_pb2_grpc.IntakeServiceServicer):
    """Answers agents."""

    def __init__(self, desk: IntakeDesk) -> None:
        self._desk = desk

    def DeliverItem(  # noqa: N802  the name is the wire's
        self, request: item_pb2.DeliverItemRequest, context: grpc.ServicerContext
    ) -> item_pb2.DeliverItemResponse:
        """Takes one item; durable when answered."""
        taken = self._desk.take(request, _caller(context))
        if isinstance(taken, Refusal):
            _refuse(context, taken)
        return item_pb2.DeliverItemResponse(duplicate=taken)

    def RecordEgress(  # noqa: N802  the name is the wire's
        self, request: item_pb2.RecordEgressRequest, context: grpc.ServicerContext
    ) -> item_pb2.RecordEgressResponse:
        """Takes lines of the caller's egress ledger; durable when answered."""
        taken = self._desk.take_egress(request, _caller(context))
        if isinstance(taken, Refusal):
            _refuse(context, taken)
        return item_pb2.RecordEgressResponse(
            last_sequence=taken.last_sequence, last_digest=bytes.fromhex(taken.last_digest)
        )

    def ListUnmaskings(  # noqa: N802  the name is the wire's
        self, request: item_pb2.ListUnmaskingsRequest, context: grpc.ServicerContext
    ) -> item_pb2.ListUnmaskingsResponse:
        """Says which raw words of the caller's items somebody was allowed to see, just now."""
        del request
        found = self._desk.unmaskings(_caller(context))
        if isinstance(found, Refusal):
            _refuse(context, found)
        return item_pb2.ListUnmaskingsResponse(unmaskings=found)

    def AnswerUnmasking(  # noqa: N802  the name is the wire's
        self, request: item_pb2.AnswerUnmaskingRequest, context: grpc.ServicerContext
    ) -> item_pb2.AnswerUnmaskingResponse:
        """Takes a device's answer to one viewing."""
        taken = self._desk.take_answer(request, _caller(context))
        if isinstance(taken, Refusal):
            _refuse(context, taken)
        return item_pb2.AnswerUnmaskingResponse(taken=taken)


def _caller(context: grpc.ServicerContext) -> Peer | None:
    pems: Any = context.auth_context().get("x509_pem_cert", ())
    return peer_of(pems[0]) if pems else None


def _refuse(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    context.set_trailing_metadata((("perimeter-reason", refusal.reason),))
    context.abort(CODES.get(refusal.reason, grpc.StatusCode.INVALID_ARGUMENT), refusal.message)


def start_intake(desk: IntakeDesk) -> tuple[grpc.Server, int]:
    """Starts the intake with the portal's certificate, which is read again when it is renewed.

    Returns:
        The server and its port.
    """
    config = desk.config
    server = grpc.server(
        ThreadPoolExecutor(config.intake_threads, thread_name_prefix="intake"),
        options=(
            ("grpc.max_receive_message_length", config.content_bytes_max + MESSAGE_SLACK_BYTES),
            ("grpc.so_reuseport", 0),
        ),
    )
    register: Any = item_pb2_grpc.add_IntakeServiceServicer_to_server
    register(IntakeServicer(desk), server)
    address = f"{config.intake_host}:{config.intake_port}"
    port = server.add_secure_port(address, _credentials(desk.identity))
    server.start()
    return server, port


def _credentials(identity: Identity) -> grpc.ServerCredentials:
    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(identity.pem("key.pem"), identity.pem("cert.pem"))], identity.pem("ca.pem")
        )

    last = identity.pem("cert.pem")
    first = configuration()

    def renewed() -> Any:
        nonlocal last
        now = identity.pem("cert.pem")
        if now == last:
            return None
        last = now
        return configuration()

    return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=True)
