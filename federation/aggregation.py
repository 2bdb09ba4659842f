"""How the centre turns the updates of a round into the next model. Pure numpy.

    rule = AggregationSettings(rule="fedavgm")
    state = ServerState()
    arrays, state = aggregate(arrays, updates, state, rule)     # updates: list of Update

Rules: fedavg (McMahan et al., 2017); fedavgm, server momentum (Hsu et al., 2019); fedadam (Reddi
et al., 2021); trimmed_mean and median by coordinate (Yin et al., 2018); krum and multi_krum
(Blanchard et al., 2017). Robust rules give every site the same weight, since a lying site also
lies about its example count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import RequestInvalid
from federation.networks import Arrays

RULES = ("fedavg", "fedavgm", "fedadam", "trimmed_mean", "median", "krum", "multi_krum")
_ADAM_TAU = 1e-3


@dataclass(frozen=True)
class AggregationSettings:
    """The rule and its constants.

    Attributes:
        rule: One of `RULES`.
        server_momentum: Momentum of fedavgm and first moment of fedadam, 0 to below 1.
        server_second_moment: Second moment of fedadam, 0 to below 1.
        server_learning_rate: Step along the aggregated update, above 0 to 10.
        trimmed_ratio: trimmed_mean: share cut at each end, 0 to below 0.5.
        byzantine_count: krum, multi_krum: sites that may lie, from 0.
    """

    rule: str = "fedavgm"
    server_momentum: float = 0.5
    server_second_moment: float = 0.99
    server_learning_rate: float = 1.0
    trimmed_ratio: float = 0.2
    byzantine_count: int = 1

    def __post_init__(self) -> None:
        rules = {
            "rule": self.rule in RULES,
            "server_momentum": 0 <= self.server_momentum < 1,
            "server_second_moment": 0 <= self.server_second_moment < 1,
            "server_learning_rate": 0 < self.server_learning_rate <= 10,
            "trimmed_ratio": 0 <= self.trimmed_ratio < 0.5,
            "byzantine_count": self.byzantine_count >= 0,
        }
        for name, holds in rules.items():
            if not holds:
                raise RequestInvalid(f"setting {name} is out of range: {getattr(self, name)!r}")


@dataclass(frozen=True, eq=False)
class Update:
    """One site's parameters after local training, and its weight (examples, capped)."""

    site: str
    arrays: Mapping[str, NDArray[np.float32]]
    weight: float


@dataclass(frozen=True, eq=False)
class ServerState:
    """What the centre carries from round to round: momenta by parameter name, and the step count.

    `average` is the running mean of the rounds' models, empty where none is kept.
    """

    momentum: Arrays = field(default_factory=dict)
    second_moment: Arrays = field(default_factory=dict)
    step: int = 0
    average: Arrays = field(default_factory=dict)


def aggregate(
    arrays: Arrays, updates: Sequence[Update], state: ServerState, settings: AggregationSettings
) -> tuple[Arrays, ServerState]:
    """Returns the next parameters and the next server state.

    Updates are taken in the order of their site's name, so the result does not depend on who
    answered first. Without updates nothing changes.

    >>> start = {"w": np.float32([0.0])}
    >>> sites = [Update("a", {"w": np.float32([1.0])}, 3), Update("b", {"w": np.float32([5.0])}, 1)]
    >>> aggregate(start, sites, ServerState(), AggregationSettings("fedavg"))[0]["w"].tolist()
    [2.0]
    """
    ordered = sorted((u for u in updates if u.weight > 0), key=lambda update: update.site)
    if not ordered:
        return arrays, state
    chosen = _chosen(arrays, ordered, settings)
    combine = _BY_COORDINATE.get(settings.rule)
    deltas: Arrays = {}
    for name, start in arrays.items():
        stack = np.stack([update.arrays[name].astype(np.float64) - start for update in chosen])
        mean = combine(stack, settings) if combine else _weighted_mean(stack, chosen, settings)
        deltas[name] = mean.astype(np.float32)
    return _step(arrays, deltas, state, settings)


def _weighted_mean(
    stack: NDArray[np.float64], chosen: Sequence[Update], settings: AggregationSettings
) -> NDArray[np.float64]:
    equal = settings.rule in ("krum", "multi_krum")
    weights = np.array([1.0 if equal else update.weight for update in chosen])
    return np.asarray(np.tensordot(weights / weights.sum(), stack, axes=1))


def _trimmed_mean(stack: NDArray[np.float64], settings: AggregationSettings) -> NDArray[np.float64]:
    cut = min(int(np.ceil(settings.trimmed_ratio * len(stack))), (len(stack) - 1) // 2)
    return np.asarray(np.sort(stack, axis=0)[cut : len(stack) - cut].mean(axis=0))


def _median(stack: NDArray[np.float64], settings: AggregationSettings) -> NDArray[np.float64]:
    del settings
    return np.asarray(np.median(stack, axis=0))


_BY_COORDINATE: dict[str, Callable[[Any, AggregationSettings], NDArray[np.float64]]] = {
    "trimmed_mean": _trimmed_mean,
    "median": _median,
}


def _chosen(
    arrays: Arrays, updates: Sequence[Update], settings: AggregationSettings
) -> Sequence[Update]:
    if settings.rule not in ("krum", "multi_krum"):
        return updates
    flat = np.stack(
        [np.concatenate([(u.arrays[n] - arrays[n]).ravel() for n in arrays]) for u in updates]
    )
    order = np.argsort(krum_scores(flat, byzantine_count=settings.byzantine_count), kind="stable")
    keep = 1 if settings.rule == "krum" else max(1, len(updates) - settings.byzantine_count)
    return [updates[i] for i in sorted(order[:keep])]


def krum_scores(flat: NDArray[np.floating[Any]], *, byzantine_count: int) -> NDArray[np.float64]:
    """Sum of squared distances of each update to its nearest peers; lower is more central.

    Args:
        flat: float[sites, parameters].
        byzantine_count: f; the n - f - 2 nearest peers count, at least 1.

    >>> krum_scores(np.array([[0.0], [1.0], [9.0]]), byzantine_count=0).tolist()
    [1.0, 1.0, 64.0]
    """
    squares = (flat.astype(np.float64)[:, None, :] - flat[None, :, :]) ** 2
    distances = squares.sum(axis=2)
    peers = max(1, len(flat) - byzantine_count - 2)
    nearest = np.sort(distances, axis=1)[:, 1 : 1 + peers]
    return np.asarray(nearest.sum(axis=1))


def _step(
    arrays: Arrays, deltas: Arrays, state: ServerState, settings: AggregationSettings
) -> tuple[Arrays, ServerState]:
    rate = np.float32(settings.server_learning_rate)
    if settings.rule == "fedavgm":
        beta = np.float32(settings.server_momentum)
        momentum = {n: beta * state.momentum.get(n, 0 * d) + d for n, d in deltas.items()}
        moved = {n: arrays[n] + rate * momentum[n] for n in arrays}
        return moved, dataclasses.replace(state, momentum=momentum, step=state.step + 1)
    if settings.rule == "fedadam":
        return _adam_step(arrays, deltas, state, settings)
    moved = {n: arrays[n] + rate * deltas[n] for n in arrays}
    return moved, dataclasses.replace(state, step=state.step + 1)


def _adam_step(
    arrays: Arrays, deltas: Arrays, state: ServerState, settings: AggregationSettings
) -> tuple[Arrays, ServerState]:
    b1, b2 = np.float32(settings.server_momentum), np.float32(settings.server_second_moment)
    first = {n: b1 * state.momentum.get(n, 0 * d) + (1 - b1) * d for n, d in deltas.items()}
    second = {
        n: b2 * state.second_moment.get(n, 0 * d + np.float32(_ADAM_TAU**2)) + (1 - b2) * d * d
        for n, d in deltas.items()
    }
    rate, tau = np.float32(settings.server_learning_rate), np.float32(_ADAM_TAU)
    moved = {n: arrays[n] + rate * first[n] / (np.sqrt(second[n]) + tau) for n in arrays}
    after = dataclasses.replace(state, momentum=first, second_moment=second, step=state.step + 1)
    return moved, after
