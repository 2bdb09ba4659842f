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


def update_norm(before: Arrays, after: Mapping[str, NDArray[np.float32]]) -> float:
    """L2 norm of the change of all parameters; not finite when a value is not.

    >>> update_norm({"w": np.float32([0, 0])}, {"w": np.float32([3, 4])})
    5.0
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = [np.square(after[n].astype(np.float64) - before[n]).sum() for n in before]
    return float(np.sqrt(np.sum(squares)))
