"""The concave terms of a campaign: shared cells, confusions, classes by deficit, and sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.core.allocation.objective import Family, Integers, Reals, group_sums
from coordinator.core.allocation.policy import Budget, Policy
from coordinator.core.allocation.pool import Pool

MOST_SITE_CELLS = 4_000_000
"""Beyond so many pairs of site and cell only the shared cells are kept apart."""
RUNNER_UP_SHARE = 0.25
"""Share of a label's class mass that counts for the runner-up class."""
SMALLEST_OVERLAP = 0.01
"""An overlap this small, or this close to 1, is rounded, which saves one family."""

Groups = Callable[[NDArray[np.int64] | slice], NDArray[np.integer]]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A family before candidates are sorted into keys.

    Attributes:
        family: the concave functions; its ``groups`` are empty.
        groups: gives the group of each asked row of the pool.
        apart: tells the groups inside one site apart, or None where the site says the group.
        width: numbers that ``apart`` gives, from 0.
    """

    family: Family
    groups: Groups
    apart: Groups | None
    width: int


Objective = tuple[float, tuple[Term, ...]]
"""Weight of the plain utility sum, and the concave terms."""


def build_terms(pool: Pool, budget: Budget, policy: Policy, *, label_mass: float) -> Objective:
    """Weight of the plain utility sum, and the terms that are switched on.

    Args:
        pool: the open candidates and what is labelled already.
        budget: its cost limit sets the scale of class balance.
        policy: weights and switches.
        label_mass: utility that one label of the past counts as; positive.
    """
    terms: list[Term] = []
    linear = 1.0
    if policy.switches.cells and policy.cell_weight > 0:
        terms += _cell_terms(pool, policy, label_mass=label_mass)
        linear -= policy.cell_weight
    if policy.switches.pairs and policy.pair_weight > 0:
        terms.append(_pair_term(pool, policy, label_mass=label_mass))
        linear -= policy.pair_weight
    if policy.switches.classes and policy.class_weight > 0:
        terms += _class_terms(pool, budget, policy, label_mass=label_mass)
    if policy.switches.sites and policy.site_weight > 0:
        terms.append(_site_term(pool, policy, label_mass=label_mass))
    return linear, tuple(terms)


def measured_overlap(pool: Pool) -> float:
    """How much sites share cells: 0 when each cell has one site, 1 as for sites drawn alike.

    The share of candidates outside the largest site of their cell, over the same share when all
    cells had the sites' overall proportions.
    """
    if not len(pool):
        return 1.0
    cells = int(pool.cell_ids.max()) + 1
    pairs = pool.cell_ids.astype(np.int64) * pool.site_count + pool.site_index
    counts = np.bincount(pairs, minlength=cells * pool.site_count).reshape(cells, -1)
    outside = 1.0 - counts.max(axis=1).sum() / len(pool)
    alike = 1.0 - counts.sum(axis=0).max() / len(pool)
    return float(np.clip(outside / alike, 0.0, 1.0)) if alike > 0 else 1.0


def _cell_terms(pool: Pool, policy: Policy, *, label_mass: float) -> list[Term]:
    """Shared cells where sites overlap, cells of one site where they do not."""
    cells = max(int(pool.cell_ids.max(initial=0)) + 1, len(pool.progress.cell_labels))
    labels = np.zeros(cells)
    labels[: len(pool.progress.cell_labels)] = pool.progress.cell_labels
    pairs = cells * pool.site_count
    share = measured_overlap(pool) if policy.switches.overlap else 1.0
    if pairs > MOST_SITE_CELLS or share > 1.0 - SMALLEST_OVERLAP:
        share = 1.0
    elif share < SMALLEST_OVERLAP:
        share = 0.0
    terms: list[Term] = []

    def cell(rows: Integers | slice) -> NDArray[np.integer]:
        return pool.cell_ids[rows]

    if share > 0.0:
        weights = np.full(cells, policy.cell_weight * share)
        family = _family(
            "cells", weights, base=labels * label_mass, scale=label_mass, power=policy.cell_power
        )
        terms.append(Term(family, cell, cell, cells))
    if share < 1.0:
        weights = np.full(pairs, policy.cell_weight * (1.0 - share))
        base = np.tile(labels * label_mass, pool.site_count)
        family = _family(
            "site cells", weights, base=base, scale=label_mass, power=policy.cell_power
        )
        terms.append(
            Term(family, lambda rows: pool.site_index[rows] * cells + cell(rows), cell, cells)
        )
    return terms


def _pair_term(pool: Pool, policy: Policy, *, label_mass: float) -> Term:
    """Confusions: pairs of first and second guess, so that one cycle does not buy one of them only.

    The last layer's gradient of an unsure sample points from its second guess to its first, so
    this spreads the picks over directions of the gradient without any gradient leaving a device.
    Source of the aim: Ash et al., "Deep batch active learning by diverse, uncertain gradient lower
    bounds", 2020 (BADGE).
    """
    weights = np.full(pool.class_count**2, policy.pair_weight)
    base = np.zeros(len(weights))
    family = _family("pairs", weights, base=base, scale=label_mass, power=0.5)
    first, second, classes = pool.predicted_classes, pool.runner_up_classes, pool.class_count
    return _plain(family, lambda rows: first[rows].astype(np.int64) * classes + second[rows])


def _class_terms(pool: Pool, budget: Budget, policy: Policy, *, label_mass: float) -> list[Term]:
    """Log-like growth per class: steep for a class with few labels, flat for one with many."""
    labels = pool.progress.class_labels.astype(np.float64)
    per_class = (labels.sum() + budget.cost_limit) / pool.class_count
    scale = max(per_class, 1.0) * label_mass
    weights = np.full(pool.class_count, policy.class_weight)
    family = _family("classes", weights, base=labels * label_mass, scale=scale, power=1.0)
    main = pool.prototype_classes if policy.switches.prototype else pool.predicted_classes
    if not policy.switches.runner_up:
        return [_plain(family, lambda rows: main[rows])]
    second = pool.runner_up_classes
    return [
        _plain(_scaled(family, 1.0 - RUNNER_UP_SHARE), lambda rows: main[rows]),
        _plain(_scaled(family, RUNNER_UP_SHARE), lambda rows: second[rows]),
    ]


def _site_term(pool: Pool, policy: Policy, *, label_mass: float) -> Term:
    """A mild bonus for sites with few labels, so that none starves."""
    base = pool.progress.site_labels.astype(np.float64) * label_mass
    weights = np.full(pool.site_count, policy.site_weight)
    family = _family("sites", weights, base=base, scale=label_mass, power=0.5)
    return Term(family, lambda rows: pool.site_index[rows], None, 1)


def _plain(family: Family, groups: Groups) -> Term:
    """A term whose groups have nothing to do with the site."""
    return Term(family, groups, groups, len(family.weights))


def _family(name: str, weights: Reals, *, base: Reals, scale: float, power: float) -> Family:
    return Family(
        name=name,
        groups=np.zeros(0, dtype=np.int64),
        factor=1.0,
        weights=weights,
        base=base,
        scale=np.full(len(weights), scale),
        power=power,
    )


def _scaled(family: Family, factor: float) -> Family:
    """The same family for a share of each label's mass."""
    return Family(
        name=family.name,
        groups=family.groups,
        factor=factor,
        weights=family.weights,
        base=family.base,
        scale=family.scale,
        power=family.power,
    )


def row_slopes(
    rows: Integers, linear: float, terms: tuple[Term, ...], masses: list[Reals]
) -> NDArray[np.float32]:
    """float32[len(rows)]: gain per unit of utility of the rows, at the given masses.

    Works in blocks, so that ten million rows need one column of extra memory.
    """
    tables = [
        (term.family.factor * term.family.slope(mass)).astype(np.float32)
        for term, mass in zip(terms, masses, strict=True)
    ]
    result = np.full(len(rows), linear, dtype=np.float32)
    for start in range(0, len(rows), 1 << 18):
        block = rows[start : start + (1 << 18)]
        for term, table in zip(terms, tables, strict=True):
            result[start : start + (1 << 18)] += np.take(table, term.groups(block))
    return result


def term_masses(terms: tuple[Term, ...], rows: Integers, utilities: Reals) -> list[Reals]:
    """Mass that the rows put into the groups of each term."""
    return [
        group_sums(
            term.groups(rows), term.family.factor * utilities, count=len(term.family.weights)
        )
        for term in terms
    ]
