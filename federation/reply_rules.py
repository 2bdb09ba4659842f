"""What a site's trainer lets out: checked on the site's side, whatever the centre asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from federation.errors import NetworkInvalid, ReplyRefused
from federation.messages import ReportReply, UpdateReply
from federation.networks import Arrays, NetworkSpec, check_arrays
from federation.statistics import GroupSums
from federation.survey_stages import SAMPLES_MIN, SumsLayout, SurveySums

UPDATE_NORM_MAX = 1e4
"""Largest L2 norm of one round's change; honest rounds stay far below."""


def check_update(incoming: Arrays, reply: UpdateReply, spec: NetworkSpec, count_min: int) -> None:
    """Checks names, shapes, dtypes, finiteness and the norm of an update, and its sums.

    Raises:
        ReplyRefused: Says what may not leave.
    """
    try:
        check_arrays(reply.arrays, spec)
    except NetworkInvalid as error:
        raise ReplyRefused(f"the trained parameters may not leave: {error}") from None
    if not math.isfinite(reply.loss):
        raise ReplyRefused("the training loss is not finite; lower the learning rate")
    norm = update_norm(incoming, reply.arrays)
    if norm > UPDATE_NORM_MAX:
        raise ReplyRefused(f"the update's norm is {norm:.3g}, above {UPDATE_NORM_MAX:.3g}")
    check_sums(reply.cells, count_min)


def check_report(reply: ReportReply, count_min: int) -> None:
    """Checks that a report's sums are finite, short and over enough examples.

    Raises:
        ReplyRefused: Says what may not leave.
    """
    check_sums(reply.classes, count_min)
    check_sums(reply.cells, count_min)
    for name, array in vars(reply.calibration).items():
        if not np.isfinite(array).all():
            raise ReplyRefused(f"{name} holds a value that is not finite")


def check_sums(groups: GroupSums, count_min: int) -> None:
    """Checks that every sum covers no or enough examples and is no longer than their count.

    Raises:
        ReplyRefused: A group is too small to hide one example, or its sum is impossible.
    """
    small = (groups.counts > 0) & (groups.counts < count_min)
    lengths = np.linalg.norm(groups.sums, axis=1)
    if small.any() or (groups.counts < 0).any():
        raise ReplyRefused(f"a sum covers fewer than {count_min} examples")
    if not np.isfinite(lengths).all() or (lengths > groups.counts * 1.001).any():
        raise ReplyRefused("a sum of unit embeddings is longer than its count")


def check_survey(reply: SurveySums, layout: SumsLayout, count_min: int) -> None:
    """Checks that a survey's sums cover no or enough samples and are no longer than these allow.

    Raises:
        ReplyRefused: Too few samples stand behind a sum, or it is impossible.
    """
    samples, counts, longest = reply.sample_count, reply.counts, layout.row_length
    if 0 < samples < max(SAMPLES_MIN, count_min):
        raise ReplyRefused(f"a survey covers fewer than {max(SAMPLES_MIN, count_min)} samples")
    small = (counts > 0) & (counts < count_min)
    if small.any() or (counts < 0).any() or (counts > samples * layout.rows_per_sample).any():
        raise ReplyRefused(f"a sum covers fewer than {count_min} samples, or more than there are")
    lengths = np.linalg.norm(reply.sums.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all() or (lengths > counts * longest * 1.001).any():
        raise ReplyRefused("a survey's sum is longer than its count")
    if not layout.moments_side:
        return
    moments = reply.moments.astype(np.float64)
    own, limit = np.diag(moments), 1.001 * float(counts[0]) * longest**2
    if not np.isfinite(moments).all() or (own < 0).any() or own.sum() > limit:
        raise ReplyRefused("a survey's second moment is larger than its count")
    if np.abs(moments).max() > 1.001 * own.max() or np.abs(moments - moments.T).max() > limit / 1e3:
        raise ReplyRefused("a survey's second moment is none of any rows")


def update_norm(before: Arrays, after: Mapping[str, NDArray[np.float32]]) -> float:
    """L2 norm of the change of all parameters; not finite when a value is not.

    >>> update_norm({"w": np.float32([0, 0])}, {"w": np.float32([3, 4])})
    5.0
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = [np.square(after[n].astype(np.float64) - before[n]).sum() for n in before]
    return float(np.sqrt(np.sum(squares)))
