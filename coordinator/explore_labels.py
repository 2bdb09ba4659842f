"""What the explore labels say: live accuracy of a version, and how far to trust each site's scores.

The draw and its probabilities were logged with the allocation; predictions are read back from the
batches of that cycle, and whether they were right from the outcomes of the grants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.result import ExploreFrame
from coordinator.core.campaign import Campaign
from coordinator.core.entries import GrantReason, GrantState, Verdict
from coordinator.core.estimation import Estimate, ExploreLabels, report_accuracy
from coordinator.core.ledger import GrantRecord
from coordinator.core.records import AllocationRecord
from coordinator.core.trust import site_trust
from coordinator.office import Office

SCORE_LEVELS = 63
TRUST_CYCLES = 5
_COLUMNS = ("candidate_ids", "predicted_classes", "top_probabilities")


def frame_json(frame: ExploreFrame) -> str:
    """Returns the population of a draw as JSON."""
    values = (frame.counts, frame.probability_sums, frame.targets)
    return json.dumps([array.tolist() for array in values])


def read_frame(raw: str) -> ExploreFrame:
    """Reads what `frame_json` wrote."""
    counts, sums, targets = json.loads(raw)
    return ExploreFrame(
        np.array(counts, dtype=np.int64),
        np.array(sums, dtype=np.float64),
        np.array(targets, dtype=np.float64),
    )


def labels_of(office: Office, campaign: Campaign, record: AllocationRecord) -> ExploreLabels:
    """Returns the explore picks of one cycle and what became of them, oldest outcome first."""
    grants = [
        grant
        for grant in office.ledger.grants(record.campaign_id)
        if grant.terms.cycle == record.cycle and grant.terms.reason is GrantReason.EXPLORE
    ]
    grants.sort(key=lambda grant: grant.state_sequence)
    predicted, confidences = _predictions(office, record, grants)
    sites = {site_id: row for row, site_id in enumerate(campaign.sites)}
    correct = [_correct(g, int(c)) for g, c in zip(grants, predicted, strict=True)]
    return ExploreLabels(
        site_index=np.array([sites[g.terms.site_id] for g in grants], dtype=np.int64),
        predicted_classes=predicted,
        confidences=confidences,
        inclusion_probabilities=np.array(
            [g.terms.inclusion_probability for g in grants], dtype=np.float64
        ),
        correct=np.array(correct, dtype=np.int64),
    )


def _predictions(
    office: Office, record: AllocationRecord, grants: Sequence[GrantRecord]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    wanted = {grant.terms.candidate_id: row for row, grant in enumerate(grants)}
    predicted = np.zeros(len(grants), dtype=np.int64)
    confidences = np.zeros(len(grants), dtype=np.float64)
    if not wanted:
        return predicted, confidences
    known = np.array(sorted(wanted), dtype="S16")
    for columns in office.store.columns(json.loads(record.segment_ids_json), _COLUMNS):
        ids = np.frombuffer(columns["candidate_ids"], dtype="S16")
        classes = np.frombuffer(columns["predicted_classes"], dtype="<u2")
        tops = np.frombuffer(columns["top_probabilities"], dtype="u1")
        for row in np.flatnonzero(np.isin(ids, known)).tolist():
            at = wanted[columns["candidate_ids"][16 * row : 16 * row + 16]]
            predicted[at] = classes[row]
            confidences[at] = tops[row] / SCORE_LEVELS
    return predicted, confidences


def _correct(grant: GrantRecord, predicted: int) -> int:
    """Whether the model was right: 1, 0, or -1 when nobody can say."""
    if grant.state is not GrantState.LABELED:
        return -1
    if grant.class_index_plus_one:
        return int(grant.class_index_plus_one - 1 == predicted)
    # The site withholds the class; whether the suggestion stood says the same.
    return {Verdict.STOOD: 1, Verdict.CORRECTED: 0, Verdict.UNKNOWN: -1}[grant.verdict]


def live_accuracy(office: Office, campaign: Campaign, record: AllocationRecord) -> Estimate | None:
    """Estimates the accuracy of the version that scored a cycle's pool, on that whole pool.

    Returns:
        None when no explore label came back.
    """
    labels = labels_of(office, campaign, record)
    if not (labels.correct >= 0).any():
        return None
    return report_accuracy(read_frame(record.frame_json), labels).overall


def measured_trust(
    office: Office, campaign: Campaign, campaign_id: bytes
) -> NDArray[np.float64] | None:
    """Returns float64[sites] in [0, 1] from the explore labels of the last five cycles.

    None when there are none yet: then every site is trusted in full.
    """
    records = office.store.find(AllocationRecord, campaign_id=campaign_id)[-TRUST_CYCLES:]
    parts = [labels_of(office, campaign, record) for record in records]
    if not any((part.correct >= 0).any() for part in parts):
        return None
    joined = ExploreLabels(
        site_index=np.concatenate([p.site_index for p in parts]),
        predicted_classes=np.concatenate([p.predicted_classes for p in parts]),
        confidences=np.concatenate([p.confidences for p in parts]),
        inclusion_probabilities=np.concatenate([p.inclusion_probabilities for p in parts]),
        correct=np.concatenate([p.correct for p in parts]),
    )
    return site_trust(joined, sites=len(campaign.sites))
