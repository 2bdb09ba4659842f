"""The coordinator's decisions as functions of values."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.campaign import Campaign
from coordinator.core.cycle import (
    FAILED_RUNS_MAX,
    CycleState,
    Facts,
    Phase,
    StepKind,
    decide,
)
from coordinator.core.entries import GrantReason, GrantState, GrantTerms
from coordinator.core.ledger import GrantRecord
from coordinator.core.records import COLUMN_WIDTHS, MachineRecord, SegmentRecord, SiteReportRecord
from coordinator.core.rollout import (
    CanaryVerdict,
    Rollout,
    canary_group,
    in_canary,
    judge_canary,
    version_for,
)
from coordinator.core.training import Evaluation, TrainingState, may_follow, passes_gate
from coordinator.known_ids import KnownIds
from coordinator.memory_store import MemoryStore
from coordinator.pools import assemble, live_segments, measure_progress

CAMPAIGN = Campaign("c", "text", ("a", "b", "d"), ("north", "south"), 100, 10, 3)
ID = b"c" * 16
STATE = CycleState(ID, cycle=1, phase=Phase.WAITING, run=0)
FACTS = Facts(
    released_version=1,
    agent_count=2,
    complete_agent_count=2,
    candidate_count=50,
    available_labels=100,
    spent_labels=0,
    open_grant_count=0,
    training_state=TrainingState.RELEASED,
)


def step(state: CycleState, now: int = 0, **facts: object) -> StepKind:
    return decide(CAMPAIGN, state, dataclasses.replace(FACTS, **facts), now).kind


# The campaign's cycle


def test_a_new_campaign_asks_for_its_first_model():
    state = CycleState(ID)
    assert step(state, training_state=None) is StepKind.MAKE_FIRST_MODEL
    assert step(state, training_state=TrainingState.TRAINING) is StepKind.WAIT
    assert step(state, training_state=TrainingState.RELEASED) is StepKind.BEGIN_CYCLE


def test_a_first_model_that_keeps_failing_waits_for_a_person():
    state = CycleState(ID, failed_runs=FAILED_RUNS_MAX)
    assert step(state, training_state=TrainingState.ABORTED) is StepKind.WAIT


def test_allocation_waits_for_every_agent_or_for_the_time_out():
    assert step(STATE, complete_agent_count=1) is StepKind.WAIT
    late = CAMPAIGN.pool_timeout_seconds
    assert step(STATE, now=late, complete_agent_count=1) is StepKind.ALLOCATE
    assert step(STATE) is StepKind.ALLOCATE


def test_allocation_asks_for_no_more_than_is_available():
    facts = dataclasses.replace(FACTS, available_labels=4)
    assert decide(CAMPAIGN, STATE, facts, 0).budget_labels == 4
    assert decide(CAMPAIGN, STATE, FACTS, 0).budget_labels == 10


def test_a_reserved_budget_is_waited_for_and_a_spent_one_ends_the_campaign():
    assert step(STATE, available_labels=0, open_grant_count=3) is StepKind.WAIT
    assert step(STATE, available_labels=0) is StepKind.COMPLETE


def test_a_campaign_ends_after_its_last_cycle():
    assert step(dataclasses.replace(STATE, cycle=4)) is StepKind.COMPLETE


def test_an_empty_pool_is_waited_for_until_everything_was_labeled():
    assert step(STATE, candidate_count=0) is StepKind.WAIT
    assert step(STATE, candidate_count=0, spent_labels=9) is StepKind.COMPLETE


def test_training_waits_for_open_grants_but_not_for_ever():
    labeling = dataclasses.replace(STATE, phase=Phase.LABELING)
    assert step(labeling, open_grant_count=1, spent_labels=5) is StepKind.WAIT
    late = CAMPAIGN.label_timeout_seconds
    assert step(labeling, now=late, open_grant_count=1, spent_labels=5) is StepKind.TRAIN
    assert step(labeling, spent_labels=5) is StepKind.TRAIN


def test_too_few_new_labels_start_no_training():
    labeling = dataclasses.replace(STATE, phase=Phase.LABELING, spent_at_training=5)
    assert step(labeling, spent_labels=5) is StepKind.SKIP_TRAINING


def test_an_aborted_training_is_tried_again_before_more_is_spent():
    training = dataclasses.replace(STATE, phase=Phase.TRAINING)
    assert step(training, training_state=TrainingState.ABORTED) is StepKind.TRAIN
    worn_out = dataclasses.replace(training, failed_runs=FAILED_RUNS_MAX)
    assert step(worn_out, training_state=TrainingState.ABORTED) is StepKind.WAIT
    assert step(training, training_state=TrainingState.ROLLED_BACK) is StepKind.FINISH_CYCLE


@given(
    phase=st.sampled_from(list(Phase)),
    cycle=st.integers(0, 5),
    facts=st.builds(
        Facts,
        released_version=st.integers(0, 3),
        agent_count=st.integers(0, 3),
        complete_agent_count=st.integers(0, 3),
        candidate_count=st.integers(0, 3),
        available_labels=st.integers(0, 20),
        spent_labels=st.integers(0, 20),
        open_grant_count=st.integers(0, 3),
        training_state=st.none() | st.sampled_from(list(TrainingState)),
    ),
    now=st.integers(0, 10**7),
)
def test_every_situation_has_one_step_and_never_too_much_budget(phase, cycle, facts, now):
    made = decide(CAMPAIGN, CycleState(ID, cycle=cycle, phase=phase), facts, now)
    assert made == decide(CAMPAIGN, CycleState(ID, cycle=cycle, phase=phase), facts, now)
    assert made.because
    assert made.budget_labels <= min(facts.available_labels, CAMPAIGN.cycle_budget_labels)
    assert (made.kind is StepKind.ALLOCATE) == (made.budget_labels > 0)


# Training and rollout


def test_a_run_passes_the_gate_before_anyone_sees_it():
    for state in TrainingState:
        if may_follow(state, TrainingState.RELEASED) or may_follow(state, TrainingState.CANARY):
            assert state in {TrainingState.GATED, TrainingState.CANARY}


def test_final_states_of_a_run_stay():
    for state in (TrainingState.RELEASED, TrainingState.ROLLED_BACK, TrainingState.ABORTED):
        assert not any(may_follow(state, after) for after in TrainingState)


def test_an_accuracy_that_is_no_number_is_not_released():
    assert passes_gate(Evaluation(float("nan")), None, accuracy_drop_max=1) is not None
    assert passes_gate(Evaluation(1.5), None, accuracy_drop_max=1) is not None
    assert passes_gate(Evaluation(None), Evaluation(0.9), accuracy_drop_max=0.1) is None


def test_the_canary_is_about_the_share_that_was_asked_for():
    machines = [("s", str(i)) for i in range(2_000)]
    drawn = sum(in_canary(machine, 7, 0.25) for machine in machines)
    assert 400 < drawn < 600


def test_the_canary_has_at_least_one_agent():
    machines = [("s", str(i)) for i in range(3)]
    assert len(canary_group(machines, 2, 1e-9)) == 1
    assert canary_group([], 2, 0.5) == frozenset()


def test_machines_outside_the_canary_keep_the_released_version():
    machines = [("s", str(i)) for i in range(50)]
    rollout = Rollout(released_version=3, canary_version=4, canary_ratio=0.2)
    offered = {m: version_for(m, rollout, machines) for m in machines}
    group = canary_group(machines, 4, 0.2)
    assert {m for m, version in offered.items() if version == 4} == set(group)
    assert set(offered.values()) == {3, 4}


def test_one_failure_in_a_small_canary_rolls_back():
    group = [("s", "1"), ("s", "2")]
    assert judge_canary(group, {("s", "1"): False}, timed_out=False) is CanaryVerdict.ROLL_BACK


def test_a_silent_canary_waits_then_rolls_back():
    assert judge_canary([("s", "1")], {}, timed_out=False) is CanaryVerdict.WAIT
    assert judge_canary([("s", "1")], {}, timed_out=True) is CanaryVerdict.ROLL_BACK


# Pools


def head(sequence: int, version: int, *, replaces: bool, agent: str = "one", **changes: object):
    fields: dict[str, object] = {
        "campaign_id": ID,
        "site_id": "north",
        "agent_name": agent,
        "generation": 1,
        "sequence": sequence,
        "digest": bytes(32),
        "model_version": version,
        "code_book_version": 0,
        "day": 1,
        "row_count": 2,
        "new_row_count": 2,
        "replaces_older_versions": replaces,
    }
    return SegmentRecord(**{**fields, **changes})


AGENTS = [
    MachineRecord("north", "agent", "one", 1, 0),
    MachineRecord("north", "agent", "two", 1, 0),
]


def test_a_new_scoring_puts_the_older_rows_of_its_agent_out():
    heads = [
        head(1, 1, replaces=True),
        head(1, 1, replaces=True, agent="two"),
        head(2, 2, replaces=True),
        head(3, 2, replaces=False),
    ]
    live = live_segments(heads, AGENTS)
    assert [(h.agent_name, h.model_version, h.sequence) for h in live] == [
        ("two", 1, 1),
        ("one", 2, 2),
        ("one", 2, 3),
    ]


def test_rows_of_revoked_agents_and_of_earlier_enrolments_are_out():
    heads = [head(1, 1, replaces=True), head(1, 1, replaces=True, agent="three")]
    assert [h.agent_name for h in live_segments(heads, AGENTS)] == ["one"]
    again = [dataclasses.replace(AGENTS[0], generation=2)]
    assert live_segments(heads, again) == []


def stored(*segments: tuple[SegmentRecord, list[int]]) -> tuple[MemoryStore, list[SegmentRecord]]:
    """A store with segments whose rows have the given ids."""
    store = MemoryStore()
    with store.transaction() as writer:
        for made, ids in segments:
            columns = {name: bytes(width * len(ids)) for name, width in COLUMN_WIDTHS.items()}
            columns["candidate_ids"] = b"".join(i.to_bytes(16, "big") for i in ids)
            columns["margins"] = bytes([made.sequence] * len(ids))
            columns["cell_ids"] = np.array(ids, dtype="<u2").tobytes()
            writer.add_segment(dataclasses.replace(made, row_count=len(ids)), columns)
    return store, store.segments(ID)


def granted(candidate: int, state: GrantState = GrantState.GRANTED, **changes: object):
    terms = GrantTerms(
        bytes(16), ID, candidate.to_bytes(16, "big"), "north", "one", 1, 1, GrantReason.USEFUL, 9
    )
    return dataclasses.replace(GrantRecord(terms, state, 1, 1), **changes)


def test_the_latest_row_of_an_id_counts():
    store, heads = stored(
        (head(1, 1, replaces=True), [1, 2, 3]), (head(2, 1, replaces=False), [3, 4])
    )
    pool = assemble(store, CAMPAIGN, heads, grants=[]).pool
    rows = {int(i[-1]): int(m) for i, m in zip(pool.candidate_ids, pool.margins, strict=True)}
    assert rows == {1: 1, 2: 1, 3: 2, 4: 2}


def test_granted_candidates_are_not_in_the_pool():
    store, heads = stored((head(1, 1, replaces=True), [1, 2, 3]))
    pool = assemble(store, CAMPAIGN, heads, grants=[granted(2), granted(9)]).pool
    assert [int(i[-1]) for i in pool.candidate_ids] == [1, 3]


def test_labelled_cells_are_counted():
    store, heads = stored((head(1, 1, replaces=True), [1, 2, 3]))
    grants = [granted(2, GrantState.LABELED), granted(3)]
    pool = assemble(store, CAMPAIGN, heads, grants=grants).pool
    assert pool.progress.cell_labels.tolist() == [0, 0, 1]


def test_an_empty_pool_is_a_pool():
    pool = assemble(MemoryStore(), CAMPAIGN, [], grants=[]).pool
    assert len(pool) == 0


def test_a_sites_own_totals_go_before_counted_outcomes():
    counts = np.array([5, 0, 2], dtype="<u4").tobytes()
    report = SiteReportRecord(ID, "north", 1, counts, 7, 0, 0, 1_000, 40)
    labels = [
        granted(1, GrantState.LABELED, class_index_plus_one=3),
        granted(2, GrantState.LABELED),
    ]
    south = [
        dataclasses.replace(g, terms=dataclasses.replace(g.terms, site_id="south")) for g in labels
    ]
    cells = np.zeros(0, dtype=np.int64)
    progress = measure_progress(CAMPAIGN, labels + south, [report], cells=cells)
    assert progress.class_labels.tolist() == [5, 0, 3]
    assert progress.site_labels.tolist() == [7, 2]


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=20), min_size=1, max_size=30))
def test_known_ids_count_each_id_once(batches):
    known, seen = KnownIds(), set()
    for batch in batches:
        fresh = set(batch) - seen
        seen |= fresh
        assert known.add(b"".join(i.to_bytes(16, "little") for i in batch)) == len(fresh)


def test_settings_are_stored_as_json_of_plain_values():
    assert json.loads(json.dumps(CAMPAIGN.to_mapping()))["classes"] == ["a", "b", "d"]
