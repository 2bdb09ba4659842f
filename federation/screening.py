"""Which replies of a round are used, and why the others are not. Pure: values in, verdict out.

One NaN site destroys a mean, one odd key used to end a whole run, and a site that doubles its
example count doubles its weight. So a reply is used only when its keys, shapes and dtypes are the
known ones, every value is finite, and its change is no longer than a multiple of the round's
median; its weight is capped by the labels that the coordinator knows of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from federation import frames
from federation.aggregation import Update
from federation.errors import FederationError, FrameInvalid, ReplyRefused
from federation.layer_arrays import fixed_arrays, trained_arrays
from federation.messages import ReportReply, UpdateReply, read_report, read_sums, read_update
from federation.networks import Arrays, NetworkSpec
from federation.reply_rules import check_report, check_survey, check_update, update_norm
from federation.survey_stages import Question, SurveySums, sums_layout

R = TypeVar("R")
NORM_FLOOR_RATIO = 0.05
"""A change below this share of the model's own norm is always taken: where a model has converged,
an honest site with news moves many times farther than its peers, and still not far."""


@dataclass(frozen=True, eq=False)
class Screening:
    """What the centre expects in a round.

    Attributes:
        spec: The network.
        cell_count: Rows of the code book that was sent.
        group_count_min: Smallest group behind a sum.
        norm_ratio_max: Longest change as a multiple of the median.
        label_counts: Cap of the example count by site.
    """

    spec: NetworkSpec
    cell_count: int
    group_count_min: int
    norm_ratio_max: float
    label_counts: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class UpdateVerdict:
    """Usable updates, the replies behind them, and the reason for each refusal, by site."""

    updates: tuple[Update, ...]
    replies: Mapping[str, UpdateReply]
    refused: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class ReportVerdict:
    """Usable reports and the reason for each refusal, by site."""

    reports: Mapping[str, ReportReply]
    refused: Mapping[str, str]


def screen_updates(
    incoming: Arrays, raw: Mapping[str, bytes], expected: Screening
) -> UpdateVerdict:
    """Judges the replies of a training round.

    Args:
        incoming: Parameters that were sent out.
        raw: Frame of each site that answered.
        expected: What the round expects.
    """
    fixed = fixed_arrays(incoming, expected.spec)

    def read(frame: frames.Frame) -> UpdateReply:
        reply = read_update(frame, expected.spec, expected.cell_count)
        reply = replace(reply, arrays=fixed | reply.arrays)
        check_update(incoming, reply, expected.spec, expected.group_count_min)
        if not reply.example_count:
            raise ReplyRefused("the site has no labelled examples")
        return reply

    replies, refused = _read_all(raw, read)
    trained = trained_arrays(incoming, expected.spec)
    norms = {site: update_norm(trained, reply.arrays) for site, reply in replies.items()}
    floor = NORM_FLOOR_RATIO * update_norm(
        {n: np.zeros_like(a) for n, a in trained.items()}, trained
    )
    limit = max(floor, norm_limit(list(norms.values()), expected.norm_ratio_max))
    for site, norm in norms.items():
        if norm > limit:
            refused[site] = f"the update's norm {norm:.3g} is above the round's limit {limit:.3g}"
            del replies[site]
    updates = [
        Update(site, reply.arrays, _weight(site, reply.example_count, expected.label_counts))
        for site, reply in sorted(replies.items())
    ]
    return UpdateVerdict(tuple(updates), replies, refused)


def screen_reports(raw: Mapping[str, bytes], expected: Screening) -> ReportVerdict:
    """Judges the reports on a finished model."""

    def read(frame: frames.Frame) -> ReportReply:
        reply = read_report(frame, expected.spec, expected.cell_count)
        check_report(reply, expected.group_count_min)
        _check_table(reply)
        return reply

    return ReportVerdict(*_read_all(raw, read))


def screen_sums(
    raw: Mapping[str, bytes], spec: NetworkSpec, question: Question
) -> tuple[dict[str, SurveySums], dict[str, str]]:
    """Judges the answers to one stage of a survey; returns usable ones and refusals, by site."""

    def read(frame: frames.Frame) -> SurveySums:
        layout = sums_layout(spec, question.stage, question.cell_count)
        reply = read_sums(frame, layout)
        check_survey(reply, layout, question.count_min)
        return reply

    return _read_all(raw, read)


def norm_limit(norms: list[float], ratio_max: float) -> float:
    """Longest norm that is taken: a multiple of the lower median, without limit below three sites.

    >>> norm_limit([1.0, 2.0, 90.0], 10.0), norm_limit([1.0, 90.0], 10.0)
    (20.0, inf)
    """
    if len(norms) < 3:
        return math.inf
    return ratio_max * sorted(norms)[(len(norms) - 1) // 2]


def _weight(site: str, claimed: int, label_counts: Mapping[str, int]) -> float:
    return float(min(claimed, label_counts[site])) if site in label_counts else float(claimed)


def _check_table(reply: ReportReply) -> None:
    right, predicted, actual = reply.table
    if (reply.table < 0).any() or (right > np.minimum(predicted, actual)).any():
        raise ReplyRefused("the class table contradicts itself")
    if predicted.sum() != actual.sum():
        raise ReplyRefused("the class table counts predicted and actual examples differently")


def _read_all(
    raw: Mapping[str, bytes], read: Callable[[frames.Frame], R]
) -> tuple[dict[str, R], dict[str, str]]:
    taken: dict[str, R] = {}
    refused: dict[str, str] = {}
    for site, frame in sorted(raw.items()):
        try:
            taken[site] = read(frames.decode(frame))
        except (FederationError, FrameInvalid) as error:
            refused[site] = str(error)
    return taken, refused
