"""All strategies under their standard names."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from coordinator.core.allocation.policy import Policy, Switches
from simulations import ranking
from simulations.engine import Strategy
from simulations.errors import ConfigInvalid
from simulations.perimeter_strategy import select_perimeter, without
from simulations.view import Selection, SelectionView

_SCORERS = {
    "random": ranking.random_scores,
    "entropy": ranking.entropy_scores,
    "margin": ranking.margin_scores,
    "least-confidence": ranking.least_confidence_scores,
}
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
    names["perimeter"] = "the product's default policy"
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
    policy = Policy()
    if name != "perimeter":
        policy = without(name.removeprefix("perimeter-no-").replace("-", "_"))

    def select(view: SelectionView, rng: np.random.Generator) -> Selection:
        return select_perimeter(view, rng, policy)

    return select
