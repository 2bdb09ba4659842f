"""Messages to sites, made from values of the core."""

from __future__ import annotations

from google.protobuf import timestamp_pb2
from perimeter.v1 import grant_pb2, model_pb2

from coordinator.core.campaign import Campaign, CampaignState
from coordinator.core.entries import GrantState
from coordinator.core.ledger import GrantRecord
from coordinator.core.records import CampaignRecord
from coordinator.wire import OUTCOME_STATES

_NUMBERS = {state: number for number, state in OUTCOME_STATES.items()}
_CAMPAIGN_STATES = {
    CampaignState.ACTIVE: model_pb2.CAMPAIGN_STATE_ACTIVE,
    CampaignState.PAUSED: model_pb2.CAMPAIGN_STATE_PAUSED,
    CampaignState.COMPLETED: model_pb2.CAMPAIGN_STATE_COMPLETED,
}


def outcome_message(grant_id: bytes, state: GrantState | None) -> grant_pb2.RecordedOutcome:
    """Returns the answer for one outcome; an unknown grant is answered as unspecified."""
    number = grant_pb2.OUTCOME_STATE_UNSPECIFIED if state is None else _NUMBERS[state]
    return grant_pb2.RecordedOutcome(grant_id=grant_id, state=number)


def grant_message_of(record: GrantRecord, signature: bytes) -> grant_pb2.Grant:
    """Returns a grant as sites see it."""
    terms = record.terms
    return grant_pb2.Grant(
        grant_id=terms.grant_id,
        campaign_id=terms.campaign_id,
        candidate_id=terms.candidate_id,
        model_version=terms.model_version,
        expire_time=timestamp_pb2.Timestamp(seconds=terms.expires_at),
        reason=grant_pb2.GrantReason.Name(int(terms.reason)),
        ledger_sequence=record.granted_sequence,
        signature=signature,
    )


_EGRESS_MODES = {
    "rows": model_pb2.EGRESS_MODE_UNSPECIFIED,
    "histogram": model_pb2.EGRESS_MODE_HISTOGRAM,
}


def campaign_message(record: CampaignRecord, campaign: Campaign) -> model_pb2.Campaign:
    """Returns a campaign as sites see it; the guideline ends with a line per class that has one."""
    lines = [f"- **{name}**: {text}" for name, text in campaign.class_guidelines.items()]
    guideline = "\n\n".join(part for part in (campaign.guideline, "\n".join(lines)) if part)
    noised = campaign.egress == "histogram"
    return model_pb2.Campaign(
        campaign_id=record.campaign_id,
        name=record.name,
        state=_CAMPAIGN_STATES[record.state],
        label_schema_json=campaign.label_schema.canonical_json(),
        kind=campaign.kind,
        view=campaign.view,
        candidate_key_salt=record.salt,
        overlap_count=campaign.overlap_count,
        guideline=guideline,
        egress=_EGRESS_MODES[campaign.egress],
        epsilon_release_milli=round(1_000 * campaign.epsilon_release) if noised else 0,
        epsilon_total_milli=round(1_000 * campaign.epsilon_total) if noised else 0,
        equal_rows_max=campaign.equal_rows_max,
    )
