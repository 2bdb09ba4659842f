"""From a grant to an item in the portal: verify, find, mask, deliver. Safe to repeat at any step.

A crash after delivery delivers again, which the portal answers as a duplicate; the outcome is
decided only after that answer is here, and reported until the coordinator knows it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from perimeter.v1 import grant_pb2, item_pb2, model_pb2

from edge_agent.config import AgentConfig
from edge_agent.errors import PeerRefused, SealBroken
from edge_agent.masking.seam import Held
from edge_agent.pool import PoolScorer
from edge_agent.portal_client import PortalClient
from edge_agent.queue.grant_book import HeldGrant
from edge_agent.queue.samples import StoredSample, View
from edge_agent.queue.stores import Stores
from edge_agent.views import TRANSIENT, Raw, ViewMaker

MASK_ATTEMPTS_MAX = 3
KINDS = {
    "text": item_pb2.SAMPLE_KIND_TEXT,
    "image": item_pb2.SAMPLE_KIND_IMAGE,
    "series": item_pb2.SAMPLE_KIND_SERIES,
    "record": item_pb2.SAMPLE_KIND_RECORD,
}
_MISCONFIGURED = frozenset(
    {"IDENTITY", "SITE_FOREIGN", "UNAUTHENTICATED", "UNIMPLEMENTED", "NOT_FOUND"}
)
"""Refusals of the portal that say nothing about the item; they are tried again."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a grant.

    Attributes:
        outcome: Wire's `OutcomeState`; 0 to try again later.
        reason: Stable word; empty for a release.
    """

    outcome: int
    reason: str = ""


RELEASED = Verdict(grant_pb2.OUTCOME_STATE_RELEASED)


def refused(reason: str) -> Verdict:
    """Returns the verdict that nothing is shown, and why."""
    return Verdict(grant_pb2.OUTCOME_STATE_REFUSED, reason)


def grant_message(grant: grant_pb2.Grant) -> bytes:
    """Returns the canonical bytes that the signature covers.

    >>> len(grant_message(grant_pb2.Grant(grant_id=bytes(16), campaign_id=bytes(16),
    ...     candidate_id=bytes(16))))
    91
    """
    ids = grant.grant_id + grant.campaign_id + grant.candidate_id
    return (
        b"perimeter-grant-v1\0"
        + ids
        + struct.pack(
            "<IqIQ",
            grant.model_version,
            grant.expire_time.seconds,
            grant.reason,
            grant.ledger_sequence,
        )
    )


def judge_grant(grant: grant_pb2.Grant, grant_key: bytes, now: float) -> Verdict | None:
    """Returns why a grant permits nothing, or None when it holds.

    Args:
        grant: As it was pulled.
        grant_key: Ed25519 public key of the coordinator, 32 bytes.
        now: Seconds since 1970.
    """
    if any(len(i) != 16 for i in (grant.grant_id, grant.campaign_id, grant.candidate_id)):
        return refused("grant-malformed")
    try:
        key = Ed25519PublicKey.from_public_bytes(grant_key)
        key.verify(grant.signature, grant_message(grant))
    except InvalidSignature:
        return refused("grant-signature")
    if grant.expire_time.seconds <= now:
        return Verdict(grant_pb2.OUTCOME_STATE_EXPIRED, "expired")
    return None


class Releaser:
    """Releases granted samples to the portal.

    Args:
        stores: The queue.
        portal: The intake of the site's portal.
        views: Makes masked views.
        config: The sources' languages.
        grant_key: Ed25519 public key that signs grants.
    """

    def __init__(
        self,
        stores: Stores,
        portal: PortalClient,
        views: ViewMaker,
        config: AgentConfig,
        grant_key: bytes,
    ) -> None:
        self._stores = stores
        self._portal = portal
        self._views = views
        self._config = config
        self.grant_key = grant_key

    def release(self, held: HeldGrant, scorers: Mapping[bytes, PoolScorer], now: float) -> Verdict:
        """Does everything that a grant asks for.

        Raises:
            PeerUnavailable: The portal cannot be reached; the grant stays open.
            MaskingUnavailable: Masking cannot start; the grant stays open.
        """
        grant = held.grant
        verdict = judge_grant(grant, self.grant_key, now)
        if verdict is not None:
            return verdict
        try:
            candidate_id = self._candidate_of(grant)
            sample = self._stores.samples.find(grant.campaign_id, candidate_id)
        except SealBroken:
            return refused("sample-damaged")
        campaign = self._campaign(grant.campaign_id)
        if sample is None or campaign is None:
            return refused("candidate-unknown")
        view = self._view(sample, campaign)
        if isinstance(view, Held):
            again = view.reason in TRANSIENT and held.attempts + 1 < MASK_ATTEMPTS_MAX
            return Verdict(0, f"held-{view.reason}") if again else refused(f"held-{view.reason}")
        return self._deliver(self._item(held, sample, view, campaign, scorers))

    def _candidate_of(self, grant: grant_pb2.Grant) -> bytes:
        """A grant of a noised campaign names no sample; this device chooses its own best one."""
        if self._stores.privacy.account(grant.campaign_id) is None:
            return grant.candidate_id
        chosen = self._stores.bindings.bind(grant.campaign_id, grant.grant_id)
        return grant.candidate_id if chosen is None else chosen

    def _campaign(self, campaign_id: bytes) -> model_pb2.Campaign | None:
        known = self._stores.campaigns.all().values()
        return next((c for c in known if c.campaign_id == campaign_id), None)

    def _view(self, sample: StoredSample, campaign: model_pb2.Campaign) -> View | Held:
        source = self._config.source(sample.source)
        raw = Raw(sample.content, campaign.kind, source)
        if campaign.kind not in ("text", "record"):
            return self._views.make([raw])[0]
        key = self._views.policy_key(source)
        if sample.view is not None and sample.view_policy == key:
            return sample.view
        view = self._views.make([raw])[0]
        if isinstance(view, View):
            self._stores.samples.record_view(sample, key, view)
        return view

    def _language(self, sample: StoredSample) -> str:
        source = self._config.source(sample.source)
        return source.language if source else "en"

    def _item(
        self,
        held: HeldGrant,
        sample: StoredSample,
        view: View,
        campaign: model_pb2.Campaign,
        scorers: Mapping[bytes, PoolScorer],
    ) -> item_pb2.Item:
        item = item_pb2.Item(
            grant=held.grant,
            kind=KINDS[campaign.kind],
            content=view.content,
            mask_report=item_pb2.MaskReport.FromString(view.report),
            language=self._language(sample) if campaign.kind == "text" else "",
        )
        scorer = scorers.get(campaign.campaign_id)
        if scorer is not None:
            self._add_suggestion(item, scorer, sample, view)
        return item

    def _add_suggestion(
        self, item: item_pb2.Item, scorer: PoolScorer, sample: StoredSample, view: View
    ) -> None:
        """What the installed model says now, and the margin as the coordinator was told."""
        content = view.content if scorer.is_masked else sample.content
        probabilities, outputs = scorer.probabilities(content)
        item.probabilities = probabilities.astype("<f4").tobytes()
        item.model_version = scorer.predictor.version
        offered = self._stores.samples.offered_score(sample.candidate_id)
        columns = scorer.columns(outputs)
        if scorer.predictor.prototypes.any():
            item.prototype_class_plus_one = int(columns.prototype_classes[0]) + 1
        item.margin = offered.margin if offered else int(columns.margins[0])

    def _deliver(self, item: item_pb2.Item) -> Verdict:
        try:
            self._portal.deliver(item)
        except PeerRefused as error:
            if error.reason == "GRANT_EXPIRED":
                return Verdict(grant_pb2.OUTCOME_STATE_EXPIRED, "expired")
            if error.reason in _MISCONFIGURED:
                return Verdict(0, f"portal-{error.reason}")
            return refused(f"portal-{error.reason}")
        return RELEASED
