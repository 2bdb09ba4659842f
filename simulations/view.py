"""What a strategy may look at when it selects: scores and features, labels only where bought."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coordinator.core.estimation import ExploreLabels
from edge_agent.scoring import ModelOutputs, softmax
from simulations.learner import Model

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LocalView:
    """A site-only model on that site's samples.

    Attributes:
        probabilities: float32[n, classes], rows of other sites hold their own site's model.
        embedding: float32[n, d].
    """

    probabilities: Floats
    embedding: Floats


@dataclass(eq=False)
class SelectionView:
    """The federation before one cycle's selection.

    Attributes:
        cycle: from 1; 0 for the first labels.
        sites: int64[n].
        site_ids: names of the sites.
        candidate_ids: uint8[n, 16].
        open: bool[n], not labelled, not asked for, and its site is present.
        labels: int64[n], class of a labelled sample, -1 for every other.
        cost_bands: uint8[n].
        capacity: int64[sites], labels left to each site's experts in this cycle.
        class_count: classes.
        class_floor: labels that each class should reach.
        budget: cost units of this cycle, or of the start.
        outputs: the shared model on all samples.
        model: its bundle parts.
        cell_labels: int64[cells], labelled samples by cell of the current code book.
        judged: claims and answers of all picks of earlier cycles; explore picks have a probability.
        train_local: trains the site-only models, from the shared model where asked to.
    """

    cycle: int
    sites: Integers
    site_ids: tuple[str, ...]
    candidate_ids: NDArray[np.uint8]
    open: NDArray[np.bool_]
    labels: Integers
    cost_bands: NDArray[np.uint8]
    capacity: Integers
    class_count: int
    class_floor: int
    budget: int
    outputs: ModelOutputs
    model: Model
    cell_labels: Integers
    judged: ExploreLabels | None
    train_local: Callable[[bool], LocalView]
    notes: dict[str, float] = field(default_factory=dict)

    @cached_property
    def probabilities(self) -> Floats:
        """float32[n, classes] of the shared model: of the head that asks, where it has one."""
        asked = self.outputs.acquisition_logits
        return softmax(self.outputs.logits if asked is None else asked)

    @cached_property
    def local(self) -> LocalView:
        """Site-only models, trained on first use."""
        return self.train_local(False)

    @cached_property
    def tuned(self) -> LocalView:
        """The shared model tuned on each site's labels, on first use."""
        return self.train_local(True)

    @property
    def embedding(self) -> Floats:
        """float32[n, d] of the shared model, unit length."""
        return self.outputs.embedding

    @property
    def costs(self) -> Integers:
        """int64[n], cost units of a label."""
        return self.cost_bands.astype(np.int64) + 1

    @property
    def site_count(self) -> int:
        """How many sites there are."""
        return len(self.site_ids)

    def at_site(self, site: int) -> tuple[Integers, Integers]:
        """Open and labelled places of one site."""
        here = self.sites == site
        return np.flatnonzero(here & self.open), np.flatnonzero(here & (self.labels >= 0))


@dataclass(frozen=True, eq=False)
class Selection:
    """What a strategy asks for.

    Attributes:
        places: int64[k], places of the pool, best first.
        explore_probabilities: float64[k], inclusion probability of explore picks, else 0.
    """

    places: Integers
    explore_probabilities: NDArray[np.float64]
