"""The production's training settings for a simulation's `[training]`.

Keys of the same name are the same settings, and the production's own checks of their ranges apply.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

from federation.aggregation import AggregationSettings
from federation.local_settings import LocalSettings
from federation.requests import RoundSettings
from simulations.config import TrainingConfig

S = TypeVar("S", LocalSettings, RoundSettings, AggregationSettings)


def local_settings(training: TrainingConfig) -> LocalSettings:
    """Local training of a round.

    Raises:
        RequestInvalid: a value is out of range.

    >>> local_settings(TrainingConfig(batch_size=8)).batch_size
    8
    """
    return _same_named(LocalSettings, training)


def round_settings(training: TrainingConfig) -> RoundSettings:
    """The rounds themselves; pre-training is the simulation's own.

    Raises:
        RequestInvalid: a value is out of range.
    """
    return RoundSettings(
        rounds=training.rounds,
        cell_count=training.cell_count,
        weight_power=training.weight_power,
        teacher_momentum=training.teacher_momentum,
    )


def aggregation_settings(training: TrainingConfig) -> AggregationSettings:
    """What becomes of the sites' updates.

    Raises:
        RequestInvalid: a value is out of range.
    """
    return _same_named(AggregationSettings, training)


def _same_named(kind: type[S], training: TrainingConfig) -> S:
    known = {item.name for item in fields(TrainingConfig)}
    shared = [item.name for item in fields(kind) if item.name in known]
    return kind(**{name: getattr(training, name) for name in shared})
