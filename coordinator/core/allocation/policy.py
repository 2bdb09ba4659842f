"""What an operator decides: the budget of a cycle and the policy that spends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.errors import AllocationError

LEAST_COLDNESS = 0.1
"""Below it the smallest chance factors would be 0 in 32 bits, and such candidates never bought."""
_LEAST = {
    "cell_power": 0.0,
    "coldness": LEAST_COLDNESS,
    "class_weight": 0.0,
    "site_weight": 0.0,
    "hot_calibration_error": 0.0,
}


class Engine(Enum):
    """How the objective is maximised. All engines keep every constraint."""

    AUTO = "auto"
    """Exact where the objective is one partition, else lazy for small pools, else threshold."""
    LAZY = "lazy"
    """Exact lazy greedy over heads: the oracle."""
    THRESHOLD = "threshold"
    """Vectorised descending threshold."""


class Phase(Enum):
    """How far the shared model can be trusted to say what it does not know."""

    COLD = "cold"
    """No label taught the model that scored the candidates: its density band is all it can say."""
    WARM = "warm"
    HOT = "hot"


class Reason(IntEnum):
    """Why a candidate was picked; the values of the wire's GrantReason."""

    USEFUL = 1
    EXPLORE = 2
    OVERLAP = 3
    CLASS_FLOOR = 4


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What one cycle may cost, in whole cost units.

    Attributes:
        cost_limit: most cost units of the cycle, at least 0.
        site_capacity: int64[sites], most labels that each site's experts can give this cycle.
        class_floors: int64[classes], labels that each class should have in all; 0 for no floor.
        band_costs: cost units of a label in cost bands 0 to 7, each at least 1.
    """

    cost_limit: int
    site_capacity: NDArray[np.int64]
    class_floors: NDArray[np.int64]
    band_costs: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class UtilityWeights:
    """Weights of the scores inside one candidate's utility; they are normalised to sum 1."""

    margin: float = 0.0
    entropy: float = 0.0
    divergence: float = 0.0
    density: float = 0.0

    def normalised(self) -> NDArray[np.float32]:
        """float32[4]: margin, entropy, divergence, density.

        >>> UtilityWeights(margin=3.0, density=1.0).normalised().tolist()
        [0.75, 0.0, 0.0, 0.25]
        """
        raw = np.array([self.margin, self.entropy, self.divergence, self.density], np.float32)
        return np.asarray(raw / raw.sum(), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Switches:
    """Turns single parts of the policy off, to measure what each one is worth."""

    cells: bool = True
    pairs: bool = True
    chance: bool = True
    novelty: bool = True
    classes: bool = True
    sites: bool = True
    runner_up: bool = True
    prototype: bool = True
    overlap: bool = True
    phases: bool = True
    adapt: bool = True
    explore: bool = True
    doubt: bool = True
    floors: bool = True
    costs: bool = True
    trust: bool = True
    share_cap: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """How the budget is spent. A user who sets nothing gets the measured best.

    Attributes:
        weights: utility weights by phase.
        cell_weight: most weight of diversity inside shared cells, 0 to 1; like all that is marked
            "most", as far as labels are uneven over the classes.
        cell_power: how fast the gain of a cell fades with what it holds: 0 never, 0.5 like a root,
            1 like a logarithm. A cold phase takes `COLD_CELL_POWER`.
        pair_weight: most weight of diversity among confusions, pairs of first and second guess, 0
            to 1; with `cell_weight` at most 1.
        coldness: how little chance counts in the ranking, from `LEAST_COLDNESS` on; infinite for
            none. It rises to that as labels become uneven over the classes.
        novelty_weight: most that distance from all labelled samples may count in a utility, 0 to 1.
        class_weight: most weight of class balance.
        site_weight: weight of the term that lets no site starve.
        explore_ratio: share of the budget drawn by chance to measure live accuracy, 0 to 1.
        explore_doubt: part of that draw that prefers unsure candidates, 0 to below 1; the rest is
            blind to the scores.
        overlap_ratio: share of the picks that a second expert labels too, 0 to 1.
        share_cap_multiple: a site may take this many times an equal share of the budget.
        hot_calibration_error: at or below this measured error the phase is hot.
        epsilon: relative step of the descending threshold.
        engine: how to maximise.
        switches: parts to leave out.
    """

    weights: dict[Phase, UtilityWeights] = field(
        default_factory=lambda: {
            Phase.COLD: UtilityWeights(density=1.0),
            Phase.WARM: UtilityWeights(margin=1.0),
            Phase.HOT: UtilityWeights(margin=1.0),
        }
    )
    cell_weight: float = 0.5
    cell_power: float = 0.5
    pair_weight: float = 0.5
    coldness: float = 8.0
    novelty_weight: float = 0.75
    class_weight: float = 2.0
    site_weight: float = 0.02
    explore_ratio: float = 0.1
    explore_doubt: float = 0.25
    overlap_ratio: float = 0.0
    share_cap_multiple: float = 2.0
    hot_calibration_error: float = 0.1
    epsilon: float = 0.08
    engine: Engine = Engine.AUTO
    switches: Switches = Switches()


def check_budget(budget: Budget, *, sites: int, classes: int) -> None:
    """Refuses a malformed budget.

    Raises:
        AllocationError: names the field.
    """
    if budget.cost_limit < 0:
        raise AllocationError(f"cost_limit must not be negative: {budget.cost_limit}")
    if len(budget.site_capacity) != sites or (budget.site_capacity < 0).any():
        raise AllocationError(f"site_capacity must be {sites} counts of at least 0")
    if len(budget.class_floors) != classes or (budget.class_floors < 0).any():
        raise AllocationError(f"class_floors must be {classes} counts of at least 0")
    if len(budget.band_costs) != 8 or min(budget.band_costs) < 1:
        raise AllocationError("band_costs must be 8 whole numbers of at least 1")


def check_policy(policy: Policy) -> None:
    """Refuses a policy with numbers out of range.

    Raises:
        AllocationError: names the field.
    """
    shares = ("cell_weight", "pair_weight", "novelty_weight", "explore_ratio", "overlap_ratio")
    for name in shares:
        if not 0.0 <= getattr(policy, name) <= 1.0:
            raise AllocationError(f"{name} must lie between 0 and 1")
    if not 0.0 <= policy.explore_doubt < 1.0:
        raise AllocationError("explore_doubt must lie between 0 and below 1")
    if policy.cell_weight + policy.pair_weight > 1.0:
        raise AllocationError("cell_weight and pair_weight must not exceed 1 together")
    for name, least in _LEAST.items():
        if not getattr(policy, name) >= least:
            raise AllocationError(f"{name} must be at least {least:g}")
    if not policy.share_cap_multiple > 0.0:
        raise AllocationError("share_cap_multiple must be positive")
    if not 0.0 < policy.epsilon < 1.0:
        raise AllocationError("epsilon must lie between 0 and 1")
    missing = [phase.value for phase in Phase if phase not in policy.weights]
    if missing:
        raise AllocationError(f"weights lack the phases {', '.join(missing)}")
