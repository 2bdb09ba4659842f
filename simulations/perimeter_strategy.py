"""The product's own strategy: production scoring on the device side, production allocation."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from coordinator.core.allocation.policy import Budget, Phase, Policy, Switches, UtilityWeights
from coordinator.core.allocation.pool import Pool, Progress
from coordinator.core.allocation.seam import allocate
from coordinator.core.trust import site_trust
from edge_agent.scoring import (
    CandidateColumns,
    ModelOutputs,
    is_untrained,
    score,
    with_coverage,
)
from simulations.view import Floats, Integers, Selection, SelectionView


def select_perimeter(
    view: SelectionView,
    rng: np.random.Generator,
    policy: Policy | None = None,
    *,
    site_head: bool = False,
) -> Selection:
    """Scores the open samples, allocates the cycle's budget, returns the picks."""
    policy = policy or Policy()
    places = np.flatnonzero(view.open)
    pool = make_pool(view, places, site_head=site_head)
    budget = Budget(
        cost_limit=view.budget,
        site_capacity=view.capacity,
        class_floors=np.full(view.class_count, view.class_floor, dtype=np.int64),
    )
    found = allocate(pool, budget, policy, rng)
    return Selection(places[found.rows], found.inclusion_probabilities)


def without(switch: str, policy: Policy | None = None) -> Policy:
    """The policy with one part switched off.

    >>> without("cells").switches.cells
    False
    """
    policy = policy or Policy()
    if switch not in {item.name for item in fields(Switches)}:
        raise KeyError(switch)
    return replace(policy, switches=replace(policy.switches, **{switch: False}))


def make_pool(view: SelectionView, places: Integers, *, site_head: bool = False) -> Pool:
    """The candidates as the coordinator would see them: quantised columns and totals only.

    Args:
        view: the federation before a cycle.
        places: open samples.
        site_head: score divergence against the shared model tuned on each site's own labels.
    """
    columns = _columns(view, places, site_head)
    labelled = view.labels >= 0
    trust = None
    if view.judged is not None:
        trust = site_trust(view.judged, sites=view.site_count)
    return Pool(
        candidate_ids=view.candidate_ids[places],
        site_index=view.sites[places].astype(np.int32),
        agent_index=view.sites[places].astype(np.int32),
        margins=columns.margins,
        entropies=columns.entropies,
        top_probabilities=columns.top_probabilities,
        divergences=(columns.divergence_risk & 63).astype(np.uint8),
        predicted_classes=columns.predicted_classes,
        runner_up_classes=columns.runner_up_classes,
        prototype_classes=columns.prototype_classes,
        cell_ids=columns.cell_ids,
        density_bands=(columns.density_cost & 15).astype(np.uint8),
        cost_bands=(columns.density_cost >> 4).astype(np.uint8),
        site_ids=view.site_ids,
        class_count=view.class_count,
        progress=Progress(
            class_labels=np.bincount(view.labels[labelled], minlength=view.class_count),
            site_labels=np.bincount(view.sites[labelled], minlength=view.site_count),
            cell_labels=view.cell_labels,
            site_trust=trust,
        ),
    )


def half_divergence(policy: Policy | None = None) -> Policy:
    """The policy with half of the margin's weight on divergence.

    >>> half_divergence().weights[Phase.HOT].normalised().tolist()
    [0.5, 0.0, 0.5, 0.0]
    """
    policy = policy or Policy()
    mixed = UtilityWeights(margin=0.5, divergence=0.5)
    return replace(policy, weights={**policy.weights, Phase.WARM: mixed, Phase.HOT: mixed})


def _columns(view: SelectionView, places: Integers, site_head: bool) -> CandidateColumns:
    head = np.log(np.maximum(view.tuned.probabilities[places], 1e-12)) if site_head else None
    asked = view.outputs.acquisition_logits
    outputs = ModelOutputs(
        view.outputs.logits[places],
        view.outputs.embedding[places],
        site_logits=head,
        acquisition_logits=None if asked is None else asked[places],
    )
    columns = score(
        outputs,
        temperature=1.0,
        prototypes=view.model.prototypes,
        code_book=view.model.code_book,
    )
    if is_untrained(view.model.prototypes) and not view.model.has_fitted_cells:
        columns = _with_coverage(columns, outputs.embedding, view.sites[places])
    none = np.zeros(len(places), dtype=np.uint8)
    return columns.with_bands(risk_bands=none, cost_bands=view.cost_bands[places])


def _with_coverage(
    columns: CandidateColumns, embedding: Floats, sites: Integers
) -> CandidateColumns:
    """What devices report under an untrained model: each sees the pool of its own site."""
    bands = columns.density_cost.copy()
    for site in np.unique(sites).tolist():
        here = np.flatnonzero(sites == site)
        bands[here] = with_coverage(columns.take(here), embedding[here]).density_cost
    return replace(columns, density_cost=bands)
