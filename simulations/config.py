"""A simulation's configuration: one TOML file, every key a documented field.

    [data]        path, kind, features, width, rows
    [federation]  partition, sites, alpha, rho, sizes, clones, rare_class_site
    [budget]      initial, start, per_cycle, cycles, capacity, site_cost_bands, class_floor
    [expert]      accuracy, disagreement, abstain_ratio, seconds, hourly_price
    [training]    rounds, local_epochs, batch_size, learning_rate, server_momentum, …
    [scenario]    drop_out_site, drop_out_cycle, drift_cycle, drift_strength, liar_site
    [simulation]  strategies, seeds, first_seed, trainer, processes

Unknown keys are refused by name. Relative paths start at the file's folder.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from coordinator.core.layer_defaults import LAYER_WIDTH, completed
from simulations.config_rules import check
from simulations.errors import ConfigInvalid


@dataclass(frozen=True)
class DataConfig:
    """Where the samples come from.

    Attributes:
        path: parquet, npz, csv, a folder of class folders, or `builtin:digits`,
            `builtin:synthetic`.
        kind: text, image, series or record.
        features: `frozen` trains a head on fixed features, fast and like a frozen encoder;
            `native` trains the family's whole network; `learned` first learns features without
            labels from the sites' samples, as campaigns with `unsupervised_width` do (not records);
            `width` and `[training]` then have a campaign's defaults on such a layer.
        width: columns of the frozen or learned features.
        rows: most training samples, drawn at random; 0 for all.
    """

    path: str
    kind: str
    features: str = "frozen"
    width: int = 64
    rows: int = 0


@dataclass(frozen=True)
class FederationConfig:
    """How the samples lie at the sites.

    Attributes:
        partition: `dirichlet` or `column` (the data's own sites).
        sites: number of sites for dirichlet.
        alpha: Dirichlet concentration; small is more skewed.
        rho: long-tail ratio between the commonest and the rarest class of the pool, from 1.
        sizes: `equal` or `unequal` site sizes.
        clones: the first sites that hold copies of the same samples, 0 for none.
        rare_class_site: the rarest class lives at site 0 only.
    """

    partition: str = "dirichlet"
    sites: int = 10
    alpha: float = 0.1
    rho: float = 1.0
    sizes: str = "equal"
    clones: int = 0
    rare_class_site: bool = False


@dataclass(frozen=True)
class BudgetConfig:
    """What may be spent.

    Attributes:
        initial: labels before the first cycle.
        start: how those are chosen: `random`, the same for all strategies, or `policy`, by each
            strategy under the untrained model.
        per_cycle: cost units of each cycle.
        cycles: number of cycles.
        capacity: most labels of each site per cycle, one number for all or one per site; empty for
            no limit.
        site_cost_bands: cost band of each site's samples, repeated over the sites; band b costs
            b + 1 units.
        class_floor: labels that each class should reach.
    """

    initial: int = 200
    start: str = "random"
    per_cycle: int = 200
    cycles: int = 8
    capacity: tuple[int, ...] = ()
    site_cost_bands: tuple[int, ...] = ()
    class_floor: int = 0


@dataclass(frozen=True)
class ExpertConfig:
    """How experts answer.

    Attributes:
        accuracy: chance that a label is right; a wrong one is another class at random.
        disagreement: share of samples on which experts are split: those that lie nearest to
            another class. Such a sample gets that class from one expert in two.
        abstain_ratio: chance of "can't tell": the label comes back to the budget.
        seconds: mean seconds per decision.
        hourly_price: money per hour of an expert, for the plan.
    """

    accuracy: float = 1.0
    disagreement: float = 0.0
    abstain_ratio: float = 0.0
    seconds: float = 20.0
    hourly_price: float = 60.0


@dataclass(frozen=True)
class TrainingConfig:
    """Federated training of each cycle.

    Attributes:
        rounds: federated rounds.
        local_epochs: passes over a site's labels in each round.
        batch_size: examples per step.
        learning_rate: step size at the sites.
        local_steps_max: most steps of a site in a round; one with more labels takes larger batches
            instead. 0 for no bound.
        server_momentum: momentum of the aggregation.
        hidden_width: units of the hidden layer.
        embedding_width: columns of the embedding.
        cell_count: cells of the shared code book.
        warm_start: continue from the last cycle's model instead of seeded parameters.
        unlabelled_weight: weight of guessed classes of the sites' unlabelled samples, 0 for none.
        unlabelled_batch: unlabelled samples per step.
        unlabelled_max: most unlabelled samples that a site uses in a round.
        pseudo_labels: `soft` or `threshold`.
        pseudo_precision: share of right guesses that `threshold` asks of calibration examples.
        pool_prior: how far guesses bend to a site's own share of classes, 0 to 1.
        trust_power: guesses count by how often labels have rightly guessed neighbours, to this
            power; 0 trusts them without proof.
        agreement_power: a guess counts by the share of its neighbours that say the same, to this
            power; 0 asks no neighbour.
        cohesion_floor: guesses count as far as near neighbours agree beyond chance by more than
            this share of what is possible, -1 to 0.8; -1 asks nobody.
        teacher_momentum: share that a running mean of the rounds' models keeps in each round; this
            mean guesses the classes; 0 for the round's own model.
        spread: `none`, `cells` or `graph`: what guesses take from their neighbours.
        input_noise: strength of changes to inputs while training, 0 for none.
        input_views: images on learned features: moved copies of each label that rounds take turns
            with, 0 for none.
        weight_power: a site counts by its labels to this power, 0 to 1.
        compare_plain: compare with plain training on held-out labels, and train the better way;
            about doubles the time.
        pretrain_rounds: rounds before the first cycle that learn from unlabelled samples alone.
        plain_head: learn from unlabelled samples with one head, ask for labels with another.
        linear_skip: add a linear map of the features to what the hidden layers say.
        ensemble_size: heads that learn apart and answer together, 1 to 16.
        label_names: texts on learned features: the name of each class is a labelled example of it
            at every site.
    """

    rounds: int = 40
    local_epochs: int = 2
    batch_size: int = 16
    learning_rate: float = 0.05
    local_steps_max: int = 0
    server_momentum: float = 0.9
    hidden_width: int = 128
    embedding_width: int = 64
    cell_count: int = 64
    warm_start: bool = False
    unlabelled_weight: float = 0.0
    unlabelled_batch: int = 48
    unlabelled_max: int = 800
    pseudo_labels: str = "soft"
    pseudo_precision: float = 0.95
    pool_prior: float = 0.0
    trust_power: float = 1.0
    agreement_power: float = 0.0
    cohesion_floor: float = 0.4
    teacher_momentum: float = 0.8
    spread: str = "graph"
    input_noise: float = 0.0
    input_views: int = 0
    weight_power: float = 1.0
    compare_plain: bool = False
    pretrain_rounds: int = 0
    plain_head: bool = False
    linear_skip: bool = False
    ensemble_size: int = 1
    label_names: bool = False


@dataclass(frozen=True)
class ScenarioConfig:
    """What goes wrong.

    Attributes:
        drop_out_site: site that leaves, -1 for none.
        drop_out_cycle: from this cycle on, counted from 1.
        drift_cycle: from this cycle on features of the pool shift, 0 for never.
        drift_strength: length of the shift in standard deviations.
        liar_site: site that claims top scores for everything, -1 for none.
    """

    drop_out_site: int = -1
    drop_out_cycle: int = 3
    drift_cycle: int = 0
    drift_strength: float = 1.0
    liar_site: int = -1


@dataclass(frozen=True)
class RunConfig:
    """What is compared.

    Attributes:
        strategies: names from `perimeter-simulate strategies`.
        seeds: runs per strategy; a seed fixes partition, start labels and initial model.
        first_seed: the first of them.
        trainer: `fast` (in process) or `flower` (Flower's simulation engine on Ray).
        processes: worker processes, 0 for one per core.
    """

    strategies: tuple[str, ...] = ("random", "margin-global", "perimeter")
    seeds: int = 3
    first_seed: int = 0
    trainer: str = "fast"
    processes: int = 0


@dataclass(frozen=True)
class SimulationConfig:
    """All sections of a configuration."""

    data: DataConfig
    federation: FederationConfig = field(default_factory=FederationConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    scenario: ScenarioConfig = field(default_factory=ScenarioConfig)
    simulation: RunConfig = field(default_factory=RunConfig)


def read_config(path: Path) -> SimulationConfig:
    """Reads a configuration file.

    Raises:
        ConfigInvalid: the file is missing, is not TOML, or a key is unknown, missing or wrong.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path} is not TOML: {error}") from None
    config = config_of(values)
    source = config.data.path
    if not source.startswith("builtin:") and not Path(source).is_absolute():
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, path=str(path.parent / source))
        )
    return config


def config_of(values: Mapping[str, Any]) -> SimulationConfig:
    """Builds a configuration from the tables of a TOML file.

    Raises:
        ConfigInvalid: names the section and key.

    >>> config_of({"data": {"path": "x.npz", "kind": "image"}}).budget.cycles
    8
    """
    hints = get_type_hints(SimulationConfig)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigInvalid(f"unknown section [{unknown[0]}]; known: {', '.join(hints)}")
    if "data" not in values:
        raise ConfigInvalid("section [data] is missing; it needs path and kind")
    values = _with_layer_defaults(values)
    sections = {name: _section(hints[name], values.get(name, {}), name) for name in hints}
    config = SimulationConfig(**sections)
    check(config)
    return config


def layer_training(kind: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """`[training]` as a campaign of this kind has it on a layer that sites learn without labels.

    Args:
        kind: text, image or series.
        named: what the configuration says itself; it stays.

    >>> layer_training("series", {"rounds": 9})["rounds"]
    9
    """
    _, head, suited = completed(kind, {}, {"unsupervised_width": LAYER_WIDTH[kind]}, named)
    known = {item.name for item in dataclasses.fields(TrainingConfig)}
    return {**{k: v for k, v in {**head, **suited}.items() if k in known}, **named}


def _with_layer_defaults(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a campaign gets with a layer that sites learn without labels, where nothing is named."""
    data, training = values["data"], values.get("training", {})
    if not isinstance(data, Mapping) or not isinstance(training, Mapping):
        return values
    kind = data.get("kind")
    if data.get("features") != "learned" or not isinstance(kind, str) or kind not in LAYER_WIDTH:
        return values
    full = {"width": LAYER_WIDTH[kind], **data}
    return {**values, "data": full, "training": layer_training(kind, training)}


S = TypeVar("S")


def _section(kind: type[S], values: Mapping[str, Any], name: str) -> S:
    if not isinstance(values, Mapping):
        raise ConfigInvalid(f"[{name}] must be a table")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigInvalid(
            f"[{name}] has an unknown key {unknown[0]!r}; known: {', '.join(hints)}"
        )
    made = {key: _typed(hints[key], value, f"[{name}] {key}") for key, value in values.items()}
    try:
        return kind(**made)
    except TypeError as error:
        raise ConfigInvalid(f"[{name}]: {error}") from None


def _typed(wanted: Any, value: Any, what: str) -> Any:
    if get_origin(wanted) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_typed(get_args(wanted)[0], item, what) for item in items)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigInvalid(f"{what} must be of type {wanted.__name__}, not {value!r}")
    return value
