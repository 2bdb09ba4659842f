"""The conversations with the coordinator, one method each; the daemon decides when.

Every method may be repeated: what was not acknowledged is still in the queue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from perimeter.v1 import candidate_pb2, grant_pb2, model_pb2

from edge_agent.config import AgentConfig
from edge_agent.coordinator_client import CoordinatorClient, PendingGrants
from edge_agent.errors import PeerRefused
from edge_agent.histograms import ReleaseTerms, release_of
from edge_agent.installer import Announcement, Installer
from edge_agent.pool import SECONDS_PER_DAY, PoolScorer
from edge_agent.queue.grant_book import HeldGrant
from edge_agent.queue.outbox import SealedBatch
from edge_agent.queue.stores import Stores

REPORTABLE = frozenset({grant_pb2.OUTCOME_STATE_RELEASED, grant_pb2.OUTCOME_STATE_REFUSED})
"""Outcomes that an agent reports; the coordinator's own clock expires a grant."""


class Uplink:
    """Speaks with the coordinator on behalf of the queue.

    Args:
        config: Names of the campaigns and the rhythm.
        stores: The queue.
        client: The coordinator's services.
        installer: Takes model versions.
        wake: Called when grants arrive.
    """

    def __init__(
        self,
        config: AgentConfig,
        stores: Stores,
        client: CoordinatorClient,
        installer: Installer,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._stores = stores
        self._installer = installer
        self._wake = wake
        self._pending: PendingGrants | None = None
        self._grants_after = 0
        self.client = client

    def learn_campaigns(self) -> str:
        """Asks for the site's campaigns; returns what is missing, for people."""
        campaigns = self.client.list_campaigns()
        wanted = set(self._config.campaign_names())
        self._stores.campaigns.record(c for c in campaigns if c.name in wanted)
        missing = sorted(wanted - {c.name for c in campaigns})
        if missing:
            return (
                f"the coordinator offers this site no campaign called {', '.join(missing)}; "
                "check `campaign` of the sources, or ask the operator"
            )
        return ""

    def update_model(self, campaign: model_pb2.Campaign, clock: Callable[[], float]) -> bool:
        """Installs the version that the coordinator wants here; True when it changed."""
        known = self._installer.book.get(campaign.campaign_id)
        answer = self.client.model_version(campaign.campaign_id, known.current)
        announced = Announcement(
            campaign.campaign_id, answer.version, answer.size_bytes, answer.bundle_sha256
        )
        if not self._installer.wants(announced):
            return False
        return self._installer.install(announced, campaign, self.client, clock)

    def report_installs(self) -> None:
        """Tells the coordinator what became of versions."""
        for report in self._installer.book.unreported():
            self.client.report_install(report)
            self._installer.book.reported(report)

    def upload(self) -> bool:
        """Sends waiting batches, each acknowledged before the next; True when more wait."""
        batches = self._stores.outbox.waiting()
        if not batches:
            return False
        stream = self.client.open_candidate_stream()
        try:
            for batch in batches:
                self._send(stream.send, batch)
        finally:
            stream.close()
        return bool(self._stores.outbox.waiting(count_max=1))

    def _send(
        self,
        send: Callable[[candidate_pb2.CandidateBatch], candidate_pb2.CandidateBatchAck],
        batch: SealedBatch,
    ) -> None:
        try:
            ack = send(candidate_pb2.CandidateBatch.FromString(batch.body))
        except PeerRefused as error:
            self._stores.outbox.mark_refused(batch, error.reason)
            raise
        if ack.sequence == batch.sequence:
            self._stores.outbox.acknowledge(batch)

    def report_pool(self, scorer: PoolScorer, now: float) -> bool:
        """Reports a pool that was scored and sent to the end; True when it was news."""
        campaign_id = scorer.campaign.campaign_id
        number = self._stores.outbox.next_report(campaign_id)
        totals = self._stores.outbox.totals(campaign_id)
        if number is None or totals is None:
            return False
        if scorer.is_noised:
            self._release(scorer, now)
        counter = number.to_bytes(8, "little")
        self.client.report_pool(
            candidate_pb2.ReportPoolRequest(
                request_id=self._stores.sealer.keyed_id(b"pool", campaign_id, counter),
                campaign_id=campaign_id,
                model_version=totals.model_version,
                day=int(now) // SECONDS_PER_DAY,
                class_counts=totals.class_counts.astype("<u4").tobytes(),
                top_probability_sum=totals.top_probability_sum,
                top_probability_square_sum=totals.top_probability_square_sum,
                complete=True,
            )
        )
        self._stores.outbox.record_report(campaign_id, number, totals)
        return True

    def _release(self, scorer: PoolScorer, now: float) -> None:
        """Sends the one noised histogram of a version, the same bytes at every repeat.

        Where the campaign's limit forbids it nothing is sent, and the coordinator goes on with the
        histogram that it has. Totals of a noised pool stay at zero: they would be exact.
        """
        version = scorer.predictor.version
        number = version.to_bytes(8, "little")
        terms = ReleaseTerms(
            campaign=scorer.campaign,
            model_version=version,
            label_schema_digest=scorer.predictor.manifest.label_schema.digest(),
            day=int(now) // SECONDS_PER_DAY,
            request_id=self._stores.sealer.keyed_id(
                b"histogram", scorer.campaign.campaign_id, number
            ),
        )
        message = release_of(self._stores.privacy, terms, scorer.counts)
        if message is not None:
            self.client.report_histogram(message)

    def pull_grants(self) -> bool:
        """Looks after the one open question for grants; True when some arrived."""
        if self._pending is None:
            self._pending = self.client.ask_for_grants(
                self._grants_after, self._config.timing.grant_wait_seconds
            )
            self._pending.on_done(self._wake)
            return False
        pending = self._pending
        try:
            grants = pending.take()
        except BaseException:
            self._pending = None
            raise
        if grants is None:
            return False
        self._pending = None
        if not grants:
            return True
        self._stores.grants.add(grants)
        self._grants_after = max(self._grants_after, *(g.ledger_sequence for g in grants))
        return True

    def forget_question(self) -> None:
        """Withdraws the open question, before the channel is replaced or the daemon ends."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def report_outcomes(self) -> None:
        """Tells the coordinator what became of grants."""
        waiting = self._stores.grants.unreported()
        silent = [held.grant.grant_id for held in waiting if held.outcome not in REPORTABLE]
        if silent:
            self._stores.grants.mark_reported(silent)
        told = [held for held in waiting if held.outcome in REPORTABLE]
        if not told:
            return
        try:
            self._record(told)
        except PeerRefused:
            # One outcome that the coordinator refuses must not hold up the others.
            for held in told:
                self._record_alone(held)

    def _record_alone(self, held: HeldGrant) -> None:
        try:
            self._record([held])
        except PeerRefused as error:
            self._stores.grants.mark_disputed(held.grant.grant_id, f"coordinator-{error.reason}")

    def _record(self, told: Sequence[HeldGrant]) -> None:
        request = outcomes_request({held.grant.grant_id: held.outcome for held in told})
        self.client.record_outcomes(request)
        self._stores.grants.mark_reported([held.grant.grant_id for held in told])


def outcomes_request(outcomes: Mapping[bytes, int]) -> grant_pb2.RecordOutcomesRequest:
    """Builds the request for outcomes; the same outcomes give the same request id.

    >>> a, b = (outcomes_request({bytes(16): 1}) for _ in range(2))
    >>> a.request_id == b.request_id
    True
    """
    request = grant_pb2.RecordOutcomesRequest()
    for grant_id, outcome in outcomes.items():
        name = grant_pb2.OutcomeState.Name(outcome)
        request.outcomes.append(grant_pb2.Outcome(grant_id=grant_id, state=name))
    body = request.SerializeToString(deterministic=True)
    request.request_id = hashlib.sha256(b"perimeter-outcomes\0" + body).digest()[:16]
    return request
