"""One function per call of a site: decide with the core, record in one transaction, answer.

Callers are authenticated and messages checked before they come here; identity comes from `Caller`,
never from a message. A "no" is returned as a `Refusal`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from coordinator.access import machine_of
from coordinator.core.campaign import Campaign
from coordinator.core.entries import GrantState, grant_message
from coordinator.core.ledger import GrantRecord, OutcomeReport
from coordinator.core.records import (
    AnswerRecord,
    CampaignRecord,
    InstallRecord,
    ModelVersionRecord,
    ParticipantRecord,
    PoolReportRecord,
    SegmentRecord,
    SiteReportRecord,
)
from coordinator.core.refusals import Reason, Refusal
from coordinator.core.rollout import VersionState
from coordinator.errors import StoreError
from coordinator.identity import Caller
from coordinator.office import AgentStream, Office
from coordinator.registry import offered_version
from coordinator.store import Writer
from coordinator.wire import Batch, InstallNote, PoolReport, SiteReport

AGENT_OUTCOMES = frozenset({GrantState.RELEASED, GrantState.REFUSED, GrantState.DECLINED})


def find_campaign(
    office: Office, caller: Caller, campaign_id: bytes
) -> tuple[CampaignRecord, Campaign] | Refusal:
    """Returns a campaign in which the caller's site takes part."""
    record = office.store.get(CampaignRecord, campaign_id)
    campaign = office.campaign(record) if record else None
    if record is None or campaign is None or caller.site_id not in campaign.sites:
        # One answer for both, so that a site learns nothing about campaigns of others.
        return Refusal(Reason.CAMPAIGN_UNKNOWN, "your site takes part in no such campaign")
    return record, campaign


@dataclasses.dataclass(frozen=True)
class RequestKey:
    """What tells a repeat from a new request: the caller's label, the id, and the digest."""

    caller: str
    request_id: bytes
    sha256: bytes


def recall(office: Office, key: RequestKey) -> bytes | Refusal | None:
    """Returns the first answer to a request, None when it is new, or a refusal of a reused id."""
    answer = office.store.get(AnswerRecord, key.caller, key.request_id)
    if answer is None:
        return None
    if answer.request_sha256 != key.sha256:
        return Refusal(Reason.REQUEST_ID_REUSED, "the request id belongs to another request")
    return answer.response


def remember(
    office: Office, key: RequestKey, response: bytes, write: Callable[[Writer], None]
) -> Callable[[Writer], None]:
    """Returns a write that keeps the response beside what `write` does, in one transaction."""
    answer = AnswerRecord(key.caller, key.request_id, key.sha256, response, office.clock())

    def write_both(writer: Writer) -> None:
        write(writer)
        writer.add(answer)

    return write_both


@dataclasses.dataclass(frozen=True)
class BatchReceipt:
    """The batch with this sequence is durable; `new_row_count` rows were never seen before."""

    sequence: int
    new_row_count: int


def take_batch(office: Office, caller: Caller, batch: Batch) -> BatchReceipt | Refusal:
    """Stores a batch of candidates whole, or refuses it whole; a repeat gets the first receipt."""
    found = find_campaign(office, caller, batch.campaign_id)
    if isinstance(found, Refusal):
        return found
    refusal = _judge_batch(office, found[1], batch)
    if refusal is not None:
        return refusal
    generation = machine_of(office, caller).generation
    stream = _stream_of(office, caller, batch.campaign_id, generation)
    if batch.sequence <= stream.last_sequence:
        return _first_receipt(office, caller, batch, generation)
    new_rows = stream.ids.add(batch.columns["candidate_ids"])
    head = _segment_head(caller, generation, batch, new_rows)
    try:
        office.commit((), lambda writer: writer.add_segment(head, batch.columns))
    except StoreError:
        # What the stream remembers is no longer what is stored; it is read again.
        office.streams.clear()
        raise
    stream.last_sequence = batch.sequence
    return BatchReceipt(batch.sequence, new_rows)


def judge_version(office: Office, campaign_id: bytes, version: int) -> Refusal | None:
    """Returns why no pool can have been scored by a version, or None."""
    known = office.store.get(ModelVersionRecord, campaign_id, version)
    if known is None or known.state is VersionState.CANDIDATE:
        return Refusal(Reason.MODEL_VERSION_UNKNOWN, "no such model version was released")
    return None


def _first_receipt(
    office: Office, caller: Caller, batch: Batch, generation: int
) -> BatchReceipt | Refusal:
    stored = office.store.segments(
        batch.campaign_id,
        site_id=caller.site_id,
        agent_name=caller.name,
        generation=generation,
        sequence=batch.sequence,
    )
    if stored and stored[0].digest == batch.digest:
        return BatchReceipt(batch.sequence, stored[0].new_row_count)
    return Refusal(
        Reason.BATCH_SEQUENCE_FORK,
        "another batch has this sequence; is this agent's state running twice? enrol again",
    )


def _judge_batch(office: Office, campaign: Campaign, batch: Batch) -> Refusal | None:
    schema = campaign.label_schema
    if campaign.egress != "rows":
        return Refusal(Reason.EGRESS_MODE, "this campaign takes histograms, not rows")
    if batch.label_schema_digest != schema.digest():
        return Refusal(Reason.LABEL_SCHEMA_MISMATCH, "the label schema differs; update the model")
    if batch.class_index_max >= len(schema):
        return Refusal(Reason.LABEL_SCHEMA_MISMATCH, "a class index is outside the label schema")
    return judge_version(office, batch.campaign_id, batch.model_version)


def _stream_of(office: Office, caller: Caller, campaign_id: bytes, generation: int) -> AgentStream:
    key = (campaign_id, caller.label, generation)
    stream = office.streams.get(key)
    if stream is None:
        stored = office.store.segments(
            campaign_id, site_id=caller.site_id, agent_name=caller.name, generation=generation
        )
        stream = AgentStream(max((head.sequence for head in stored), default=0))
        for head in stored:
            (columns,) = office.store.columns([head.segment_id], ["candidate_ids"])
            stream.ids.add(columns["candidate_ids"])
        office.streams[key] = stream
    return stream


def _segment_head(
    caller: Caller, generation: int, batch: Batch, new_row_count: int
) -> SegmentRecord:
    return SegmentRecord(
        campaign_id=batch.campaign_id,
        site_id=caller.site_id,
        agent_name=caller.name,
        generation=generation,
        sequence=batch.sequence,
        digest=batch.digest,
        model_version=batch.model_version,
        code_book_version=batch.code_book_version,
        day=batch.day,
        row_count=batch.row_count,
        new_row_count=new_row_count,
        replaces_older_versions=batch.replaces_older_versions,
    )


def take_pool_report(
    office: Office, caller: Caller, report: PoolReport, key: RequestKey
) -> Refusal | None:
    """Keeps the totals of an agent's pool in place of the earlier ones."""
    found = find_campaign(office, caller, report.campaign_id)
    if isinstance(found, Refusal):
        return found
    if len(report.class_counts) != 4 * len(found[1].label_schema):
        return Refusal(Reason.LABEL_SCHEMA_MISMATCH, "class_counts must have one count per class")
    record = PoolReportRecord(
        site_id=caller.site_id,
        agent_name=caller.name,
        generation=machine_of(office, caller).generation,
        **vars(report),
    )
    office.commit((), remember(office, key, b"", lambda writer: writer.put(record)))
    return None


def take_site_report(
    office: Office, caller: Caller, report: SiteReport, key: RequestKey
) -> Refusal | None:
    """Keeps the totals of a site in place of the earlier ones."""
    found = find_campaign(office, caller, report.campaign_id)
    if isinstance(found, Refusal):
        return found
    if len(report.label_counts) not in {0, 4 * len(found[1].label_schema)}:
        return Refusal(Reason.LABEL_SCHEMA_MISMATCH, "label_counts must have one count per class")
    record = SiteReportRecord(site_id=caller.site_id, **vars(report))
    office.commit((), remember(office, key, b"", lambda writer: writer.put(record)))
    return None


def list_grants(
    office: Office, caller: Caller, *, after: int, page_size: int
) -> list[tuple[GrantRecord, bytes]]:
    """Returns open grants of the calling agent after a ledger position, each with its signature."""
    mine = [
        record
        for record in office.ledger.open_grants_of(caller.site_id, caller.name)
        if record.granted_sequence > after
        and record.state is GrantState.GRANTED
        and record.terms.expires_at > office.clock()
    ]
    return [
        (record, office.grant_key.sign(grant_message(record.terms, record.granted_sequence)))
        for record in mine[:page_size]
    ]


def record_outcomes(
    office: Office,
    caller: Caller,
    reports: Sequence[OutcomeReport],
    *,
    key: RequestKey,
    encode: Callable[[Sequence[GrantState | None]], bytes],
) -> bytes | Refusal:
    """Settles grants of the caller's site; the first final state of each stands.

    Args:
        office: The desk.
        caller: A portal, or the agent that holds the grants.
        reports: 1 to 1000 outcomes.
        key: For repeats.
        encode: Makes the response bytes from the grants' states, None for unknown grants.
    """
    if caller.role == "agent":
        refusal = _judge_agent_outcomes(office, caller, reports)
        if refusal is not None:
            return refusal
    settlement = office.ledger.settle(caller.site_id, reports, office.clock())
    if isinstance(settlement, Refusal):
        return settlement
    response = encode(settlement.states)
    office.commit(settlement.entries, remember(office, key, response, lambda _writer: None))
    return response


def _judge_agent_outcomes(
    office: Office, caller: Caller, reports: Sequence[OutcomeReport]
) -> Refusal | None:
    for report in reports:
        record = office.ledger.grant(report.grant_id)
        # Grants of other sites are refused by the ledger itself, with a reason of their own.
        mine = (
            record is None
            or record.terms.site_id != caller.site_id
            or record.terms.agent_name == caller.name
        )
        if not mine or report.state not in AGENT_OUTCOMES:
            return Refusal(
                Reason.OUTCOME_NOT_YOURS,
                "an agent reports its own grants only, as released, refused or declined",
            )
    return None


def list_campaigns(office: Office, caller: Caller) -> list[tuple[CampaignRecord, Campaign]]:
    """Returns the campaigns in which the caller's site takes part."""
    pairs = [(record, office.campaign(record)) for record in office.store.find(CampaignRecord)]
    mine = [(record, campaign) for record, campaign in pairs if caller.site_id in campaign.sites]
    if caller.role == "agent":
        for record, _ in mine:
            key = (record.campaign_id, caller.site_id, caller.name)
            office.told.setdefault(key, office.clock())
    return mine


def model_version(
    office: Office, caller: Caller, campaign_id: bytes
) -> ModelVersionRecord | Refusal | None:
    """Returns the version that the caller should run, None when there is none yet."""
    found = find_campaign(office, caller, campaign_id)
    if isinstance(found, Refusal):
        return found
    if caller.role == "agent":
        _note_participant(office, caller, campaign_id)
    version = offered_version(office, found[1], campaign_id, (caller.site_id, caller.name))
    return office.store.get(ModelVersionRecord, campaign_id, version) if version else None


def _note_participant(office: Office, caller: Caller, campaign_id: bytes) -> None:
    key = (campaign_id, caller.site_id, caller.name)
    if office.store.get(ParticipantRecord, *key) is None:
        record = ParticipantRecord(*key, office.clock())
        office.commit((), lambda writer: writer.put(record))


def locate_bundle(
    office: Office, caller: Caller, campaign_id: bytes, version: int
) -> Path | Refusal:
    """Returns the file of a version that was released, or that the caller's canary tries."""
    found = find_campaign(office, caller, campaign_id)
    if isinstance(found, Refusal):
        return found
    record = office.store.get(ModelVersionRecord, campaign_id, version)
    offered = offered_version(office, found[1], campaign_id, (caller.site_id, caller.name))
    if record is None or (record.state is not VersionState.RELEASED and version != offered):
        return Refusal(Reason.BUNDLE_UNKNOWN, "no such model version is on offer")
    return office.folder / record.path


def take_install(
    office: Office, caller: Caller, note: InstallNote, key: RequestKey
) -> Refusal | None:
    """Keeps what a machine did with a version."""
    found = find_campaign(office, caller, note.campaign_id)
    if isinstance(found, Refusal):
        return found
    record = InstallRecord(
        campaign_id=note.campaign_id,
        site_id=caller.site_id,
        role=caller.role,
        name=caller.name,
        version=note.version,
        installed=note.installed,
        reason=note.reason,
        reported_at=office.clock(),
    )
    office.commit((), remember(office, key, b"", lambda writer: writer.put(record)))
    return None
