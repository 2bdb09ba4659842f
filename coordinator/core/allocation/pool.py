"""What the allocator sees: the open candidates of all sites, as columns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.errors import AllocationError

SCORE_LEVELS = 63
DENSITY_LEVELS = 15
_LIMITS = {
    "margins": SCORE_LEVELS,
    "entropies": SCORE_LEVELS,
    "top_probabilities": SCORE_LEVELS,
    "divergences": SCORE_LEVELS,
    "density_bands": DENSITY_LEVELS,
    "cost_bands": 7,
}


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """What a campaign has learnt before this cycle.

    Attributes:
        class_labels: int64[classes], settled labels by class, over all sites.
        site_labels: int64[sites], settled labels by site.
        cell_labels: int64[cells], labelled candidates by cell; shorter arrays are padded with 0.
        site_trust: float64[sites] in [0, 1], how far a site's claims came true; 1 is full trust.
        calibration_error: expected calibration error in [0, 1], or None when nobody measured it.
        model_trained: whether labels taught the model that scored the candidates; None where nobody
            says: then it counts as trained once there is any label.
    """

    class_labels: NDArray[np.int64]
    site_labels: NDArray[np.int64]
    cell_labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    site_trust: NDArray[np.float64] | None = None
    calibration_error: float | None = None
    model_trained: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Open candidates, one row each. No row order is assumed and none influences the result.

    A pool that exists is valid: it is checked when it is made, once for all that reads it.

    Attributes:
        candidate_ids: uint8[n, 16], unique.
        site_index: int32[n], row of ``site_ids``.
        agent_index: int32[n], any numbering of the agents.
        margins: uint8[n], 0 to 63, higher is more uncertain.
        entropies: uint8[n], 0 to 63.
        top_probabilities: uint8[n], 0 to 63.
        divergences: uint8[n], 0 to 63.
        predicted_classes: uint16[n].
        runner_up_classes: uint16[n].
        prototype_classes: uint16[n].
        cell_ids: uint16[n].
        density_bands: uint8[n], 0 to 15.
        cost_bands: uint8[n], 0 to 7.
        site_ids: names of the sites, in a fixed order.
        class_count: classes of the label schema, at least 2.
        progress: what is labelled already.

    Raises:
        AllocationError: columns disagree or hold values out of range; names the column.
    """

    candidate_ids: NDArray[np.uint8]
    site_index: NDArray[np.int32]
    agent_index: NDArray[np.int32]
    margins: NDArray[np.uint8]
    entropies: NDArray[np.uint8]
    top_probabilities: NDArray[np.uint8]
    divergences: NDArray[np.uint8]
    predicted_classes: NDArray[np.uint16]
    runner_up_classes: NDArray[np.uint16]
    prototype_classes: NDArray[np.uint16]
    cell_ids: NDArray[np.uint16]
    density_bands: NDArray[np.uint8]
    cost_bands: NDArray[np.uint8]
    site_ids: tuple[str, ...]
    class_count: int
    progress: Progress

    def __post_init__(self) -> None:
        _check_pool(self)

    def __len__(self) -> int:
        return len(self.candidate_ids)

    @property
    def site_count(self) -> int:
        """How many sites the campaign has, with or without candidates."""
        return len(self.site_ids)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The row columns by name, in the order of their declaration."""
        pairs = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {name: value for name, value in pairs if isinstance(value, np.ndarray)}


def _check_pool(pool: Pool) -> None:
    rows = len(pool)
    if pool.candidate_ids.shape != (rows, 16) or pool.candidate_ids.dtype != np.uint8:
        raise AllocationError("candidate_ids must be uint8[n, 16]")
    for name, column in pool.columns().items():
        if len(column) != rows:
            raise AllocationError(f"{name} has {len(column)} rows, candidate_ids has {rows}")
    if pool.class_count < 2:
        raise AllocationError(f"class_count must be at least 2, not {pool.class_count}")
    if rows:
        _check_ranges(pool)
    _check_progress(pool)


def _check_ranges(pool: Pool) -> None:
    for name, largest in _LIMITS.items():
        if getattr(pool, name).max() > largest:
            raise AllocationError(f"{name} must lie between 0 and {largest}")
    for name in ("predicted_classes", "runner_up_classes", "prototype_classes"):
        if getattr(pool, name).max() >= pool.class_count:
            raise AllocationError(f"{name} names a class outside the label schema")
    if pool.site_index.min() < 0 or pool.site_index.max() >= pool.site_count:
        raise AllocationError("site_index names a site that is not in site_ids")


def _check_progress(pool: Pool) -> None:
    progress = pool.progress
    if len(progress.class_labels) != pool.class_count:
        raise AllocationError(f"class_labels must have {pool.class_count} entries")
    if len(progress.site_labels) != pool.site_count:
        raise AllocationError(f"site_labels must have {pool.site_count} entries")
    trust = progress.site_trust
    if trust is None:
        return
    if len(trust) != pool.site_count or not ((trust >= 0) & (trust <= 1)).all():
        raise AllocationError(f"site_trust must be {pool.site_count} numbers in [0, 1]")
