"""States of a training run and the rules between them. Processes and files are not known here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TrainingState(StrEnum):
    """Life of a training run; the last three are final."""

    PROPOSED = "proposed"
    SUBMITTED = "submitted"
    TRAINING = "training"
    CANDIDATE = "candidate"
    GATED = "gated"
    CANARY = "canary"
    RELEASED = "released"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


FINAL_TRAINING_STATES = frozenset(
    {TrainingState.RELEASED, TrainingState.ROLLED_BACK, TrainingState.ABORTED}
)
_NEXT: dict[TrainingState, frozenset[TrainingState]] = {
    TrainingState.PROPOSED: frozenset({TrainingState.SUBMITTED, TrainingState.ABORTED}),
    TrainingState.SUBMITTED: frozenset(
        {TrainingState.TRAINING, TrainingState.CANDIDATE, TrainingState.ABORTED}
    ),
    TrainingState.TRAINING: frozenset({TrainingState.CANDIDATE, TrainingState.ABORTED}),
    TrainingState.CANDIDATE: frozenset({TrainingState.GATED, TrainingState.ROLLED_BACK}),
    TrainingState.GATED: frozenset({TrainingState.CANARY, TrainingState.RELEASED}),
    TrainingState.CANARY: frozenset({TrainingState.RELEASED, TrainingState.ROLLED_BACK}),
}


def may_follow(state: TrainingState, after: TrainingState) -> bool:
    """Whether a run in `state` may go to `after`.

    >>> may_follow(TrainingState.CANDIDATE, TrainingState.RELEASED)
    False
    """
    return after in _NEXT.get(state, frozenset())


@dataclass(frozen=True)
class Evaluation:
    """What the sites' held-out test sets say about a version; None where nothing was measured."""

    accuracy: float | None = None
    macro_f1: float | None = None
    example_count: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)


def passes_gate(
    candidate: Evaluation, released: Evaluation | None, *, accuracy_drop_max: float
) -> str | None:
    """Returns why a candidate version must not be released, or None when it may.

    Args:
        candidate: Federated evaluation of the new version.
        released: That of the version in use; None for the first.
        accuracy_drop_max: Largest loss of accuracy that is let through, 0 to 1.

    >>> passes_gate(Evaluation(0.5), Evaluation(0.9), accuracy_drop_max=0.1)
    'accuracy 0.500 is more than 0.1 below the released version (0.900)'
    >>> passes_gate(Evaluation(0.85), Evaluation(0.9), accuracy_drop_max=0.1) is None
    True
    """
    if candidate.accuracy is None:
        return None
    if not math.isfinite(candidate.accuracy) or not 0 <= candidate.accuracy <= 1:
        return "its accuracy is no number from 0 to 1"
    before = released.accuracy if released is not None else None
    if before is not None and candidate.accuracy < before - accuracy_drop_max:
        return (
            f"accuracy {candidate.accuracy:.3f} is more than {accuracy_drop_max:g} below "
            f"the released version ({before:.3f})"
        )
    return None
