"""Records and series: what a column policy lets through.

There is no guessing here. A column that the policy does not name is masked, and a record of a site
without any column policy is held.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edge_agent.masking.seam import Held, HeldReason, Masked, Masker

MASKED_VALUE = "<MASKED>"


class ColumnRule(StrEnum):
    """What happens to a column."""

    KEEP = "keep"
    """Shown as it is; for numbers and codes without personal meaning."""
    FREE_TEXT = "free-text"
    """Masked like a text."""
    MASK = "mask"
    """Replaced by `<MASKED>`."""
    DROP = "drop"
    """Left out."""


@dataclass(frozen=True, slots=True)
class ColumnPolicy:
    """Rules of a site for the columns of its records.

    Attributes:
        rules: Rule by column name; columns without one are masked.
    """

    rules: Mapping[str, ColumnRule]


def mask_record(
    record: Mapping[str, float | int | str | bool | None],
    policy: ColumnPolicy | None,
    masker: Masker,
    *,
    language: str = "en",
) -> dict[str, float | int | str | bool | None] | Held:
    """Apply a column policy to one record.

    Args:
        record: Column name to value.
        policy: The site's rules; None holds the record.
        masker: Masks free text.
        language: Language of free text.

    Returns:
        The masked record with its columns in order, or `Held`: one column that must be held holds
        the whole record.
    """
    if policy is None or not policy.rules:
        return Held(HeldReason.NO_COLUMN_POLICY, "the site has no column policy for its records")
    masked: dict[str, float | int | str | bool | None] = {}
    for column, value in record.items():
        rule = policy.rules.get(column, ColumnRule.MASK)
        if rule is ColumnRule.DROP:
            continue
        if rule is ColumnRule.KEEP or value is None:
            masked[column] = value
        elif rule is ColumnRule.MASK:
            masked[column] = MASKED_VALUE
        else:
            answer = masker.mask(str(value), language=language)
            if not isinstance(answer, Masked):
                return answer
            masked[column] = answer.text
    return masked


def allowed_channels(
    series: NDArray[np.float32], names: tuple[str, ...], allowed: frozenset[str]
) -> NDArray[np.float32] | Held:
    """Keep the channels of a series that the site allows.

    Args:
        series: float32[steps, channels].
        names: Name of each channel.
        allowed: Channels that may be shown; positions and device ids are not among them.

    Returns:
        float32[steps, kept], or `Held` when names and channels differ or nothing is left.

    >>> allowed_channels(np.zeros((2, 2), np.float32), ("x", "lat"), frozenset({"x"})).shape
    (2, 1)
    """
    if series.ndim != 2 or series.shape[1] != len(names):
        return Held(HeldReason.UNREADABLE, "the series has another number of channels than names")
    kept = [position for position, name in enumerate(names) if name in allowed]
    if not kept:
        return Held(HeldReason.NO_COLUMN_POLICY, "the site allows none of the series' channels")
    chosen: NDArray[np.float32] = np.ascontiguousarray(series[:, kept], dtype=np.float32)
    return chosen
