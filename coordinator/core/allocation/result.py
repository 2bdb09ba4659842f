"""What an allocation says: the picks, why each was made, and what proves it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.policy import Budget, Phase, Policy
from coordinator.core.allocation.pool import Pool


@dataclass(frozen=True, slots=True, eq=False)
class ExploreFrame:
    """The population that the explore draw speaks about, fixed before any of its labels exist.

    Attributes:
        counts: int64[sites, classes], open candidates by site and predicted class.
        probability_sums: float64[sites, classes], sums of their largest probability.
        targets: float64[sites], expected explore labels of each site.
    """

    counts: NDArray[np.int64]
    probability_sums: NDArray[np.float64]
    targets: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Certificate:
    """How close the useful picks come to the best possible ones.

    Attributes:
        value: objective of the picks, explore share apart.
        bound: no choice under the same constraints reaches more.
    """

    value: float
    bound: float

    @property
    def ratio(self) -> float:
        """Value over bound, in [0, 1]; 1 is provably optimal."""
        return min(1.0, self.value / self.bound) if self.bound > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A wish that the pool or the budget could not meet."""

    what: str
    wanted: int
    got: int
    why: str


@dataclass(frozen=True, slots=True)
class Prices:
    """What one more unit would be worth, in units of the objective. They explain a decision.

    Attributes:
        budget: of one more cost unit.
        sites: of one more label at each site whose cap binds, by site id.
        classes: that each class floor costs per label, by class index.
    """

    budget: float
    sites: dict[str, float]
    classes: dict[int, float]


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """The picks of one cycle, best first, and how they came about.

    A row of ``rows`` may appear twice: once with its reason and once with reason OVERLAP.

    Attributes:
        rows: int64[k], rows of the pool.
        candidate_ids: uint8[k, 16].
        site_index: int32[k].
        reasons: uint8[k], values of :class:`coordinator.core.allocation.policy.Reason`.
        inclusion_probabilities: float64[k], in (0, 1] for EXPLORE and 0 for every other reason.
        costs: int64[k], cost units.
        gains: float64[k], what the pick added to the objective; 0 for EXPLORE and OVERLAP.
        phase: phase of the policy.
        engine: name of the engine that ran.
        key: uint64[2], the chance key; with the same inputs it gives the same picks.
        frame: population of the explore draw.
        shortfalls: wishes that could not be met.
        prices: what binding limits are worth, or None where none binds.
    """

    rows: NDArray[np.int64]
    candidate_ids: NDArray[np.uint8]
    site_index: NDArray[np.int32]
    reasons: NDArray[np.uint8]
    inclusion_probabilities: NDArray[np.float64]
    costs: NDArray[np.int64]
    gains: NDArray[np.float64]
    phase: Phase
    engine: str
    key: NDArray[np.uint64]
    frame: ExploreFrame
    shortfalls: tuple[Shortfall, ...] = ()
    prices: Prices | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cost(self) -> int:
        """Cost units of all picks together."""
        return int(self.costs.sum())

    def digest(self) -> str:
        """SHA-256 in hex over the picks; equal for equal picks in any row order of the pool."""
        seal = hashlib.sha256(b"perimeter-allocation-v1\0")
        for column, kind in (
            (self.candidate_ids, "u1"),
            (self.reasons, "u1"),
            (self.inclusion_probabilities, "<f8"),
            (self.costs, "<i8"),
            (self.key, "<u8"),
        ):
            seal.update(len(column).to_bytes(8, "little"))
            seal.update(column.astype(kind).tobytes())
        return seal.hexdigest()


def digest_inputs(pool: Pool, budget: Budget, policy: Policy) -> str:
    """SHA-256 in hex over all inputs of an allocation, independent of the row order.

    Rows are put into the order of their ids first, so this costs a sort; a coordinator does it
    once per allocation, for its log.
    """
    words = np.ascontiguousarray(pool.candidate_ids).view(">u8").reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))
    seal = hashlib.sha256(b"perimeter-allocation-inputs-v1\0")
    for name, column in pool.columns().items():
        seal.update(name.encode() + np.ascontiguousarray(column[order]).tobytes())
    seal.update(json.dumps([pool.site_ids, pool.class_count]).encode())
    for record in (pool.progress, budget):
        for item in fields(record):
            value = getattr(record, item.name)
            plain = value.tolist() if isinstance(value, np.ndarray) else value
            seal.update(json.dumps([item.name, plain]).encode())
    seal.update(repr(policy).encode())
    return seal.hexdigest()
