"""How a site trains and what it may report: the settings that travel with each round's message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from federation.errors import RequestInvalid

OPTIMIZERS = ("sgd", "adam")


@dataclass(frozen=True)
class LocalSettings:
    """Local training of one round.

    Attributes:
        local_epochs: Passes over the site's examples, 1 to 1000.
        batch_size: Examples per step, 1 to 65536.
        learning_rate: Step size, above 0 to 10.
        optimizer: sgd (with momentum 0.9 inside a round) or adam.
        weight_decay: Decoupled shrinkage per step times the step size, 0 to 1.
        gradient_norm: Gradients are scaled down to this L2 norm; above 0.
        proximal_mu: FedProx pull to the round's start (Li et al., 2020); 0 for none.
        balance: Exponent in [0, 1] that weights a class by its rarity at the site; 0 for none.
        group_count_min: Sums over fewer examples than this are not reported, 1 to 1000.
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

    def __post_init__(self) -> None:
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
        }
        for name, holds in rules.items():
            if not holds:
                raise RequestInvalid(f"setting {name} is out of range: {getattr(self, name)!r}")

    def to_mapping(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return dict(vars(self))

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
