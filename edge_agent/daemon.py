"""The daemon: one turn does a little of everything, and a crash anywhere loses nothing.

`tick(now)` drives sources, model updates, scoring, upload, grants and release in that order.
Each part that fails waits by itself and says why in `perimeter-agent status`; the others go on.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from perimeter.v1 import enrollment_pb2

from edge_agent.backoff import Backoff
from edge_agent.config import AgentConfig, SourceConfig
from edge_agent.egress_copy import EgressCopy
from edge_agent.errors import AgentError, PeerUnavailable, SampleRefused, StorageError
from edge_agent.identity import Identity, IdentityFolder, certificate_end
from edge_agent.installer import Installer
from edge_agent.memory import return_free_memory
from edge_agent.pool import InferenceFailed, PoolScorer
from edge_agent.portal_client import PortalClient
from edge_agent.queue.journal import Refusal
from edge_agent.queue.stores import Stores
from edge_agent.release import Releaser
from edge_agent.retention import Retention
from edge_agent.sources.intake import Delivery, Intake
from edge_agent.sources.push import PushListener
from edge_agent.unmasking import Unmasker
from edge_agent.uplink import Uplink
from edge_agent.views import ViewMaker

_LOG = logging.getLogger("edge_agent")
_RETRY_REFUSED_SECONDS = 600.0


class Source(Protocol):
    """Something that is polled for samples."""

    config: SourceConfig

    def poll(self, now: float) -> Delivery:
        """Reads what is new, up to a limit."""
        ...

    def took(self, delivery: Delivery) -> None:
        """Learns that the queue holds a delivery."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the daemon works with.

    Attributes:
        config: Settings.
        stores: The queue.
        identity_folder: Certificate and keys.
        intake: The way into the queue.
        sources: Polled sources.
        listeners: Push sources.
        views: Makes masked views.
        installer: Model versions.
        uplink: The coordinator.
        portal: The site's portal.
        releaser: From grant to item.
        egress_copy: The ledger's way to the portal.
        unmasker: Answers approved questions for raw words.
        retention: Removes samples that are too old.
    """

    config: AgentConfig
    stores: Stores
    identity_folder: IdentityFolder
    intake: Intake
    sources: Sequence[Source]
    listeners: Sequence[PushListener]
    views: ViewMaker
    installer: Installer
    uplink: Uplink
    portal: PortalClient
    releaser: Releaser
    egress_copy: EgressCopy
    unmasker: Unmasker
    retention: Retention


class Daemon:
    """Turns everything.

    Args:
        parts: What it works with.
        identity: Who the device is.
        clock: Seconds since 1970.
        rng: Chance for pauses.
        wake: Set to end a pause early.
    """

    def __init__(
        self,
        parts: Parts,
        identity: Identity,
        clock: Callable[[], float],
        rng: Random,
        wake: threading.Event,
    ) -> None:
        self._parts = parts
        self._identity = identity
        self._clock = clock
        self._rng = rng
        self._wake = wake
        self._stopping = False
        self._gates: dict[str, Backoff] = {}
        self._faults: dict[str, str] = dict.fromkeys(parts.stores.conditions.all(), "")
        self._scorers: dict[bytes, PoolScorer] = {}
        self._drained: dict[str, bool | None] = {}  # None where a source did not answer
        self._poll_models_at = 0.0
        self._retry_refused_at = 0.0
        self._renewal_ratio = rng.uniform(0.45, 0.55)
        self._load_models()

    @property
    def scorers(self) -> Mapping[bytes, PoolScorer]:
        """The running model of each campaign."""
        return self._scorers

    def run(self) -> None:
        """Turns until `stop`; pauses when there is nothing to do."""
        for listener in self._parts.listeners:
            listener.start()
        try:
            busy = True
            while not self._stopping:
                self._wake.clear()
                more = self.tick(self._clock())
                if busy and not more:
                    return_free_memory()
                busy = more
                if not more:
                    self._wake.wait(self._parts.config.timing.tick_seconds)
        finally:
            self.close()

    def stop(self) -> None:
        """Ends `run` after the current turn."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Ends listeners, channels and the masking process; the queue stays."""
        for listener in self._parts.listeners:
            listener.stop()
        self._parts.uplink.forget_question()
        self._parts.uplink.client.close()
        self._parts.portal.close()
        self._parts.views.close()
        self._parts.stores.database.close()

    def tick(self, now: float) -> bool:
        """Does one turn.

        Args:
            now: Seconds since 1970.

        Returns:
            True when there is more to do right now.
        """
        self._attempt("identity", self._look_after_identity, now)
        more = [
            self._attempt(f"source {source.config.name}", self._source_turn(source), now)
            for source in self._parts.sources
        ]
        online = now < self._identity.expires_at
        if online:
            more.append(self._attempt("models", self._update_models, now, peer="coordinator"))
        for scorer in list(self._scorers.values()):
            name = f"scoring {scorer.campaign.name}"
            more.append(self._attempt(name, self._scoring_turn(scorer), now))
        if online:
            more.append(self._attempt("candidates", self._upload, now, peer="coordinator"))
            more.append(self._attempt("pool", self._report_pools, now, peer="coordinator"))
            more.append(self._attempt("grants", self._pull_grants, now, peer="coordinator"))
            more.append(self._attempt("release", self._release, now, peer="portal"))
            more.append(self._attempt("outcomes", self._report, now, peer="coordinator"))
            copy = self._parts.egress_copy
            more.append(self._attempt("egress copy", lambda _: copy.turn(), now, peer="portal"))
            more.append(self._attempt("unmasking", self._parts.unmasker.turn, now, peer="portal"))
        more.append(self._attempt("retention", self._parts.retention.turn, now))
        return any(more)

    def _attempt(
        self, name: str, work: Callable[[float], bool], now: float, *, peer: str = ""
    ) -> bool:
        """Runs one part unless it, or its peer, is waiting after a failure."""
        gates = [self._gate(name), *([self._gate(peer)] if peer else [])]
        answered = self._answer_count(peer)
        if not all(gate.is_due(now) for gate in gates):
            return False
        try:
            more = work(now)
        except PeerUnavailable as error:
            gates[-1].failed(now)
            self._note(peer or name, str(error), now)
            return False
        except (AgentError, OSError) as error:
            gates[0].failed(now)
            self._note(name, str(error), now)
            return False
        except Exception as error:  # noqa: BLE001 - one part's fault must not stop the others
            gates[0].failed(now)
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            # The text of a foreign error may hold content, so only its kind and place are kept.
            self._note(name, f"unexpected {type(error).__name__} at {where}", now)
            return False
        gates[0].succeeded()
        self._note(name, "", now)
        if self._answer_count(peer) != answered:
            # Only an answer proves that the peer is back; having had nothing to say does not.
            gates[-1].succeeded()
            self._note(peer, "", now)
        return more

    def _answer_count(self, peer: str) -> int:
        counts = {
            "coordinator": self._parts.uplink.client.answer_count,
            "portal": self._parts.portal.answer_count,
        }
        return counts.get(peer, 0)

    def _gate(self, name: str) -> Backoff:
        timing = self._parts.config.timing
        fresh = Backoff(timing.retry_first_seconds, timing.retry_longest_seconds, self._rng)
        return self._gates.setdefault(name, fresh)

    def _note(self, name: str, text: str, now: float) -> None:
        """Keeps what is wrong for `status`; says it once on the log."""
        if self._faults.get(name) == text or (not text and name not in self._faults):
            return
        if text:
            self._faults[name] = text
            _LOG.warning("%s: %s", name, text)
        else:
            self._faults.pop(name, None)
        try:
            self._parts.stores.conditions.set(name, text, now)
        except StorageError:
            _LOG.warning("the queue has no room for this note")

    def _source_turn(self, source: Source) -> Callable[[float], bool]:
        def turn(now: float) -> bool:
            name = source.config.name
            self._drained[name] = None
            if self._parts.intake.campaign_id(source.config) is None:
                return False
            self._parts.intake.make_room()
            try:
                delivery = source.poll(now)
            except SampleRefused as error:
                self._refuse_once(source, error, now)
                raise
            self._parts.intake.take(source.config, delivery, now)
            source.took(delivery)
            self._drained[name] = not delivery.more
            return delivery.more

        return turn

    def _refuse_once(self, source: Source, error: SampleRefused, now: float) -> None:
        """Logs that a whole file cannot be used, when this is news."""
        if self._faults.get(f"source {source.config.name}") != str(error):
            location = Path(source.config.path).name
            refusal = Refusal(source.config.name, error.reason, str(error), location)
            self._parts.stores.journal.record_refusals([refusal], now)

    def _scoring_turn(self, scorer: PoolScorer) -> Callable[[float], bool]:
        def turn(now: float) -> bool:
            drained = [self._drained.get(name) for name in scorer.polled_sources]
            try:
                return scorer.turn(now, more_to_come=False in drained)
            except InferenceFailed:
                campaign_id = scorer.campaign.campaign_id
                if self._parts.installer.book.get(campaign_id).previous:
                    self._parts.installer.book.roll_back(campaign_id)
                    self._load_model(campaign_id)
                raise

        return turn

    def _load_models(self) -> None:
        for name, campaign in self._parts.stores.campaigns.all().items():
            if name in self._parts.config.campaign_names():
                self._load_model(campaign.campaign_id)

    def _load_model(self, campaign_id: bytes) -> None:
        self._scorers.pop(campaign_id, None)
        known = self._parts.stores.campaigns.all().values()
        campaign = next((c for c in known if c.campaign_id == campaign_id), None)
        predictor = self._parts.installer.load(campaign_id)
        if campaign is not None and predictor is not None:
            self._scorers[campaign_id] = PoolScorer(
                campaign, predictor, self._parts.stores, self._parts.views, self._parts.config
            )

    def _update_models(self, now: float) -> bool:
        if now < self._poll_models_at:
            return False
        uplink = self._parts.uplink
        self._note("campaigns", uplink.learn_campaigns(), now)
        names = self._parts.config.campaign_names()
        for name, campaign in self._parts.stores.campaigns.all().items():
            if name not in names:
                continue
            changed = uplink.update_model(campaign, self._clock)
            if changed or campaign.campaign_id not in self._scorers:
                self._load_model(campaign.campaign_id)
            text = self._parts.installer.book.refused_text(campaign.campaign_id)
            self._note(f"model {name}", text, now)
        uplink.report_installs()
        self._poll_models_at = now + self._parts.config.timing.model_poll_seconds
        return False

    def _upload(self, now: float) -> bool:
        if now >= self._retry_refused_at:
            self._parts.stores.outbox.retry_refused()
            self._retry_refused_at = now + _RETRY_REFUSED_SECONDS
        return self._parts.uplink.upload()

    def _report_pools(self, now: float) -> bool:
        unsent = self._parts.stores.outbox.row_counts()
        for campaign_id, scorer in self._scorers.items():
            drained = all(self._drained.get(name) for name in scorer.polled_sources)
            if drained and scorer.is_done and not unsent.get(campaign_id):
                self._parts.uplink.report_pool(scorer, now)
        return False

    def _pull_grants(self, now: float) -> bool:  # noqa: ARG002 - one face for all parts
        return self._parts.uplink.pull_grants()

    def _release(self, now: float) -> bool:
        book = self._parts.stores.grants
        due = book.due(now)
        for held in due:
            verdict = self._parts.releaser.release(held, self._scorers, now)
            grant_id = held.grant.grant_id
            if verdict.outcome:
                book.settle(grant_id, verdict.outcome, reason=verdict.reason, now=now)
            else:
                pause = min(2.0**held.attempts, self._parts.config.timing.retry_longest_seconds)
                book.postpone(grant_id, until=now + pause, reason=verdict.reason)
        return bool(due)

    def _report(self, now: float) -> bool:  # noqa: ARG002 - one face for all parts
        self._parts.uplink.report_outcomes()
        return False

    def _look_after_identity(self, now: float) -> bool:
        """Takes over an identity that was renewed or enrolled anew, and renews at half-life."""
        folder = self._parts.identity_folder
        begins, expires = self._identity.begins_at, self._identity.expires_at
        if now >= expires:
            self._adopt(folder.load())
            if now >= self._identity.expires_at:
                end = certificate_end(self._identity.certificate_pem)
                self._note(
                    "certificate",
                    f"the certificate ended on {end}; run `perimeter-agent enroll` with a new join "
                    "token. Samples are scored and kept meanwhile",
                    now,
                )
            return False
        if now >= begins + (expires - begins) * self._renewal_ratio:
            self._attempt("renewal", self._renew, now, peer="coordinator")
        return False

    def _renew(self, now: float) -> bool:  # noqa: ARG002 - one face for all parts
        folder = self._parts.identity_folder
        pending = folder.pending_request()
        request = enrollment_pb2.RenewCertificateRequest(
            request_id=pending.request_id, csr_der=pending.request_der
        )
        folder.install(self._parts.uplink.client.renew(request))
        self._adopt(folder.load())
        return False

    def _adopt(self, identity: Identity) -> None:
        if identity.certificate_pem == self._identity.certificate_pem:
            return
        self._identity = identity
        self._parts.uplink.forget_question()
        self._parts.uplink.client.rebuild(identity)
        self._parts.portal.rebuild(identity)
        self._parts.releaser.grant_key = identity.grant_key
        self._note("certificate", "", self._clock())
