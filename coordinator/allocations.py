"""One cycle's allocation: decide with the core, turn picks into grants, and make it again later."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from coordinator.calibration import released_error
from coordinator.core.allocation.errors import AllocationError
from coordinator.core.allocation.histograms import histogram_policy
from coordinator.core.allocation.policy import Budget, Policy
from coordinator.core.allocation.pool import Pool, Progress
from coordinator.core.allocation.result import Allocation, digest_inputs
from coordinator.core.allocation.seam import METHOD, allocate
from coordinator.core.campaign import Campaign
from coordinator.core.entries import TRILLION, GrantReason, GrantTerms
from coordinator.core.ledger import Ledger
from coordinator.core.records import AllocationRecord, SiteReportRecord
from coordinator.equal_rows import named_picks
from coordinator.explore_labels import frame_json, measured_trust
from coordinator.office import Office
from coordinator.pools import Offer, assemble, live_segments, scored_alike
from coordinator.registry import agents_of, rollout_of, untrained_versions

SEED_BYTES = 32
ID_BYTES = 16


@dataclass(frozen=True)
class Decided:
    """An allocation that was decided and not yet recorded."""

    terms: tuple[GrantTerms, ...]
    record: AllocationRecord


def policy_of(campaign: Campaign, pool: Pool) -> Policy:
    """Returns the allocator's policy for a campaign.

    Histograms name no samples, so nothing can be drawn by chance or be asked twice in them.
    """
    policy = replace(Policy(), share_cap_multiple=_cap_multiple(campaign, pool))
    if campaign.egress == "histogram":
        return histogram_policy(replace(policy, explore_ratio=0.0, overlap_ratio=0.0))
    return replace(
        policy,
        explore_ratio=campaign.explore_ratio,
        overlap_ratio=campaign.overlap_ratio if campaign.overlap_count > 1 else 0.0,
    )


def _cap_multiple(campaign: Campaign, pool: Pool) -> float:
    """Equal shares of a cycle that one site may take.

    A campaign that sets no cap gets the policy's own, in shares among the sites that offer
    anything: sites that are away shall not leave a cycle's budget unspent.
    """
    if campaign.site_share_cap < 1.0:
        return campaign.site_share_cap * len(campaign.sites)
    present = np.count_nonzero(np.bincount(pool.site_index, minlength=1))
    return Policy().share_cap_multiple * len(campaign.sites) / max(1, int(present))


def budget_of(office: Office, campaign: Campaign, campaign_id: bytes, labels: int) -> Budget:
    """Returns what a cycle may cost: one label is one unit, whatever its cost band."""
    books = office.ledger.books(campaign_id)
    reports = {r.site_id: r for r in office.store.find(SiteReportRecord, campaign_id=campaign_id)}
    days = max(1, campaign.grant_lifetime_seconds // 86_400)
    capacity: list[int] = []
    for site_id in campaign.sites:
        left = max(0, books.funding.site_cap_labels - books.site(site_id).taken)
        report = reports.get(site_id)
        per_day = report.expert_capacity_count if report else 0
        capacity.append(min(left, per_day * days) if per_day else left)
    return Budget(
        cost_limit=labels,
        site_capacity=np.array(capacity, dtype=np.int64),
        class_floors=np.full(len(campaign.classes), campaign.class_floor_labels, dtype=np.int64),
        band_costs=(1,) * 8,
    )


def decide_allocation(
    office: Office, campaign: Campaign, campaign_id: bytes, *, cycle: int, labels: int
) -> Decided:
    """Decides a cycle's grants from the open candidates of all sites; records nothing."""
    heads = office.store.segments(campaign_id)
    segments, trained = scored_alike(
        live_segments(heads, agents_of(office, campaign)),
        untrained_versions(office, campaign_id),
        rollout_of(office, campaign, campaign_id).released_version,
    )
    grants = office.ledger.grants(campaign_id)
    offer = assemble(office.store, campaign, segments, grants=grants)
    trust = measured_trust(office, campaign, campaign_id)
    progress = replace(
        offer.pool.progress,
        site_trust=trust,
        calibration_error=released_error(office, campaign, campaign_id),
        model_trained=trained,
    )
    offer = replace(offer, pool=replace(offer.pool, progress=progress))
    budget = budget_of(office, campaign, campaign_id, labels)
    policy = policy_of(campaign, offer.pool)
    seed = office.entropy(SEED_BYTES)
    made = named_picks(allocate(offer.pool, budget, policy, _generator(seed)), offer.pool)
    record = AllocationRecord(
        campaign_id=campaign_id,
        cycle=cycle,
        seed=seed,
        segment_ids_json=json.dumps([head.segment_id for head in segments]),
        ledger_sequence=office.ledger.sequence,
        frame_json=frame_json(made.frame),
        inputs_json=json.dumps([_lists(offer.pool.progress), _lists(budget), METHOD]),
        inputs_digest=digest_inputs(offer.pool, budget, policy),
        picks_digest=made.digest(),
        pick_count=len(made),
        decided_at=office.clock(),
    )
    return Decided(_terms(office, campaign, made, offer, record), record)


def _generator(seed: bytes) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(seed, "little"))


def _terms(
    office: Office, campaign: Campaign, made: Allocation, offer: Offer, record: AllocationRecord
) -> tuple[GrantTerms, ...]:
    expires_at = office.clock() + campaign.grant_lifetime_seconds
    terms: list[GrantTerms] = []
    for i, row in enumerate(made.rows.tolist()):
        site_id, agent_name, version = offer.agents[int(offer.pool.agent_index[row])]
        terms.append(
            GrantTerms(
                grant_id=office.entropy(ID_BYTES),
                campaign_id=record.campaign_id,
                candidate_id=made.candidate_ids[i].tobytes(),
                site_id=site_id,
                agent_name=agent_name,
                model_version=version,
                cycle=record.cycle,
                reason=GrantReason(int(made.reasons[i])),
                expires_at=expires_at,
                inclusion_trillionths=_trillionths(float(made.inclusion_probabilities[i])),
            )
        )
    return tuple(terms)


def _trillionths(probability: float) -> int:
    """A probability in 1e-12, at least 1 unless it is 0."""
    return max(1, round(probability * TRILLION)) if probability else 0


def _lists(values: Any) -> dict[str, Any]:
    pairs = [(item.name, getattr(values, item.name)) for item in fields(values)]
    return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in pairs}


def is_of_this_method(record: AllocationRecord) -> bool:
    """Whether the allocator still turns equal inputs into equal picks, as it did for a record."""
    return bool(json.loads(record.inputs_json)[2:] == [METHOD])


def replay_allocation(office: Office, campaign: Campaign, record: AllocationRecord) -> str | None:
    """Makes a logged allocation again; returns what differs, None when every byte is the same."""
    wanted = set(json.loads(record.segment_ids_json))
    segments = [s for s in office.store.segments(record.campaign_id) if s.segment_id in wanted]
    if len(segments) != len(wanted):
        return f"cycle {record.cycle}: batches of candidates are missing"
    before = Ledger(e for e, _ in office.store.entries() if e.sequence <= record.ledger_sequence)
    progress, budget = _read_inputs(record)
    grants = before.grants(record.campaign_id)
    try:
        offer = assemble(office.store, campaign, segments, grants=grants, progress=progress)
    except AllocationError as error:
        return f"cycle {record.cycle}: the logged inputs are not those of a pool: {error}"
    policy = policy_of(campaign, offer.pool)
    if digest_inputs(offer.pool, budget, policy) != record.inputs_digest:
        return f"cycle {record.cycle}: the logged inputs differ from the stored ones"
    made = allocate(offer.pool, budget, policy, _generator(record.seed))
    made = named_picks(made, offer.pool)
    if made.digest() != record.picks_digest:
        return f"cycle {record.cycle}: the same inputs give other picks"
    return None


def _read_inputs(record: AllocationRecord) -> tuple[Progress, Budget]:
    progress, budget = json.loads(record.inputs_json)[:2]
    trust = progress.pop("site_trust")
    error, trained = progress.pop("calibration_error"), progress.pop("model_trained")
    counts = {name: np.array(values, dtype=np.int64) for name, values in progress.items()}
    band_costs = tuple(budget.pop("band_costs"))
    cost_limit = budget.pop("cost_limit")
    limits = {name: np.array(values, dtype=np.int64) for name, values in budget.items()}
    return (
        Progress(
            **counts,
            site_trust=None if trust is None else np.array(trust, dtype=np.float64),
            calibration_error=error,
            model_trained=trained,
        ),
        Budget(cost_limit=cost_limit, band_costs=band_costs, **limits),
    )
