"""The round loop of a run, over any transport: deployed Flower, in process, or a test's.

    state = run_rounds(plan, transport, state, after_round)
    reports = ask_reports(plan, transport, state)

A round sends the model to every site that is online, waits for all answers or the round's
time-out, screens them, and needs a quorum; it then aggregates, moves the code book one step and
hands the new state to `after_round`, which writes the checkpoint. All chance comes from the run's
seed and the round's number, so a resumed run equals the uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from federation import messages
from federation.aggregation import AggregationSettings, ServerState, Update, aggregate
from federation.checkpoint import RoundState
from federation.courier import Courier, Transport
from federation.errors import QuorumMissed
from federation.layer_arrays import fixed_arrays, trained_arrays
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec
from federation.reply_rules import update_norm
from federation.requests import RoundSettings
from federation.screening import (
    ReportVerdict,
    Screening,
    UpdateVerdict,
    screen_reports,
    screen_updates,
)
from federation.statistics import GroupSums, accuracy, next_code_book

RAMP_START = 0.2
RAMP_LENGTH = 0.25
AfterRound = Callable[[RoundState, Mapping[str, Any]], RoundState]


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What stays the same in all rounds of a run."""

    campaign_id: str
    run_key: str
    spec: NetworkSpec
    rounds: RoundSettings
    local: LocalSettings
    aggregation: AggregationSettings
    label_counts: Mapping[str, int]
    seed: int


def run_rounds(
    plan: RunPlan, transport: Transport, state: RoundState, after_round: AfterRound
) -> RoundState:
    """Runs the rounds that are left and returns the last state.

    Raises:
        QuorumMissed: A round had no quorum in all its attempts; finished rounds are kept.
    """
    courier = Courier(transport, timeout_seconds=plan.rounds.round_timeout_seconds)
    while state.round_number < plan.rounds.rounds:
        verdict, silent = _answered(plan, courier, state)
        following, facts = next_state(plan, state, verdict)
        facts["silent"] = dict(silent)
        state = after_round(following, facts)
    return state


def next_state(
    plan: RunPlan, state: RoundState, verdict: UpdateVerdict
) -> tuple[RoundState, dict[str, Any]]:
    """Returns the state after a round, and the facts of the round. Pure.

    Parameters that stay as they are (`networks.feature_names`) take no part, whatever sites say of
    them: a weighted mean would let them drift by rounding, and noise would move them.
    """
    number = state.round_number + 1
    fixed = fixed_arrays(state.arrays, plan.spec)
    start = trained_arrays(state.arrays, plan.spec)
    weighted = _weighted(verdict.updates, plan.rounds.weight_power)
    updates = _clipped(start, weighted, plan.rounds.update_clip_norm)
    # What moved the model while it learnt without labels says nothing of the way from here.
    server = ServerState() if number == plan.rounds.pretrain_rounds + 1 else state.server
    arrays, server = aggregate(start, updates, server, plan.aggregation)
    arrays = _noised(arrays, plan, number, len(updates))
    average = _averaged(plan, server.average or state.arrays, arrays)
    server = replace(server, average={**fixed, **average} if average else {})
    rng = np.random.default_rng([plan.seed, number, 1])
    cells = sum_groups([reply.cells for reply in verdict.replies.values()])
    code_book = next_code_book(state.code_book, cells, rng) if cells else state.code_book
    table = sum(reply.table for reply in verdict.replies.values())
    facts: dict[str, Any] = {
        "sites": {u.site: {"examples": int(u.weight)} for u in verdict.updates},
        "refused": dict(verdict.refused),
        "loss": _mean_loss(verdict),
        "accuracy_before": accuracy(np.asarray(table)) if verdict.replies else 0.0,
    }
    return RoundState(number, {**fixed, **arrays}, server, code_book, state.chain), facts


def ask_reports(
    plan: RunPlan, transport: Transport, state: RoundState
) -> tuple[ReportVerdict, Mapping[str, str]]:
    """Asks every site to measure the final model; returns usable reports and silent sites.

    Raises:
        QuorumMissed: Too few sites answered usably in all attempts.
    """
    command = _command(plan, state, messages.ASSESS)
    courier = Courier(transport, timeout_seconds=plan.rounds.round_timeout_seconds)
    for _ in range(plan.rounds.round_attempts):
        sites = courier.sites()
        replies = courier.ask(command, sites)
        verdict = screen_reports(replies.frames, _screening(plan, state))
        if len(verdict.reports) >= quorum(plan.rounds, len(sites)):
            return verdict, replies.silent
    raise _missed("the evaluation", verdict.refused, replies.silent)


def quorum(rounds: RoundSettings, site_count: int) -> int:
    """Returns how many usable replies a round needs.

    >>> quorum(RoundSettings(quorum_ratio=0.6), 3)
    2
    """
    return max(rounds.quorum_count, math.ceil(rounds.quorum_ratio * site_count - 1e-9))


def local_of(plan: RunPlan, rounds_done: int) -> LocalSettings:
    """Returns the sites' settings of the next round.

    Rounds of pre-training come first. Then the step size falls along a half cosine, and guessed
    classes, and changed inputs beside them, count from `RAMP_START` of the rounds on, guesses fully
    after another `RAMP_LENGTH` of them: first guesses are poor.
    """
    before, last = plan.rounds.pretrain_rounds, plan.rounds.final_rate_ratio
    if rounds_done < before:
        return replace(plan.local, objective="views")
    done, total = rounds_done - before, plan.rounds.rounds - before
    place = min(1.0, done / max(1, total - 1))
    share = last + (1 - last) * (1 + math.cos(math.pi * place)) / 2
    ramp = min(1.0, max(0.0, (done / total - RAMP_START) / RAMP_LENGTH))
    weight = plan.local.unlabelled_weight
    return replace(
        plan.local,
        objective="labels",
        learning_rate=plan.local.learning_rate * share,
        unlabelled_weight=weight * ramp,
        input_noise=0.0 if weight and not ramp else plan.local.input_noise,
    )


def plain_plan(plan: RunPlan) -> RunPlan:
    """The same run without unlabelled samples and what goes with them."""
    rounds = replace(
        plan.rounds,
        rounds=plan.rounds.rounds - plan.rounds.pretrain_rounds,
        pretrain_rounds=0,
        weight_power=1.0,
    )
    local = replace(plan.local, unlabelled_weight=0.0, input_noise=0.0)
    return replace(plan, rounds=rounds, local=local)


def learns_from_pool(plan: RunPlan) -> bool:
    """Whether unlabelled samples shape the model of a run."""
    return bool(plan.local.unlabelled_weight or plan.rounds.pretrain_rounds)


def sum_groups(groups: list[GroupSums]) -> GroupSums | None:
    """Adds the counts and sums of all sites; None for none.

    >>> sum_groups([]) is None
    True
    """
    if not groups:
        return None
    counts = np.sum([group.counts for group in groups], axis=0)
    sums = np.sum([group.sums for group in groups], axis=0, dtype=np.float64)
    return GroupSums(counts, np.asarray(sums, dtype=np.float32))


def _answered(
    plan: RunPlan, courier: Courier, state: RoundState
) -> tuple[UpdateVerdict, Mapping[str, str]]:
    command = _command(plan, state, messages.TRAIN)
    for _ in range(plan.rounds.round_attempts):
        sites = courier.sites()
        replies = courier.ask(command, sites)
        verdict = screen_updates(state.arrays, replies.frames, _screening(plan, state))
        empty = [s for s, reason in verdict.refused.items() if "no labelled examples" in reason]
        if len(verdict.updates) >= quorum(plan.rounds, len(sites) - len(empty)):
            return verdict, replies.silent
    raise _missed(f"round {state.round_number + 1}", verdict.refused, replies.silent)


def _missed(what: str, refused: Mapping[str, str], silent: Mapping[str, str]) -> QuorumMissed:
    reasons = "; ".join(
        f"{site}: {reason}" for site, reason in sorted({**silent, **refused}.items())
    )
    return QuorumMissed(f"{what} had no quorum ({reasons or 'no site is online'})")


def _command(plan: RunPlan, state: RoundState, kind: str) -> messages.Command:
    local = local_of(plan, state.round_number)
    guesses = kind == messages.TRAIN and local.unlabelled_weight
    return messages.Command(
        kind,
        plan.campaign_id,
        plan.run_key,
        plan.spec,
        local,
        int(np.random.default_rng([plan.seed, state.round_number]).integers(1 << 31)),
        state.arrays,
        state.code_book,
        state.server.average if guesses else {},
    )


def _screening(plan: RunPlan, state: RoundState) -> Screening:
    return Screening(
        plan.spec,
        len(state.code_book),
        plan.local.group_count_min,
        plan.rounds.norm_ratio_max,
        plan.label_counts,
    )


def _averaged(plan: RunPlan, before: Arrays, arrays: Arrays) -> Arrays:
    """Running mean of the rounds' models, kept only where it will guess classes.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", 2017.
    """
    kept = np.float32(plan.rounds.teacher_momentum)
    if not kept or not plan.local.unlabelled_weight:
        return {}
    return {n: kept * before[n] + (1 - kept) * a for n, a in arrays.items()}


def _mean_loss(verdict: UpdateVerdict) -> float:
    total = sum(update.weight for update in verdict.updates)
    losses = [verdict.replies[u.site].loss * u.weight for u in verdict.updates]
    return sum(losses) / total if total else 0.0


def _weighted(updates: tuple[Update, ...], power: float) -> tuple[Update, ...]:
    return tuple(replace(update, weight=update.weight**power) for update in updates)


def _clipped(arrays: Arrays, updates: tuple[Update, ...], clip_norm: float) -> list[Update]:
    if not clip_norm:
        return list(updates)
    clipped = []
    for update in updates:
        share = np.float32(min(1.0, clip_norm / max(update_norm(arrays, update.arrays), 1e-12)))
        moved = {n: a + share * (update.arrays[n] - a) for n, a in arrays.items()}
        clipped.append(Update(update.site, moved, 1.0))
    return clipped


def _noised(arrays: Arrays, plan: RunPlan, number: int, site_count: int) -> Arrays:
    """Gaussian noise on the mean of clipped updates; equal site weights make its scale right."""
    if not plan.rounds.noise_multiplier or not site_count:
        return arrays
    rng = np.random.default_rng([plan.seed, number, 2])
    scale = plan.rounds.noise_multiplier * plan.rounds.update_clip_norm / site_count
    return {
        name: (array + scale * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in arrays.items()
    }
