"""The portal's side of the coordinator: campaigns come in, outcomes and totals go out.

One thread does it all, so that nothing a person does waits for the coordinator. Outcomes lie in
the label store's outbox until the coordinator has answered; a coordinator that is away for days
costs nothing but patience.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from perimeter.v1 import grant_pb2, model_pb2
from sqlalchemy import Connection

from model_bundle.errors import BundleError
from model_bundle.label_schema import LabelSchema
from review_portal.core.model import Kind
from review_portal.egress.guard import EgressGuard
from review_portal.enrollment import is_half_over, renew
from review_portal.errors import EgressRefused, EgressUnwritable
from review_portal.identity import Identity
from review_portal.label_store import LabelStore
from review_portal.site_report import site_report
from review_portal.store import items, outbox
from review_portal.store.campaigns import NewCampaign

logger = logging.getLogger(__name__)

CALL_SECONDS = 20
DECISION_SECONDS_MAX = 3600
WAIT_SECONDS_MAX = 60.0
_STATES = {
    model_pb2.CAMPAIGN_STATE_ACTIVE: "ACTIVE",
    model_pb2.CAMPAIGN_STATE_PAUSED: "PAUSED",
    model_pb2.CAMPAIGN_STATE_COMPLETED: "COMPLETED",
}


def next_wait(failed_count: int, poll_seconds: float, jitter: float) -> float:
    """Returns how long to wait before the next try.

    Args:
        failed_count: Failures in a row.
        poll_seconds: Wait when all is well.
        jitter: In [0, 1], so that sites do not come back at the same moment.

    >>> next_wait(0, 5.0, 0.5), next_wait(2, 5.0, 1.0), next_wait(30, 5.0, 1.0)
    (5.0, 20.0, 60.0)
    """
    if failed_count == 0:
        return poll_seconds
    doubled = poll_seconds * float(2 ** min(failed_count, 10))
    return min(WAIT_SECONDS_MAX, doubled) * (0.5 + jitter / 2)


@dataclass
class LinkState:
    """How the link is doing, for the site lead's page."""

    last_contact_at: float = 0.0
    failed_count: int = 0
    last_error: str = ""


@dataclass
class CoordinatorLink:
    """Talks to the coordinator from one thread.

    Attributes:
        store: Where campaigns go and outcomes wait.
        identity: The portal's own.
        clock: Seconds since the epoch.
        poll_seconds: Rhythm when all is well.
        report_seconds: Rhythm of the site's totals.
        chance: Numbers in [0, 1).
        guard: The one way out; checks and records every message.
        chore: Done after each turn, whether the coordinator answered or not.
    """

    store: LabelStore
    identity: Identity
    clock: Callable[[], float]
    poll_seconds: float
    report_seconds: float
    chance: Callable[[], float]
    guard: EgressGuard
    chore: Callable[[float], object] = lambda _: None
    state: LinkState = field(default_factory=LinkState)
    _wake: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _channel: grpc.Channel | None = None
    _channel_certificate: bytes = b""
    _reported_at: float = 0.0

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="coordinator-link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread; what was not sent stays in the outbox."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=CALL_SECONDS)
        if self._channel is not None:
            self._channel.close()

    def wake(self) -> None:
        """Asks for a turn now: something waits to be sent, or a campaign is missing."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.turn()
            self._wake.wait(next_wait(self.state.failed_count, self.poll_seconds, self.chance()))
            self._wake.clear()

    def turn(self) -> bool:
        """Does everything that is due, once. Returns whether the coordinator answered."""
        try:
            self._renew_if_due()
            self.fetch_campaigns()
            self.send_outcomes()
            self._report_if_due()
        except (grpc.RpcError, EgressRefused, EgressUnwritable) as error:
            self.state.failed_count += 1
            self.state.last_error = _code_of(error)
            logger.warning("coordinator not reached: %s", self.state.last_error)
            return False
        finally:
            now = self.clock()
            self.store.database.write(lambda c: items.expire(c, now))
            self.chore(now)
        self.state.failed_count = 0
        self.state.last_contact_at = self.clock()
        return True

    def channel(self) -> grpc.Channel:
        """Returns the channel, made anew when the certificate was renewed."""
        certificate = self.identity.pem("cert.pem")
        if self._channel is None or certificate != self._channel_certificate:
            if self._channel is not None:
                self._channel.close()
            credentials = grpc.ssl_channel_credentials(
                self.identity.pem("ca.pem"), self.identity.pem("key.pem"), certificate
            )
            self._channel = grpc.secure_channel(self.identity.coordinator, credentials)
            self._channel_certificate = certificate
        return self._channel

    def _renew_if_due(self) -> None:
        if is_half_over(self.identity.pem("cert.pem"), self.clock()):
            renew(self.identity, self._send)

    def _send(self, method: str, request: Message) -> Any:
        return self.guard.call(self.channel(), method, request, seconds=CALL_SECONDS)

    def fetch_campaigns(self) -> int:
        """Takes over campaigns of this site. Returns how many changed."""
        response = self._send(
            "perimeter.v1.ModelService/ListCampaigns", model_pb2.ListCampaignsRequest()
        )
        changed = 0
        for campaign in response.campaigns:
            new = read_campaign(campaign)
            if new is not None:
                changed += self.store.put_campaign(new, self.clock())
        return changed

    def send_outcomes(self) -> int:
        """Sends what is due from the outbox. Returns how many the coordinator answered."""
        sent = 0
        while True:
            now = self.clock()
            due = self.store.database.write(lambda c, at=now: outbox.claim(c, at))  # type: ignore[misc]
            if not due:
                return sent
            answered = self._record(due)
            self.store.database.write(
                lambda c, at=now, done=answered: outbox.mark_sent(c, done, at)  # type: ignore[misc]
            )
            sent += len(answered)
            if len(answered) < len(due):
                return sent

    def _record(self, due: Sequence[outbox.OutcomeRow]) -> list[tuple[int, str]]:
        # A grant's RELEASED goes before its final state, in a call of its own.
        passing = [row for row in due if row.state == "RELEASED"]
        final = [row for row in due if row.state != "RELEASED"]
        answered: list[tuple[int, str]] = []
        for rows in (passing, final):
            if rows:
                request = grant_pb2.RecordOutcomesRequest(
                    request_id=uuid.uuid4().bytes, outcomes=[_outcome(row) for row in rows]
                )
                response = self._send("perimeter.v1.GrantService/RecordOutcomes", request)
                answered += _match(rows, response)
        return answered

    def _report_if_due(self) -> None:
        now = self.clock()
        if now - self._reported_at < self.report_seconds:
            return
        for campaign in self.store.campaigns():

            def work(connection: Connection, campaign: Any = campaign) -> Any:
                return site_report(connection, campaign, now)

            report = self.store.database.read(work)
            self._send("perimeter.v1.CandidateService/ReportSite", report)
        self._reported_at = now


def read_campaign(campaign: model_pb2.Campaign) -> NewCampaign | None:
    """Builds a campaign from the wire; None for one that this portal cannot show."""
    try:
        schema = LabelSchema.from_json(campaign.label_schema_json)
        kind = Kind(campaign.kind)
    except (BundleError, ValueError) as error:
        logger.warning("campaign %s is left out: %s", campaign.name, error)
        return None
    return NewCampaign(
        campaign_id=campaign.campaign_id,
        name=campaign.name,
        kind=kind,
        schema=schema,
        state=_STATES.get(campaign.state, "PAUSED"),
        overlap_count=min(max(campaign.overlap_count, 1), 5),
        guideline=campaign.guideline,
    )


def _outcome(row: outbox.OutcomeRow) -> grant_pb2.Outcome:
    return grant_pb2.Outcome(
        grant_id=row.grant_id,
        state=f"OUTCOME_STATE_{row.state}",
        suggestion=grant_pb2.SuggestionVerdict.Name(row.suggestion_verdict),
        decision_seconds=min(row.decision_seconds, DECISION_SECONDS_MAX),
        class_index_plus_one=row.class_index_plus_one,
    )


def _match(
    rows: Sequence[outbox.OutcomeRow], response: grant_pb2.RecordOutcomesResponse
) -> list[tuple[int, str]]:
    states = {
        entry.grant_id: grant_pb2.OutcomeState.Name(entry.state).removeprefix("OUTCOME_STATE_")
        for entry in response.outcomes
    }
    return [(r.outbox_id, states[r.grant_id]) for r in rows if r.grant_id in states]


def _code_of(error: Any) -> str:
    if isinstance(error, EgressRefused | EgressUnwritable):
        return str(error)
    if not hasattr(error, "code"):
        return type(error).__name__
    reasons = dict(error.trailing_metadata() or ())
    return f"{error.code().name} {reasons.get('perimeter-reason', '')}".strip()
