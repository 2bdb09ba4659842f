"""Takes noised histograms from agents of campaigns in histogram mode."""

from __future__ import annotations

from coordinator.access import machine_of
from coordinator.core.campaign import Campaign
from coordinator.core.records import SegmentRecord
from coordinator.core.refusals import Reason, Refusal
from coordinator.handlers import find_campaign, judge_version
from coordinator.identity import Caller
from coordinator.office import Office
from coordinator.stand_ins import STAND_INS_MAX, stand_in_columns, stand_in_count
from coordinator.wire import Histogram


def take_histogram(office: Office, caller: Caller, histogram: Histogram) -> Refusal | None:
    """Stores noised counts as rows that stand in for samples; a repeat changes nothing."""
    found = find_campaign(office, caller, histogram.campaign_id)
    if isinstance(found, Refusal):
        return found
    refusal = _judge_histogram(office, found[1], histogram)
    if refusal is not None:
        return refusal
    generation = machine_of(office, caller).generation
    stored = office.store.segments(
        histogram.campaign_id,
        site_id=caller.site_id,
        agent_name=caller.name,
        generation=generation,
        sequence=histogram.model_version,
    )
    if stored:
        same = stored[0].digest == histogram.digest
        return (
            None
            if same
            else Refusal(
                Reason.BATCH_SEQUENCE_FORK, "another histogram of this model version was taken"
            )
        )
    columns = stand_in_columns(histogram.counts, histogram.epsilon, histogram.digest)
    head = _histogram_head(caller, generation, histogram, len(columns["margins"]))
    office.commit((), lambda writer: writer.add_segment(head, columns))
    return None


def _judge_histogram(office: Office, campaign: Campaign, histogram: Histogram) -> Refusal | None:
    if campaign.egress != "histogram":
        return Refusal(Reason.EGRESS_MODE, "this campaign takes rows, not histograms")
    if histogram.label_schema_digest != campaign.label_schema.digest():
        return Refusal(Reason.LABEL_SCHEMA_MISMATCH, "the label schema differs; update the model")
    if stand_in_count(histogram.counts, histogram.epsilon) > STAND_INS_MAX:
        return Refusal(Reason.EGRESS_MODE, f"a histogram counts at most {STAND_INS_MAX} samples")
    return judge_version(office, histogram.campaign_id, histogram.model_version)


def _histogram_head(
    caller: Caller, generation: int, histogram: Histogram, row_count: int
) -> SegmentRecord:
    return SegmentRecord(
        campaign_id=histogram.campaign_id,
        site_id=caller.site_id,
        agent_name=caller.name,
        generation=generation,
        sequence=histogram.model_version,
        digest=histogram.digest,
        model_version=histogram.model_version,
        code_book_version=0,
        day=histogram.day,
        row_count=row_count,
        new_row_count=row_count,
        replaces_older_versions=True,
    )
