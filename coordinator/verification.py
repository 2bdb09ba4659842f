"""Proves a stored ledger: digests, rules, a recount, and every allocation made again."""

from __future__ import annotations

from coordinator.allocations import is_of_this_method, replay_allocation
from coordinator.core.ledger import violations
from coordinator.core.records import AUDIT_GENESIS, AllocationRecord, AuditRecord, CampaignRecord
from coordinator.office import Office
from coordinator.store import Store


def audit_problems(store: Store) -> list[str]:
    """Follows the audit log's digest chain; names the first line that does not fit."""
    previous = AUDIT_GENESIS
    for number, line in enumerate(store.find(AuditRecord), start=1):
        if line.sequence != number or line.after(previous).digest != line.digest:
            return [f"audit line {number} was changed or is missing"]
        previous = line.digest
    return []


def verify(office: Office) -> tuple[list[str], dict[str, int]]:
    """Checks everything that can be checked from the database alone.

    Opening the office has replayed the entries and compared their digests already.

    Returns:
        Sentences about what does not fit, and the counts of entries, grants, allocations made
        again and those that another version of the allocator made, which this one cannot repeat.
    """
    problems = [f"database: {sentence}" for sentence in office.store.check()]
    problems += audit_problems(office.store)
    counts = {"entries": office.ledger.sequence, "grants": 0, "allocations": 0}
    counts["older_allocations"] = 0
    for record in office.store.find(CampaignRecord):
        if not office.ledger.knows(record.campaign_id):
            continue
        found = violations(office.ledger, record.campaign_id)
        problems += [f"{record.name}: {sentence}" for sentence in found]
        counts["grants"] += len(office.ledger.grants(record.campaign_id))
        campaign = office.campaign(record)
        for made in office.store.find(AllocationRecord, campaign_id=record.campaign_id):
            if not is_of_this_method(made):
                counts["older_allocations"] += 1
                continue
            counts["allocations"] += 1
            difference = replay_allocation(office, campaign, made)
            if difference is not None:
                problems.append(f"{record.name}: {difference}")
    return problems, counts
