"""What the values of a configuration must be; each broken rule names its key and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simulations.errors import ConfigInvalid

if TYPE_CHECKING:
    from simulations.config import SimulationConfig

KINDS = ("text", "image", "series", "record")
PARTITIONS = ("dirichlet", "column")
TRAINERS = ("fast", "flower")
STARTS = ("random", "policy")
FEATURES = ("frozen", "native", "learned")

Rule = tuple[str, object, bool, str]
"""Key, its value, whether it holds, and what the value must be."""


def check(config: SimulationConfig) -> None:
    """Refuses values out of range.

    Raises:
        ConfigInvalid: names the first key, its value and what it must be.
    """
    for part in (_world, _money, _what_goes_wrong, _run):
        for key, value, holds, wanted in part(config):
            if not holds:
                raise ConfigInvalid(f"{key} must be {wanted}, not {value!r}")
    _check_training(config)


def _world(config: SimulationConfig) -> Iterator[Rule]:
    data, federation = config.data, config.federation
    yield "[data] kind", data.kind, data.kind in KINDS, _one_of(KINDS)
    features = FEATURES if data.kind != "record" else FEATURES[:2]
    yield "[data] features", data.features, data.features in features, _one_of(features)
    yield "[data] width", data.width, 2 <= data.width <= 4096, "2 to 4096"
    yield "[data] rows", data.rows, data.rows >= 0, "0 (all) or more"
    partition, sizes = federation.partition, ("equal", "unequal")
    yield "[federation] partition", partition, partition in PARTITIONS, _one_of(PARTITIONS)
    yield "[federation] sites", federation.sites, 1 <= federation.sites <= 10_000, "1 to 10000"
    yield "[federation] alpha", federation.alpha, federation.alpha > 0, "above 0"
    yield "[federation] rho", federation.rho, federation.rho >= 1, "1 or more"
    yield "[federation] sizes", federation.sizes, federation.sizes in sizes, _one_of(sizes)
    clones = federation.clones
    yield "[federation] clones", clones, 0 <= clones <= federation.sites, "0 to the sites' number"


def _money(config: SimulationConfig) -> Iterator[Rule]:
    budget, expert = config.budget, config.expert
    yield "[budget] initial", budget.initial, budget.initial >= 0, "0 or more"
    yield "[budget] start", budget.start, budget.start in STARTS, _one_of(STARTS)
    yield "[budget] per_cycle", budget.per_cycle, budget.per_cycle >= 1, "1 or more"
    yield "[budget] cycles", budget.cycles, budget.cycles >= 0, "0 or more"
    yield "[budget] class_floor", budget.class_floor, budget.class_floor >= 0, "0 or more"
    capacity, bands = budget.capacity, budget.site_cost_bands
    yield "[budget] capacity", capacity, all(c >= 0 for c in capacity), "0 or more at each site"
    yield "[budget] site_cost_bands", bands, all(0 <= b <= 7 for b in bands), "bands from 0 to 7"
    yield "[expert] accuracy", expert.accuracy, 0 < expert.accuracy <= 1, "above 0 to 1"
    split, unsure = expert.disagreement, expert.abstain_ratio
    yield "[expert] disagreement", split, 0 <= split <= 1, "0 to 1"
    yield "[expert] abstain_ratio", unsure, 0 <= unsure < 1, "0 to below 1"
    yield "[expert] seconds", expert.seconds, expert.seconds > 0, "above 0"
    yield "[expert] hourly_price", expert.hourly_price, expert.hourly_price >= 0, "0 or more"


def _what_goes_wrong(config: SimulationConfig) -> Iterator[Rule]:
    scenario = config.scenario
    for key in ("drop_out_site", "liar_site"):
        site = getattr(scenario, key)
        yield f"[scenario] {key}", site, site >= -1, "a site's number from 0, or -1 for none"
    cycle, drift = scenario.drop_out_cycle, scenario.drift_cycle
    yield "[scenario] drop_out_cycle", cycle, cycle >= 1, "1 or more"
    yield "[scenario] drift_cycle", drift, drift >= 0, "a cycle from 1, or 0 for never"
    strength = scenario.drift_strength
    yield "[scenario] drift_strength", strength, strength >= 0, "0 or more"


def _run(config: SimulationConfig) -> Iterator[Rule]:
    run = config.simulation
    names = list(run.strategies)
    once = bool(names) and len(set(names)) == len(names)
    yield "[simulation] strategies", names, once, "at least one name, each once"
    yield "[simulation] seeds", run.seeds, run.seeds >= 1, "1 or more"
    yield "[simulation] first_seed", run.first_seed, run.first_seed >= 0, "0 or more"
    yield "[simulation] processes", run.processes, run.processes >= 0, "0 (one per core) or more"
    yield "[simulation] trainer", run.trainer, run.trainer in TRAINERS, _one_of(TRAINERS)
    training = config.training
    rounds = training.pretrain_rounds
    yield "[training] pretrain_rounds", rounds, 0 <= rounds <= 1000, "0 to 1000"
    fixed = config.data.features != "native" or config.data.kind == "record"
    wanted = "false where [data] features is native and the kind is not record"
    for key in ("plain_head", "linear_skip"):
        asked = getattr(training, key)
        yield f"[training] {key}", asked, fixed or not asked, wanted
    size = training.ensemble_size
    yield "[training] ensemble_size", size, 1 <= size <= 16, "1 to 16"
    wanted = "1 where [data] features is native and the kind is not record, or with plain_head"
    alone = size == 1 or (fixed and not training.plain_head)
    yield "[training] ensemble_size", size, alone, wanted
    taught = size == 1 or not rounds
    yield "[training] pretrain_rounds", rounds, taught, "0 with ensemble_size above 1"
    moves = config.data.kind == "image" and config.data.features == "learned"
    wanted = "0 unless [data] kind is image and features learned"
    views = training.input_views
    yield "[training] input_views", views, moves or not views, wanted
    reads = config.data.kind == "text" and config.data.features == "learned"
    wanted = "false unless [data] kind is text and features learned"
    named = training.label_names
    yield "[training] label_names", named, reads or not named, wanted
    for key in ("hidden_width", "embedding_width"):
        width = getattr(training, key)
        yield f"[training] {key}", width, 2 <= width <= 4096, "2 to 4096"


def _check_training(config: SimulationConfig) -> None:
    """The rest of `[training]` is judged by the production's own settings."""
    from federation.errors import RequestInvalid
    from federation.local_settings import check_spread
    from simulations import production

    try:
        local = production.local_settings(config.training)
        if config.training.plain_head:
            check_spread(local)
        production.round_settings(config.training)
        production.aggregation_settings(config.training)
    except RequestInvalid as error:
        raise ConfigInvalid(f"[training] {error}") from None


def _one_of(names: tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}"
