"""What is measured: data sets, partitions, budgets, and who competes in which league.

The protocol is a scaled-down form of what the literature on federated active learning reports:
frozen features that no label shaped, one hidden layer, federated averaging with server momentum,
a random start that all strategies share, six cycles, and the same partition, start and initial
model for all strategies of a seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coordinator.core.layer_defaults import LAYER_WIDTH
from simulations.config import (
    BudgetConfig,
    DataConfig,
    FederationConfig,
    RunConfig,
    SimulationConfig,
    TrainingConfig,
    layer_training,
)
from simulations.strategies import strategy_names

ALPHAS = (0.1, 0.5, 100.0)
RHOS = (1.0, 20.0)
CYCLES = 6
OURS = "perimeter"
OURS_BY_SITE = "perimeter-site"
"""The default policy inside equal site quotas: only its score and its balance compete."""
WHOLE_SYSTEM = "perimeter-system"
"""The default policy, which chooses the first labels too, with what unlabelled samples teach."""
LONG: Mapping[str, Any] = {"rounds": 80}
"""Plain training with the whole system's number of rounds."""
UNLABELLED: Mapping[str, Any] = {
    **LONG,
    "unlabelled_weight": 3.0,
    "input_noise": 0.3,
    "weight_power": 0.5,
}
"""Trainer settings with guessed classes, apart from the comparison with plain training."""


@dataclass(frozen=True)
class Subject:
    """A data set in the protocol.

    Attributes:
        name: of the set.
        file: in the data folder, or `builtin:…`.
        kind: of its samples.
        width: columns of the frozen features.
        labels: of the start and of each cycle.
        natural: whether its own sites are the partition.
        rhos: long-tail ratios that its class counts allow.
    """

    name: str
    file: str
    kind: str
    width: int
    labels: int
    natural: bool = False
    rhos: tuple[float, ...] = RHOS


SUBJECTS = (
    Subject("banking77", "banking77.parquet", "text", 200, 200),
    Subject("medquad", "medquad_qtype.parquet", "text", 200, 200, natural=True),
    Subject("fashion_mnist", "fashion_mnist.npz", "image", 64, 100),
    Subject("phone_watch_har", "phone_watch_har.npz", "series", 64, 100, natural=True),
    # One spam message in eight: the pool has a tail of its own.
    Subject("sms_spam", "sms_spam.parquet", "text", 200, 50, rhos=(1.0,)),
    Subject("digits", "builtin:digits", "image", 64, 50, rhos=(1.0, 20.0)),
)


@dataclass(frozen=True)
class Cell:
    """One line of the table: a data set and a way of dealing it out.

    Attributes:
        subject: the data set.
        alpha: Dirichlet concentration, 0 for the data's own sites.
        rho: long-tail ratio of the pool.
    """

    subject: Subject
    alpha: float
    rho: float

    @property
    def name(self) -> str:
        """Its name in tables and files.

        >>> Cell(SUBJECTS[2], 0.1, 20.0).name
        'fashion_mnist alpha 0.1 rho 20'
        """
        sites = f"alpha {self.alpha:g}" if self.alpha else "own sites"
        return f"{self.subject.name} {sites} rho {self.rho:g}"


@dataclass(frozen=True)
class Preparation:
    """What a model learns from and how, for samples of one kind.

    Attributes:
        features: `frozen`, the protocol's, `native` or `learned` ones.
        training: settings of the trainer that differ from the protocol's.
        width: columns of the features; 0 for as many as the data set's frozen ones.
    """

    features: str = "frozen"
    training: Mapping[str, Any] = field(default_factory=dict)
    width: int = 0


@dataclass(frozen=True)
class Entrant:
    """A strategy with the features and the training that it comes with.

    Attributes:
        name: in tables.
        strategy: of `perimeter-simulate strategies`, or the default policy by site.
        usual: features and training of all kinds that `by_kind` does not name.
        by_kind: features and training of some kinds of samples.
        start: who chooses the first labels: `random`, the same for all, or `policy`.
    """

    name: str
    strategy: str
    usual: Preparation = Preparation()
    by_kind: Mapping[str, Preparation] = field(default_factory=dict)
    start: str = "random"

    def preparation(self, subject: Subject) -> Preparation:
        """Its features and training on a data set."""
        return self.by_kind.get(subject.kind, self.usual)


def _but_texts(features: str, training: Mapping[str, Any] | None = None) -> dict[str, Preparation]:
    """Features and training of the kinds whose samples are measured."""
    return dict.fromkeys(("image", "series"), Preparation(features, training or {}))


SYSTEM: Mapping[str, Preparation] = {
    kind: Preparation("learned", layer_training(kind, {}), width)
    for kind, width in LAYER_WIDTH.items()
}
"""Features and training of the whole system: what a campaign gets that asks for the layer."""
GUESSES: Mapping[str, Any] = {**UNLABELLED, "compare_plain": True}
BEYOND = (
    Entrant(WHOLE_SYSTEM, OURS, by_kind=SYSTEM, start="policy"),
    *(
        Entrant(f"{name}-steady", name, by_kind=SYSTEM)
        for name in (OURS, "margin-global", "badge-global", "random")
    ),
    Entrant(
        "perimeter-guesses",
        OURS,
        Preparation(training=LONG),
        _but_texts("learned", GUESSES),
        "policy",
    ),
    Entrant("perimeter-learned", OURS, by_kind=_but_texts("learned")),
    Entrant("random-learned", "random", by_kind=_but_texts("learned")),
    Entrant("random-native", "random", by_kind=_but_texts("native")),
    Entrant("perimeter-unchecked", OURS, Preparation(training=UNLABELLED), start="policy"),
    Entrant("perimeter-first", OURS, start="policy"),
    Entrant("perimeter-long", OURS, Preparation(training=LONG)),
    Entrant("random-system", "random", Preparation(training=UNLABELLED)),
    Entrant("random-long", "random", Preparation(training=LONG)),
)
"""The whole system; its features and training for ours, two rivals and random choice, which share
random first labels; guessed classes and the comparison with plain training instead; its parts:
learned features with plain training, for ours and for random choice; random choice with the
family's whole network trained from labels alone; on frozen features guessed classes without the
comparison with plain training, first labels by policy alone, rounds alone."""


def cells(sets: tuple[str, ...] = ()) -> list[Cell]:
    """All cells of the named data sets, of all without a name."""
    return [
        Cell(subject, alpha, rho)
        for subject in SUBJECTS
        if not sets or subject.name in sets
        for alpha in ((0.0,) if subject.natural else ALPHAS)
        for rho in subject.rhos
    ]


def league_a() -> list[str]:
    """Strategies with an equal quota for every site: the score alone competes.

    >>> "margin-site" in league_a(), "margin-global" in league_a()
    (True, False)
    """
    return [OURS_BY_SITE, *(n for n in _rivals() if _is_by_site(n))]


def league_b() -> list[str]:
    """Strategies with one budget for all sites, and those whose own rule is a quota for each.

    >>> "margin-global" in league_b(), "logo" in league_b(), "margin-site" in league_b()
    (True, True, False)
    """
    native = {"logo", "kafal", "ifal", "fairfal", "probcover"}
    return [OURS, *(n for n in _rivals() if not _is_by_site(n) or n in native)]


def ablations() -> list[str]:
    """The default policy with one part switched off or put in its place."""
    return [name for name in strategy_names() if name.startswith(f"{OURS}-")]


def entrants() -> list[Entrant]:
    """Everybody, the most telling first."""
    telling = ["random", OURS, OURS_BY_SITE, "margin-global"]
    names = list(dict.fromkeys([*telling, *league_b(), *league_a(), *ablations()]))
    everybody = [Entrant(name, name) for name in names]
    everybody[2:2] = BEYOND
    return everybody


def configuration(cell: Cell, data: Path, entrant: Entrant | None = None) -> SimulationConfig:
    """The simulator's configuration of a cell, with what an entrant changes of it."""
    subject, entrant = cell.subject, entrant or Entrant("random", "random")
    builtin = subject.file.startswith("builtin:")
    prepared = entrant.preparation(subject)
    return SimulationConfig(
        data=DataConfig(
            path=subject.file if builtin else str(data / subject.file),
            kind=subject.kind,
            features=prepared.features,
            width=prepared.width or subject.width,
        ),
        federation=FederationConfig(
            partition="column" if subject.natural else "dirichlet",
            alpha=cell.alpha or 1.0,
            rho=cell.rho,
        ),
        budget=BudgetConfig(
            initial=subject.labels, start=entrant.start, per_cycle=subject.labels, cycles=CYCLES
        ),
        training=replace(TrainingConfig(), **prepared.training),
        simulation=RunConfig(processes=1),
    )


def _rivals() -> list[str]:
    twin = "margin-equal"  # the same rule as margin-site
    return [n for n in strategy_names() if not n.startswith(OURS) and n != twin]


def _is_by_site(name: str) -> bool:
    if name == "random" or name.endswith("-global"):
        return False
    return not name.startswith("margin-") or name == "margin-site"
