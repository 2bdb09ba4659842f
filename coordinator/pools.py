"""From stored batches to the pool that the allocator sees, and what the campaign learnt so far."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.pool import Pool, Progress
from coordinator.core.campaign import Campaign
from coordinator.core.entries import GrantState
from coordinator.core.ledger import GrantRecord
from coordinator.core.records import (
    COLUMN_WIDTHS,
    MachineRecord,
    SegmentRecord,
    SiteReportRecord,
)
from coordinator.store import Store

_DTYPES = {1: "u1", 2: "<u2"}


def live_segments(
    heads: Sequence[SegmentRecord], agents: Collection[MachineRecord]
) -> list[SegmentRecord]:
    """Returns the batches whose rows are in the pool, in the order they came.

    Rows of agents that were revoked or enrolled again are out; a batch that replaces older versions
    puts the agent's rows of older versions out.
    """
    generations = {(agent.site_id, agent.name): agent.generation for agent in agents}
    floor: dict[tuple[str, str], int] = {}
    for head in heads:
        key = (head.site_id, head.agent_name)
        if head.replaces_older_versions and head.generation == generations.get(key):
            floor[key] = max(floor.get(key, 0), head.model_version)
    return [
        head
        for head in heads
        if generations.get((head.site_id, head.agent_name)) == head.generation
        and head.model_version >= floor.get((head.site_id, head.agent_name), 0)
    ]


def scored_alike(
    segments: Sequence[SegmentRecord], untrained: Collection[int], released_version: int
) -> tuple[list[SegmentRecord], bool]:
    """Returns the batches whose scores can be compared, and whether a trained model made them.

    Scores of an untrained model and of a trained one mean different things. While both are in the
    pool, since an agent has not scored again yet, those of the released version's kind count; the
    others are back when their agent has.
    """
    parts: dict[bool, list[SegmentRecord]] = {True: [], False: []}
    for head in segments:
        parts[head.model_version not in untrained].append(head)
    trained = released_version not in untrained
    trained = trained if parts[trained] else not trained
    return parts[trained], trained


@dataclass(frozen=True)
class Offer:
    """Rows on offer: the pool, and for each value of its `agent_index` (site, agent, version)."""

    pool: Pool
    agents: tuple[tuple[str, str, int], ...]


def assemble(
    store: Store,
    campaign: Campaign,
    segments: Sequence[SegmentRecord],
    *,
    grants: Sequence[GrantRecord],
    progress: Progress | None = None,
) -> Offer:
    """Builds the pool of open candidates.

    Args:
        store: Holds the columns.
        campaign: Gives the sites and classes.
        segments: From `live_segments`.
        grants: All grants of the campaign: their candidates are not open any more.
        progress: What was labelled; None to count it from reports and grants.

    Returns:
        The offer; where an id stands in several batches its latest row counts.
    """
    columns, agent_index, agents = _read(store, segments)
    ids = columns["candidate_ids"].view("S16").reshape(-1)
    if progress is None:
        cells = _labelled_cells(ids, columns["cell_ids"], grants)
        reports = store.find(SiteReportRecord, campaign_id=_campaign_id(segments, grants))
        progress = measure_progress(campaign, grants, reports, cells=cells)
    rows = _open_rows(ids, grants)
    site_rows = {site_id: i for i, site_id in enumerate(campaign.sites)}
    site_of_agent = np.array([site_rows.get(a[0], -1) for a in agents] or [-1], dtype=np.int32)
    rows = rows[site_of_agent[agent_index[rows]] >= 0]
    chosen = {name: column[rows] for name, column in columns.items()}
    pool = Pool(
        candidate_ids=chosen["candidate_ids"],
        site_index=site_of_agent[agent_index[rows]],
        agent_index=agent_index[rows],
        margins=chosen["margins"],
        entropies=chosen["entropies"],
        top_probabilities=chosen["top_probabilities"],
        divergences=chosen["divergence_risk"] & np.uint8(0x3F),
        predicted_classes=chosen["predicted_classes"],
        runner_up_classes=chosen["runner_up_classes"],
        prototype_classes=chosen["prototype_classes"],
        cell_ids=chosen["cell_ids"],
        density_bands=chosen["density_cost"] & np.uint8(0x0F),
        cost_bands=(chosen["density_cost"] >> np.uint8(4)) & np.uint8(0x07),
        site_ids=tuple(campaign.sites),
        class_count=len(campaign.classes),
        progress=progress,
    )
    return Offer(pool, agents)


def _campaign_id(segments: Sequence[SegmentRecord], grants: Sequence[GrantRecord]) -> bytes:
    if segments:
        return segments[0].campaign_id
    return grants[0].terms.campaign_id if grants else b""


def _read(
    store: Store, segments: Sequence[SegmentRecord]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int32], tuple[tuple[str, str, int], ...]]:
    """Reads the columns of all segments, laid end to end, and whose row each one is."""
    parts = store.columns([head.segment_id for head in segments], list(COLUMN_WIDTHS))
    columns: dict[str, NDArray[Any]] = {}
    for name, width in COLUMN_WIDTHS.items():
        raw = b"".join(part[name] for part in parts)
        if name == "candidate_ids":
            columns[name] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, width)
        else:
            columns[name] = np.frombuffer(raw, dtype=_DTYPES[width])
    keys = [(head.site_id, head.agent_name, head.model_version) for head in segments]
    agents = tuple(dict.fromkeys(keys))
    numbers = {key: number for number, key in enumerate(agents)}
    index = np.repeat(
        np.array([numbers[key] for key in keys], dtype=np.int32),
        [head.row_count for head in segments],
    )
    return columns, index, agents


def _open_rows(ids: NDArray[Any], grants: Sequence[GrantRecord]) -> NDArray[np.int64]:
    """Returns the latest row of every id that was never granted, in rising order."""
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    _, first_from_end = np.unique(ids[::-1], return_index=True)
    rows = np.sort(len(ids) - 1 - first_from_end)
    return np.asarray(rows[~_contained(ids[rows], [g.terms.candidate_id for g in grants])])


def _contained(ids: NDArray[Any], known: Sequence[bytes]) -> NDArray[np.bool_]:
    if not known or not len(ids):
        return np.zeros(len(ids), dtype=np.bool_)
    wanted = np.unique(np.frombuffer(b"".join(known), dtype="S16"))
    at = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
    return np.asarray(wanted[at] == ids, dtype=np.bool_)


def _labelled_cells(
    ids: NDArray[Any], cells: NDArray[Any], grants: Sequence[GrantRecord]
) -> NDArray[np.int64]:
    """Counts labelled candidates by cell, for those that agents still offer with their cell."""
    labelled = [g.terms.candidate_id for g in grants if g.state is GrantState.LABELED]
    return np.bincount(np.asarray(cells[_contained(ids, labelled)], dtype=np.int64))


def measure_progress(
    campaign: Campaign,
    grants: Sequence[GrantRecord],
    reports: Sequence[SiteReportRecord],
    *,
    cells: NDArray[np.int64],
) -> Progress:
    """Counts labels by class and site: from the sites' own totals, else from outcomes."""
    classes = np.zeros(len(campaign.classes), dtype=np.int64)
    sites = np.zeros(len(campaign.sites), dtype=np.int64)
    labelled = [g for g in grants if g.state is GrantState.LABELED]
    by_site = {report.site_id: report for report in reports}
    for row, site_id in enumerate(campaign.sites):
        own = [g for g in labelled if g.terms.site_id == site_id]
        report = by_site.get(site_id)
        sites[row] = max(len(own), report.label_count if report else 0)
        if report is not None and report.label_counts:
            classes += np.frombuffer(report.label_counts, dtype="<u4").astype(np.int64)
            continue
        for grant in own:
            if 0 < grant.class_index_plus_one <= len(classes):
                classes[grant.class_index_plus_one - 1] += 1
    return Progress(
        class_labels=classes,
        site_labels=sites,
        cell_labels=cells,
    )
