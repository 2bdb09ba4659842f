"""Drives every campaign through its cycles: facts from the store, one step at a time.

Each step stores its effect and the campaign's new state in one transaction. Children are started
outside of it, behind a lock, so that starting one twice has no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from coordinator.allocations import decide_allocation
from coordinator.core.campaign import Campaign, CampaignState
from coordinator.core.cycle import CycleState, Facts, Phase, Step, StepKind, decide
from coordinator.core.entries import Funded
from coordinator.core.records import (
    AllocationRecord,
    CampaignRecord,
    CycleRecord,
    CycleResultRecord,
    MachineRecord,
    ParticipantRecord,
    PoolReportRecord,
    Record,
    TrainingRunRecord,
)
from coordinator.core.refusals import Refusal
from coordinator.core.training import FINAL_TRAINING_STATES, TrainingState
from coordinator.explore_labels import live_accuracy
from coordinator.holding import hold, reasons_to_hold
from coordinator.maintenance import maintain
from coordinator.office import Office
from coordinator.pools import live_segments
from coordinator.registry import (
    agents_of,
    evaluation_of,
    next_version,
    released_record,
    rollout_of,
)
from coordinator.store import Writer
from coordinator.training_runs import advance, propose

STEPS_PER_TICK_MAX = 8
_LOG = logging.getLogger("coordinator.scheduler")


@dataclass(frozen=True)
class Case:
    """One campaign on the scheduler's desk."""

    campaign_id: bytes
    campaign: Campaign
    record: CampaignRecord
    state: CycleState


def tick(office: Office) -> bool:
    """Looks at every campaign once.

    Returns:
        True when new grants were made, so that waiting agents can be woken.
    """
    expired = office.ledger.expire(office.clock(), office.config.expiry_grace_seconds)
    office.commit(expired)
    office.flush_counters()
    maintain(office)
    before = office.ledger.sequence
    for record in office.store.find(CampaignRecord):
        _fund(office, record)
        if record.state is CampaignState.ACTIVE:
            _drive(office, record)
    return office.ledger.sequence > before


def _fund(office: Office, record: CampaignRecord) -> None:
    if office.ledger.knows(record.campaign_id):
        return
    campaign = office.campaign(record)
    funding = Funded(
        sequence=0,
        at=office.clock(),
        campaign_id=record.campaign_id,
        budget_labels=campaign.budget_labels,
        site_cap_labels=campaign.site_cap_labels,
        overlap_count=campaign.overlap_count,
    )
    office.commit([office.ledger.fund(funding)])


def _drive(office: Office, record: CampaignRecord) -> None:
    campaign = office.campaign(record)
    for _ in range(STEPS_PER_TICK_MAX):
        case = Case(record.campaign_id, campaign, record, _state_of(office, record))
        _advance_training(office, case)
        facts = gather(office, case)
        step = decide(campaign, case.state, facts, office.clock())
        if office.reasons.get(record.campaign_id) != step.because:
            _LOG.info("campaign %s: %s, %s", campaign.name, step.kind, step.because)
            office.reasons[record.campaign_id] = step.because
        if not _STEPS[step.kind](office, case, step):
            return


def _state_of(office: Office, record: CampaignRecord) -> CycleState:
    stored = office.store.get(CycleRecord, record.campaign_id)
    if stored is not None:
        return stored.state()
    return CycleState(record.campaign_id, phase_started_at=record.created_at)


def latest_run(office: Office, case: Case) -> TrainingRunRecord | None:
    """Returns the campaign's latest training run."""
    return office.store.get(TrainingRunRecord, case.campaign_id, case.state.run)


def _advance_training(office: Office, case: Case) -> None:
    run = latest_run(office, case)
    if run is not None and run.state not in FINAL_TRAINING_STATES:
        advance(office, case.campaign, run)


def gather(office: Office, case: Case) -> Facts:
    """Counts what `core.cycle.decide` looks at."""
    run = latest_run(office, case)
    books = office.ledger.books(case.campaign_id)
    agents = agents_of(office, case.campaign)
    awaited = _awaited(office, case, agents)
    version = rollout_of(office, case.campaign, case.campaign_id).released_version
    candidates = 0
    if case.state.phase is Phase.WAITING:
        heads = live_segments(office.store.segments(case.campaign_id), agents)
        # Granted rows are counted too; the allocation itself looks closely.
        candidates = sum(head.row_count for head in heads)
    grants = office.ledger.open_grants()
    return Facts(
        released_version=version,
        agent_count=len(awaited),
        complete_agent_count=_complete_count(office, case, awaited, version),
        candidate_count=candidates,
        available_labels=books.available,
        spent_labels=books.total.spent,
        open_grant_count=sum(g.terms.campaign_id == case.campaign_id for g in grants),
        training_state=run.state if run else None,
    )


def _awaited(office: Office, case: Case, agents: list[MachineRecord]) -> list[MachineRecord]:
    """Returns the agents that a cycle waits for.

    Left out are those that were told of the campaign a while ago and never asked for its model:
    they have no samples for it. One that nobody has heard from yet is waited for.
    """
    found = office.store.find(ParticipantRecord, campaign_id=case.campaign_id)
    participants = {(p.site_id, p.agent_name) for p in found}
    latest = office.clock() - office.config.join_grace_seconds
    return [
        agent
        for agent in agents
        if (agent.site_id, agent.name) in participants
        or office.told.get((case.campaign_id, agent.site_id, agent.name), latest + 1) > latest
    ]


def _complete_count(
    office: Office, case: Case, agents: list[MachineRecord], released_version: int
) -> int:
    reports = office.store.find(PoolReportRecord, campaign_id=case.campaign_id, complete=True)
    complete = {
        (report.site_id, report.agent_name, report.generation)
        for report in reports
        # Agents of a canary that was rolled back stay on its higher version: they never go down.
        if report.model_version >= released_version
    }
    return sum((a.site_id, a.name, a.generation) in complete for a in agents)


def _enter(state: CycleState, phase: Phase, now: int) -> CycleRecord:
    return CycleRecord.of(replace(state, phase=phase, phase_started_at=now))


def _writes(*, put: Sequence[Record] = (), add: Sequence[Record] = ()) -> Callable[[Writer], None]:
    def write(writer: Writer) -> None:
        for record in put:
            writer.put(record)
        for record in add:
            writer.add(record)

    return write


# Steps: each returns True when the next step may be decided at once.


def _wait(office: Office, case: Case, step: Step) -> bool:
    del office, case, step
    return False


def _begin_cycle(office: Office, case: Case, step: Step) -> bool:
    del step
    now = office.clock()
    first = replace(case.state, cycle=1, cycle_started_at=now, failed_runs=0)
    record = _enter(first, Phase.WAITING, now)
    office.commit((), _writes(put=[record]))
    return True


def _allocate(office: Office, case: Case, step: Step) -> bool:
    reasons = reasons_to_hold(office, case.campaign, case.campaign_id, case.state.cycle)
    if reasons:
        hold(office, case.record, case.state.cycle, reasons)
        _LOG.info("campaign %s: %s", case.campaign.name, office.reasons[case.campaign_id])
        return False
    decided = decide_allocation(
        office,
        case.campaign,
        case.campaign_id,
        cycle=case.state.cycle,
        labels=step.budget_labels,
    )
    if not decided.terms:
        return _nothing_to_grant(office, case, step)
    entries = office.ledger.reserve(decided.terms, office.clock())
    if isinstance(entries, Refusal):
        _LOG.error("campaign %s: allocation refused: %s", case.campaign.name, entries.sentence)
        return False
    record = _enter(case.state, Phase.LABELING, office.clock())

    office.commit(entries, _writes(put=[record], add=[decided.record]))
    _LOG.info("campaign %s: %d grants", case.campaign.name, len(entries))
    return True


def _nothing_to_grant(office: Office, case: Case, step: Step) -> bool:
    office.reasons[case.campaign_id] = "no open candidate may be granted under the caps"
    facts = gather(office, case)
    if facts.open_grant_count or facts.complete_agent_count < facts.agent_count:
        return False
    return _complete(office, case, step)


def _train(office: Office, case: Case, step: Step) -> bool:
    del step
    previous = latest_run(office, case)
    aborted = previous is not None and previous.state in {
        TrainingState.ABORTED,
        TrainingState.ROLLED_BACK,
    }
    again = case.state.phase in {Phase.TRAINING, Phase.INITIAL} and aborted
    run = propose(
        office,
        case.campaign,
        case.campaign_id,
        run=case.state.run + 1,
        next_version=next_version(office, case.campaign_id),
    )
    phase = Phase.INITIAL if case.state.phase is Phase.INITIAL else Phase.TRAINING
    failed_runs = case.state.failed_runs + again
    state = replace(case.state, run=run.run, failed_runs=failed_runs)
    record = _enter(state, phase, office.clock())

    office.commit((), _writes(put=[record], add=[run]))
    return True


def _finish_cycle(office: Office, case: Case, step: Step) -> bool:
    now = office.clock()
    run = latest_run(office, case)
    trained = step.kind is StepKind.FINISH_CYCLE and run is not None
    released = trained and run is not None and run.state is TrainingState.RELEASED
    spent = office.ledger.books(case.campaign_id).total.spent
    mark = run.spent_labels if released and run is not None else case.state.spent_at_training
    result = _result(office, case, spent=spent, seconds=now - case.state.cycle_started_at)
    following = replace(
        case.state,
        cycle=case.state.cycle + 1,
        cycle_started_at=now,
        spent_at_training=mark,
        failed_runs=0,
    )
    record = _enter(following, Phase.WAITING, now)
    office.commit((), _writes(put=[record, result]))
    return True


def _result(office: Office, case: Case, *, spent: int, seconds: int) -> CycleResultRecord:
    version = released_record(office, case.campaign, case.campaign_id)
    evaluation = evaluation_of(version)
    earlier = office.store.find(CycleResultRecord, campaign_id=case.campaign_id)
    accuracy = evaluation.accuracy if evaluation else None
    macro_f1 = evaluation.macro_f1 if evaluation else None
    made = office.store.get(AllocationRecord, case.campaign_id, case.state.cycle)
    live = live_accuracy(office, case.campaign, made) if made else None
    return CycleResultRecord(
        campaign_id=case.campaign_id,
        cycle=case.state.cycle,
        labels=spent - (earlier[-1].budget_spent if earlier else 0),
        budget_spent=spent,
        accuracy=-1.0 if accuracy is None else float(accuracy),
        macro_f1=-1.0 if macro_f1 is None else float(macro_f1),
        model_version=version.version if version else 0,
        seconds=seconds,
        live_accuracy=min(1.0, max(0.0, live.value)) if live else -1.0,
        live_low=live.low if live else -1.0,
        live_high=live.high if live else -1.0,
    )


def _complete(office: Office, case: Case, step: Step) -> bool:
    del step
    record = _enter(case.state, Phase.COMPLETED, office.clock())
    completed = replace(case.record, state=CampaignState.COMPLETED)
    office.commit((), _writes(put=[record, completed]))
    return False


_STEPS: dict[StepKind, Callable[[Office, Case, Step], bool]] = {
    StepKind.WAIT: _wait,
    StepKind.MAKE_FIRST_MODEL: _train,
    StepKind.BEGIN_CYCLE: _begin_cycle,
    StepKind.ALLOCATE: _allocate,
    StepKind.TRAIN: _train,
    StepKind.SKIP_TRAINING: _finish_cycle,
    StepKind.FINISH_CYCLE: _finish_cycle,
    StepKind.COMPLETE: _complete,
}
