"""How a site trains and what it may report: the settings that travel with each round's message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import RequestInvalid

OPTIMIZERS = ("sgd", "adam")
OBJECTIVES = ("labels", "views")
PSEUDO_LABELS = ("soft", "threshold")
SPREADS = ("none", "cells", "graph")
CLASS_TEXT_MAX = 600
"""Characters of a class's text."""
YOUNGER = ("input_views", "local_steps_max", "class_texts")
"""Unknown to trainers of earlier versions, which refuse what they do not know."""


@dataclass(frozen=True)
class LocalSettings:
    """Local training of one round.

    Attributes:
        local_epochs: Passes over the site's examples, 1 to 1000.
        batch_size: Examples per step, 1 to 65536.
        local_steps_max: Most steps of a site in a round, 0 to 100000; one with more examples takes
            larger batches instead, and at least one step an epoch. 0 for no bound. Many steps carry
            a site far, and the server's momentum carries the mean on from there, round by round.
        learning_rate: Step size, above 0 to 10.
        optimizer: sgd (with momentum 0.9 inside a round) or adam.
        weight_decay: Decoupled shrinkage per step times the step size, 0 to 1.
        gradient_norm: Gradients are scaled down to this L2 norm; above 0.
        proximal_mu: FedProx pull to the round's start (Li et al., 2020); 0 for none.
        balance: Exponent in [0, 1] that weights a class by its rarity at the site; 0 for none.
        group_count_min: Sums over fewer examples than this are not reported, 1 to 1000.
        objective: labels, or views: the round learns from unlabelled samples only, that changed
            views of a sample belong together.
        unlabelled_weight: Weight of guessed classes of unlabelled samples beside the labels, 0 to
            10; 0 for none. Rounds ramp it up.
        unlabelled_batch: Unlabelled samples per step, 1 to 65536.
        unlabelled_max: Most unlabelled samples that a site uses in a round, 1 to 20000.
        pseudo_labels: soft teaches every guess by its certainty, threshold the likeliest class
            where it passes a bar that adapts by class.
        pseudo_precision: threshold: share of right guesses asked for among calibration examples,
            above 0 to 1.
        pool_prior: How far guesses bend to the site's own share of classes, 0 to 1. It helps where
            sites hold few classes each, and misleads where the first model is poor.
        trust_power: Guesses count by the share of labelled examples whose neighbours are guessed
            right, to this power, 0 to 10; 0 trusts them without proof.
        agreement_power: A guess counts by the share of its nearest neighbours, labelled or guessed,
            that say the same, to this power, 0 to 10; 0 asks no neighbour.
        cohesion_floor: Where near neighbours agree beyond chance by no more than this share of what
            is possible, guesses count for nothing; from 0.2 above it in full. -1 to 0.8; at -1
            they always count in full.
        spread: Guesses take turns with their neighbours' (graph) or with the labels in their cell
            of the code book (cells); none for neither.
        input_noise: Strength of the changes to inputs while training, 0 to 10 in units of their
            spread (text: share of n-grams lost); 0 for none. Beside guesses it counts as they do.
        input_views: Images on a layer that learns without labels: so many moved copies of each
            training example are taken through the layer, and each round takes one of them or the
            example itself by chance, 0 to 64.
        class_texts: Texts on such a layer: what the campaign calls each class, a training example
            of it ("" for none); at most 600 characters each. Empty for no such examples.
    """

    local_epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 0.05
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    gradient_norm: float = 5.0
    proximal_mu: float = 0.0
    balance: float = 0.0
    group_count_min: int = 3
    objective: str = "labels"
    unlabelled_weight: float = 0.0
    unlabelled_batch: int = 48
    unlabelled_max: int = 800
    pseudo_labels: str = "soft"
    pseudo_precision: float = 0.95
    pool_prior: float = 0.0
    trust_power: float = 1.0
    agreement_power: float = 0.0
    cohesion_floor: float = 0.4
    spread: str = "graph"
    input_noise: float = 0.0
    input_views: int = 0
    local_steps_max: int = 0
    class_texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        texts = self.class_texts
        are_texts = isinstance(texts, tuple | list) and all(
            isinstance(text, str) and len(text) <= CLASS_TEXT_MAX for text in texts
        )
        if are_texts:
            object.__setattr__(self, "class_texts", tuple(texts))
        rules = {
            "local_epochs": 1 <= self.local_epochs <= 1000,
            "batch_size": 1 <= self.batch_size <= 65536,
            "learning_rate": 0 < self.learning_rate <= 10,
            "optimizer": self.optimizer in OPTIMIZERS,
            "weight_decay": 0 <= self.weight_decay <= 1,
            "gradient_norm": self.gradient_norm > 0,
            "proximal_mu": 0 <= self.proximal_mu <= 1000,
            "balance": 0 <= self.balance <= 1,
            "group_count_min": 1 <= self.group_count_min <= 1000,
            "objective": self.objective in OBJECTIVES,
            "unlabelled_weight": 0 <= self.unlabelled_weight <= 10,
            "unlabelled_batch": 1 <= self.unlabelled_batch <= 65536,
            "unlabelled_max": 1 <= self.unlabelled_max <= 20_000,
            "pseudo_labels": self.pseudo_labels in PSEUDO_LABELS,
            "pseudo_precision": 0 < self.pseudo_precision <= 1,
            "pool_prior": 0 <= self.pool_prior <= 1,
            "trust_power": 0 <= self.trust_power <= 10,
            "agreement_power": 0 <= self.agreement_power <= 10,
            "cohesion_floor": -1 <= self.cohesion_floor <= 0.8,
            "spread": self.spread in SPREADS,
            "input_noise": 0 <= self.input_noise <= 10,
            "local_steps_max": type(self.local_steps_max) is int
            and 0 <= self.local_steps_max <= 100_000,
            "input_views": type(self.input_views) is int and 0 <= self.input_views <= 64,
            "class_texts": are_texts,
        }
        for name, holds in rules.items():
            if not holds:
                raise RequestInvalid(f"setting {name} is out of range: {getattr(self, name)!r}")

    def batch_size_of(self, rows: int) -> int:
        """Examples per step of a site that has so many.

        >>> LocalSettings(batch_size=32, local_epochs=2, local_steps_max=6).batch_size_of(300)
        100
        """
        if not self.local_steps_max:
            return self.batch_size
        per_epoch = max(1, self.local_steps_max // self.local_epochs)
        return max(self.batch_size, -(-rows // per_epoch))

    def to_mapping(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values.

        A setting that younger trainers alone know is left out where it changes nothing.
        """
        return {name: value for name, value in vars(self).items() if value or name not in YOUNGER}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LocalSettings:
        """Reads what `to_mapping` wrote.

        Raises:
            RequestInvalid: A key is unknown or a value is out of range.

        >>> LocalSettings.from_mapping({"batch_size": 8}).batch_size
        8
        """
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise RequestInvalid(f"unknown settings: {', '.join(sorted(unknown))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise RequestInvalid(f"settings are wrong: {error}") from None


def check_spread(local: LocalSettings) -> None:
    """Checks the settings of a network with `plain_head`, whose embedding is its plain head's.

    Raises:
        RequestInvalid: Guesses of the served head would follow cells of that embedding.

    >>> check_spread(LocalSettings(unlabelled_weight=1.0))
    """
    if local.unlabelled_weight and local.spread == "cells":
        raise RequestInvalid(
            "with plain_head the cells are of an embedding that guesses cannot follow; "
            "set spread to graph or none, or plain_head to false"
        )


def check_views(count: int, family: str, unsupervised_width: int) -> None:
    """Checks whether a network's inputs can be moved before they are features.

    Args:
        count: `input_views`.
        family: Of the network.
        unsupervised_width: Columns of its layer that learns without labels; 0 for none.

    Raises:
        RequestInvalid: They are no images, or no layer stays as it is.

    >>> check_views(8, "image", 256)
    """
    if not count:
        return
    if family != "image":
        raise RequestInvalid(f"input_views moves images; set it to 0 for the family {family}")
    if not unsupervised_width:
        raise RequestInvalid("input_views needs unsupervised_width; set it, or input_views to 0")
