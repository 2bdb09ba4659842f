"""Consecutive model versions on the same candidates: what changed, and what that gained.

A candidate keeps its opaque id when its site scores it again, and the batches that an allocation
read stay stored. So the predictions of two versions can be laid side by side without asking a site
for anything. Only candidates that nobody had been asked about count: on the others the newer
version was trained. Where sites send only what could be bought, these are the harder ones, and
the agreement is lower than on all of a site's data.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.campaign import Campaign
from coordinator.core.entries import GrantReason, GrantState, Verdict
from coordinator.core.ledger import GrantRecord
from coordinator.core.records import AllocationRecord
from coordinator.core.stability import (
    Change,
    ChangedLabels,
    compare_predictions,
    gain_interval,
)
from coordinator.office import Office
from coordinator.pools import live_segments
from coordinator.registry import agents_of

CYCLES_COMPARED = 5
"""So many of the last cycles are compared with the one before; older ones advise on nothing."""
_NAMES = ("candidate_ids", "predicted_classes")


def changes_of(office: Office, campaign: Campaign, campaign_id: bytes) -> dict[int, Change]:
    """Returns the change at each of the last cycles, by cycle; none where nothing compares."""
    records = office.store.find(AllocationRecord, campaign_id=campaign_id)
    found: dict[int, Change] = {}
    for before, after in itertools.pairwise(records):
        if after.cycle <= records[-1].cycle - CYCLES_COMPARED:
            continue
        key = (campaign_id, after.cycle)
        if key not in office.changes:
            segments = _segments(before), _segments(after)
            office.changes[key] = _compare(office, campaign, campaign_id, segments, after.cycle)
        if office.changes[key].stability.compared_count:
            found[after.cycle] = office.changes[key]
    return found


def change_waiting(
    office: Office, campaign: Campaign, campaign_id: bytes, cycle: int
) -> Change | None:
    """Returns what the version changed that scored the pool now waiting for a cycle's grants."""
    records = office.store.find(AllocationRecord, campaign_id=campaign_id)
    if not records or records[-1].cycle >= cycle:
        return None
    heads = live_segments(office.store.segments(campaign_id), agents_of(office, campaign))
    segments = _segments(records[-1]), [head.segment_id for head in heads]
    change = _compare(office, campaign, campaign_id, segments, cycle)
    return change if change.stability.compared_count else None


def gain_of(office: Office, campaign_id: bytes, cycle: int, change: Change) -> tuple[float, float]:
    """Returns the interval of the gain in accuracy, from the change and the cycle's explore labels.

    Of a withheld class it is known whether the suggestion stood. Where it was corrected, the older
    version counts as wrong too, which can only raise the gain's upper end.
    """
    drawn = [
        grant
        for grant in office.ledger.grants(campaign_id)
        if grant.terms.cycle == cycle
        and grant.terms.reason is GrantReason.EXPLORE
        and grant.terms.candidate_id in change.after
    ]
    drawn.sort(key=lambda grant: grant.state_sequence)
    judged = [(grant, pair) for grant in drawn if (pair := _judged(grant, change)) is not None]
    labels = ChangedLabels(
        inclusion_probabilities=np.array(
            [grant.terms.inclusion_probability for grant, _ in judged], dtype=np.float64
        ),
        correct_before=np.array([pair[0] for _, pair in judged], dtype=np.int64),
        correct_after=np.array([pair[1] for _, pair in judged], dtype=np.int64),
    )
    return gain_interval(change.stability, labels)


def _judged(grant: GrantRecord, change: Change) -> tuple[int, int] | None:
    """Whether the older and the newer version were right, or None when nobody can say."""
    if grant.state is not GrantState.LABELED:
        return None
    before = change.before[grant.terms.candidate_id]
    after = change.after[grant.terms.candidate_id]
    if grant.class_index_plus_one:
        label = grant.class_index_plus_one - 1
        return int(label == before), int(label == after)
    return {Verdict.STOOD: (0, 1), Verdict.CORRECTED: (0, 0), Verdict.UNKNOWN: None}[grant.verdict]


@dataclass(frozen=True, eq=False)
class _Scored:
    """The latest row of every candidate, by rising key: its class and the version's number."""

    keys: NDArray[np.uint64]
    classes: NDArray[np.int64]
    versions: NDArray[np.int64]


def _segments(record: AllocationRecord) -> list[int]:
    return list(json.loads(record.segment_ids_json))


def _compare(
    office: Office,
    campaign: Campaign,
    campaign_id: bytes,
    segments: tuple[Sequence[int], Sequence[int]],
    cycle: int,
) -> Change:
    """Compares the older pool with the newer one, out of which a cycle was or will be granted."""
    old, new = (_scored(office, campaign_id, part) for part in segments)
    grants = office.ledger.grants(campaign_id)
    asked = [g.terms.candidate_id for g in grants if g.terms.cycle < cycle]
    both = np.intersect1d(old.keys, new.keys, assume_unique=True)
    both = both[~np.isin(both, _keys(b"".join(asked)))]
    earlier, later = np.searchsorted(old.keys, both), np.searchsorted(new.keys, both)
    # A site that did not score again says nothing about the newer version.
    again = new.versions[later] > old.versions[earlier]
    both, earlier, later = both[again], earlier[again], later[again]
    first, second = old.classes[earlier], new.classes[later]
    explored = {
        int(_keys(g.terms.candidate_id)[0]): g.terms.candidate_id
        for g in grants
        if g.terms.cycle == cycle and g.terms.reason is GrantReason.EXPLORE
    }
    drawn = np.isin(both, np.array(list(explored), dtype=np.uint64))
    places = np.flatnonzero(drawn & (first != second)).tolist()
    return Change(
        compare_predictions(first, second, class_count=len(campaign.classes)),
        before={explored[int(both[place])]: int(first[place]) for place in places},
        after={explored[int(both[place])]: int(second[place]) for place in places},
    )


def _keys(ids: bytes) -> NDArray[np.uint64]:
    """uint64[n]: the first half of each id. They are random, so two hardly ever meet."""
    return np.frombuffer(ids, dtype="<u8")[::2]


def _scored(office: Office, campaign_id: bytes, wanted: Sequence[int]) -> _Scored:
    heads = {h.segment_id: h for h in office.store.segments(campaign_id)}
    known = [segment_id for segment_id in wanted if segment_id in heads]
    parts = office.store.columns(known, _NAMES)
    keys = _keys(b"".join(part["candidate_ids"] for part in parts))
    classes = np.frombuffer(b"".join(part["predicted_classes"] for part in parts), dtype="<u2")
    versions = np.repeat(
        np.array([heads[segment_id].model_version for segment_id in known], dtype=np.int64),
        [len(part["candidate_ids"]) // 16 for part in parts],
    )
    unique, from_end = np.unique(keys[::-1], return_index=True)
    rows = len(keys) - 1 - from_end
    return _Scored(unique, classes[rows].astype(np.int64), versions[rows])
