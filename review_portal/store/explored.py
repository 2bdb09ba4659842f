"""How the model's confidence stands up to labels that chance asked for.

Only items of the explore share count: all others were asked for because the model was unsure of
them, and say nothing of how it fares on the pool.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from review_portal.core.calibration import (
    JudgedGuess,
    SettledSuggestion,
    expected_calibration_error,
    further_temperature,
    reliability_bins,
)
from review_portal.core.model import GrantReason
from review_portal.store.tables import item, label

FEWEST_LABELS = 50
"""With fewer the error would be mostly noise, and nothing is reported."""
ROWS_MAX = 300
RECENT_LABELS = 5_000
"""How far the look goes back, so that a large store costs no more than a small one."""


@dataclass(frozen=True, slots=True)
class ExploredCalibration:
    """What explored labels say of a model version.

    Attributes:
        model_version: The newest version with enough labels.
        further_temperature: Factor that its temperature lacks, 1 when its confidence is right.
        error: Expected calibration error as it is, in [0, 1].
        label_count: Labels behind both.
    """

    model_version: int
    further_temperature: float
    error: float
    label_count: int


def explored_calibration(connection: Connection, campaign_id: bytes) -> ExploredCalibration | None:
    """Returns the calibration on explored items, None while there are too few of one version."""
    newest = select(func.max(label.c.label_id)).scalar_subquery()
    rows = connection.execute(
        select(item.c.model_version, item.c.probabilities, label.c.class_index)
        .join(item, item.c.item_number == label.c.item_number)
        .where(
            label.c.label_id > newest - RECENT_LABELS,
            label.c.campaign_id == campaign_id,
            label.c.superseded_by.is_(None),
            label.c.origin == "expert",
            label.c.class_index.is_not(None),
            label.c.schema_version == item.c.schema_version,
            item.c.grant_reason == GrantReason.EXPLORE.value,
            item.c.model_version > 0,
        )
        .order_by(label.c.label_id.desc())
        .limit(ROWS_MAX)
    )
    by_version: dict[int, list[JudgedGuess]] = {}
    for row in rows:
        values = struct.unpack(f"<{len(row.probabilities) // 4}f", row.probabilities)
        if row.class_index < len(values):
            guess = JudgedGuess(values, row.class_index)
            by_version.setdefault(row.model_version, []).append(guess)
    enough = [version for version, found in by_version.items() if len(found) >= FEWEST_LABELS]
    if not enough:
        return None
    guesses = by_version[max(enough)]
    settled = [_settled(guess) for guess in guesses]
    error = expected_calibration_error(reliability_bins(settled)).value
    assert error is not None  # it is only missing where no suggestion is
    return ExploredCalibration(max(enough), further_temperature(guesses), error, len(guesses))


def _settled(guess: JudgedGuess) -> SettledSuggestion:
    top = max(guess.probabilities)
    right = guess.probabilities.index(top) == guess.class_index
    return SettledSuggestion(min(max(top, 0.0), 1.0), right)
