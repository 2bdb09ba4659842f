"""The life of a campaign as a state machine: facts in, one next step out.

    initial ──init-model──> waiting ──pools complete──> labeling ──grants final──> training
                               ^                            │ too few labels          │
                               └────────────────────────────┴──── released ───────────┘ … completed

`decide` changes nothing. The shell carries a step out and stores its effect together with the new
`CycleState` in one transaction: a crash between two steps repeats a decision, never an effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.campaign import Campaign
from coordinator.core.training import FINAL_TRAINING_STATES, TrainingState


class Phase(StrEnum):
    """What a campaign is waiting for."""

    INITIAL = "initial"
    WAITING = "waiting"
    LABELING = "labeling"
    TRAINING = "training"
    COMPLETED = "completed"


@dataclass(frozen=True)
class CycleState:
    """Where a campaign stands; times are seconds since 1970-01-01 UTC.

    Attributes:
        campaign_id: 16 bytes.
        cycle: 0 before the first model, then from 1.
        phase: What it waits for.
        phase_started_at: When the phase began.
        cycle_started_at: When the cycle began.
        run: Number of the latest training run, -1 for none; run 0 makes the first model.
        spent_at_training: Labels spent when the last successful run started: newer ones are new.
        failed_runs: Aborted runs since the last success.
    """

    campaign_id: bytes
    cycle: int = 0
    phase: Phase = Phase.INITIAL
    phase_started_at: int = 0
    cycle_started_at: int = 0
    run: int = -1
    spent_at_training: int = 0
    failed_runs: int = 0


@dataclass(frozen=True)
class Facts:
    """What `decide` looks at, counted by the shell.

    Attributes:
        released_version: 0 before the first model.
        agent_count: Agents of the campaign's sites that are enrolled and not revoked.
        complete_agent_count: Those whose pool is scored whole by the released version.
        candidate_count: Open candidates in the pool.
        available_labels: Budget neither spent nor reserved.
        spent_labels: Labels spent so far.
        open_grant_count: Grants of the campaign without a final state.
        training_state: State of the latest run, None when there was none.
    """

    released_version: int
    agent_count: int
    complete_agent_count: int
    candidate_count: int
    available_labels: int
    spent_labels: int
    open_grant_count: int
    training_state: TrainingState | None


class StepKind(StrEnum):
    """What to do next."""

    WAIT = "wait"
    MAKE_FIRST_MODEL = "make_first_model"
    BEGIN_CYCLE = "begin_cycle"
    ALLOCATE = "allocate"
    TRAIN = "train"
    SKIP_TRAINING = "skip_training"
    FINISH_CYCLE = "finish_cycle"
    COMPLETE = "complete"


@dataclass(frozen=True)
class Step:
    """One decision and the sentence that explains it to the operator."""

    kind: StepKind
    because: str
    budget_labels: int = 0


FAILED_RUNS_MAX = 3


def decide(campaign: Campaign, state: CycleState, facts: Facts, now: int) -> Step:
    """Returns the next step of a campaign.

    Args:
        campaign: Its settings.
        state: Where it stands.
        facts: What is known.
        now: Seconds since 1970-01-01 UTC.

    >>> campaign = Campaign("c", "text", ("a", "b"), ("s",), 10, 5, 2)
    >>> decide(campaign, CycleState(bytes(16)), Facts(0, 0, 0, 0, 10, 0, 0, None), 0).kind.value
    'make_first_model'
    """
    if state.phase is Phase.INITIAL:
        return _decide_initial(state, facts)
    if state.phase is Phase.WAITING:
        return _decide_waiting(campaign, state, facts, now)
    if state.phase is Phase.LABELING:
        return _decide_labeling(campaign, state, facts, now)
    if state.phase is Phase.TRAINING:
        return _decide_training(state, facts)
    return Step(StepKind.WAIT, "the campaign is complete")


def _decide_initial(state: CycleState, facts: Facts) -> Step:
    if facts.training_state is TrainingState.RELEASED:
        return Step(StepKind.BEGIN_CYCLE, "the first model is released")
    failed = facts.training_state in FINAL_TRAINING_STATES
    if facts.training_state is not None and not failed:
        return Step(StepKind.WAIT, "the first model is being made")
    if state.failed_runs >= FAILED_RUNS_MAX:
        return Step(StepKind.WAIT, "no first model could be made; mend the federation and resume")
    return Step(StepKind.MAKE_FIRST_MODEL, "there is no model yet")


def _decide_waiting(campaign: Campaign, state: CycleState, facts: Facts, now: int) -> Step:
    budget = min(campaign.cycle_budget_labels, facts.available_labels)
    if state.cycle > campaign.cycles or (budget <= 0 and facts.open_grant_count == 0):
        return Step(StepKind.COMPLETE, "all cycles are done or the budget is spent")
    if budget <= 0:
        return Step(StepKind.WAIT, "the whole budget is reserved")
    late = now - state.phase_started_at >= campaign.pool_timeout_seconds
    if facts.agent_count == 0 or facts.candidate_count == 0:
        everyone = 0 < facts.agent_count == facts.complete_agent_count
        if everyone and facts.spent_labels > 0:
            return Step(StepKind.COMPLETE, "every candidate was asked for")
        return Step(StepKind.WAIT, "no candidate was offered yet")
    if facts.complete_agent_count < facts.agent_count and not late:
        return Step(
            StepKind.WAIT,
            f"{facts.complete_agent_count} of {facts.agent_count} agents have scored their pool",
        )
    return Step(StepKind.ALLOCATE, "the pools are scored", budget)


def _decide_labeling(campaign: Campaign, state: CycleState, facts: Facts, now: int) -> Step:
    late = now - state.phase_started_at >= campaign.label_timeout_seconds
    if facts.open_grant_count and not late:
        return Step(StepKind.WAIT, f"{facts.open_grant_count} grants are with the sites")
    new_labels = facts.spent_labels - state.spent_at_training
    if new_labels >= campaign.min_new_labels:
        return Step(StepKind.TRAIN, f"{new_labels} new labels")
    return Step(StepKind.SKIP_TRAINING, f"{new_labels} new labels are too few to train on")


def _decide_training(state: CycleState, facts: Facts) -> Step:
    if facts.training_state is TrainingState.ABORTED:
        # The budget must not be spent on while no model comes back for it.
        if state.failed_runs >= FAILED_RUNS_MAX:
            return Step(StepKind.WAIT, "training failed repeatedly; mend it and resume")
        return Step(StepKind.TRAIN, "the last run was aborted")
    if facts.training_state is None or facts.training_state in FINAL_TRAINING_STATES:
        return Step(StepKind.FINISH_CYCLE, "the training run has ended")
    return Step(StepKind.WAIT, f"training is {facts.training_state}")
