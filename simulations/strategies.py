"""All strategies under their standard names."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from coordinator.core.allocation.policy import Policy, Switches
from simulations import ranking
from simulations.engine import Strategy
from simulations.errors import ConfigInvalid
from simulations.perimeter_strategy import half_divergence, select_perimeter, without
from simulations.rivals.badge import rank_badge
from simulations.rivals.cluster_margin import rank_cluster_margin
from simulations.rivals.cold_start import rank_probcover, rank_typiclust
from simulations.rivals.core_set import rank_core_set
from simulations.rivals.fairfal import rank_fairfal
from simulations.rivals.federated import rank_kafal, rank_logo
from simulations.rivals.ifal import rank_ifal
from simulations.rivals.rules import select_inside, select_union
from simulations.view import Selection, SelectionView

DIVERGENCE = "perimeter-divergence"
_SCORERS = {
    "random": ranking.random_scores,
    "entropy": ranking.entropy_scores,
    "margin": ranking.margin_scores,
    "least-confidence": ranking.least_confidence_scores,
}
_RIVALS = {
    "core-set": (rank_core_set, True),
    "badge": (rank_badge, True),
    "typiclust": (rank_typiclust, True),
    "probcover": (rank_probcover, False),
    "cluster-margin": (rank_cluster_margin, True),
    "logo": (rank_logo, False),
    "kafal": (rank_kafal, False),
    "ifal": (rank_ifal, False),
    "fairfal": (rank_fairfal, False),
}
"""Rule, and whether it also runs over the union of all sites, as if embeddings could leave them."""
_QUOTAS = {
    "equal": ranking.equal_quota,
    "proportional": ranking.proportional_quota,
    "square-root": ranking.square_root_quota,
    "neyman": ranking.neyman_quota,
    "water-filling": ranking.water_quota,
    "thompson": ranking.thompson_quota,
}


def strategy_names() -> dict[str, str]:
    """Every name with one line about it."""
    names = {"random": "uniform over all sites", "random-site": "uniform, equal quota per site"}
    for score in ("entropy", "margin", "least-confidence"):
        names[f"{score}-global"] = f"largest {score} anywhere, one budget"
        names[f"{score}-site"] = f"largest {score} of each site, equal quotas"
    for quota in _QUOTAS:
        names[f"margin-{quota}"] = f"margin inside sites, {quota} quotas"
    for name, (_, union) in _RIVALS.items():
        names[name] = f"{name} inside each site, equal quotas"
        if union:
            names[f"{name}-global"] = f"{name} over the union of all sites"
    names["perimeter"] = "the product's default policy"
    names[DIVERGENCE] = "perimeter with half of margin's weight on divergence from site heads"
    for item in fields(Switches):
        names[f"perimeter-no-{item.name.replace('_', '-')}"] = f"perimeter without {item.name}"
    return names


def find_strategy(name: str) -> Strategy:
    """Returns the strategy of a name.

    Raises:
        ConfigInvalid: the name is not known.
    """
    if name not in strategy_names():
        raise ConfigInvalid(f"strategy {name!r} is not known; see `perimeter-simulate strategies`")
    if name.startswith("perimeter"):
        return _perimeter(name)
    if name.removesuffix("-global") in _RIVALS:
        rule = _RIVALS[name.removesuffix("-global")][0]
        return select_union(rule) if name.endswith("-global") else select_inside(rule)
    if name in ("random", "random-site"):
        score, _, where = "random", "", name.partition("-")[2] or "global"
    else:
        score, _, where = name.rpartition("-")
        if name.split("-", 1)[1] in _QUOTAS:
            score, where = name.split("-", 1)
    scorer = _SCORERS[score]
    if where == "global":
        return ranking.select_global(scorer)
    return ranking.select_by_site(scorer, _QUOTAS["equal" if where == "site" else where])


def _perimeter(name: str) -> Strategy:
    policy = half_divergence() if name == DIVERGENCE else Policy()
    if name not in ("perimeter", DIVERGENCE):
        policy = without(name.removeprefix("perimeter-no-").replace("-", "_"))

    def select(view: SelectionView, rng: np.random.Generator) -> Selection:
        return select_perimeter(view, rng, policy, site_head=name == DIVERGENCE)

    return select
