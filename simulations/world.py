"""One seed's world: which sample lies at which site, what it costs, what experts would say."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.config import SimulationConfig
from simulations.datasets import Dataset
from simulations.errors import ConfigInvalid
from simulations.partition import make_partition

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class World:
    """Everything that is the same for all strategies of one seed.

    Attributes:
        seed: names the world.
        rows: rows of the data set in the pool, int64[n].
        sites: int64[n].
        site_ids: names of the sites.
        answers: int64[n], what the expert says, -1 for "can't tell".
        truth: int64[n], the right class.
        cost_bands: uint8[n], 0 to 7.
        capacity: int64[sites], most labels per cycle.
        start: int64[m], places in the pool that are labelled before the first cycle.
        candidate_ids: uint8[n, 16].
    """

    seed: int
    rows: Integers
    sites: Integers
    site_ids: tuple[str, ...]
    answers: Integers
    truth: Integers
    cost_bands: NDArray[np.uint8]
    capacity: Integers
    start: Integers
    candidate_ids: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def site_count(self) -> int:
        """How many sites there are."""
        return len(self.site_ids)


def make_world(config: SimulationConfig, dataset: Dataset, seed: int) -> World:
    """Deals the pool out and draws costs, experts' answers and start labels; chance by seed."""
    rng = np.random.default_rng([seed, 1])
    rows, sites = make_partition(
        dataset.train_classes, dataset.train_groups, config.federation, rng
    )
    count = int(sites.max()) + 1
    for key in ("drop_out_site", "liar_site"):
        if getattr(config.scenario, key) >= count:
            raise ConfigInvalid(f"[scenario] {key} must be below {count}, the number of sites")
    truth = dataset.train_classes[rows]
    start = np.sort(rng.choice(len(rows), min(config.budget.initial, len(rows)), replace=False))
    return World(
        seed=seed,
        rows=rows,
        sites=sites,
        site_ids=tuple(f"site-{s:03d}" for s in range(count)),
        answers=_disputed(
            _answers(truth, len(dataset.class_names), config, rng), rows, dataset, config, seed
        ),
        truth=truth,
        cost_bands=_cost_bands(sites, config.budget.site_cost_bands),
        capacity=_capacity(count, config.budget.capacity),
        start=start,
        candidate_ids=_ids(seed, len(rows)),
    )


def _answers(
    truth: Integers, classes: int, config: SimulationConfig, rng: np.random.Generator
) -> Integers:
    """One fixed answer per sample, so that all strategies meet the same experts."""
    expert = config.expert
    wrong = (truth + rng.integers(1, max(2, classes), len(truth))) % classes
    said = np.where(rng.random(len(truth)) < expert.accuracy, truth, wrong)
    unsure = rng.random(len(truth)) < expert.abstain_ratio
    return np.asarray(np.where(unsure, -1, said), dtype=np.int64)


def _disputed(
    answers: Integers, rows: Integers, dataset: Dataset, config: SimulationConfig, seed: int
) -> Integers:
    """On the samples that experts are split over, one answer in two is the other class."""
    share = config.expert.disagreement
    if not share:
        return answers
    gaps, other = _nearest_other_class(dataset, rows)
    split = np.argsort(gaps, kind="stable")[: round(share * len(rows))]
    coin = np.random.default_rng([seed, 4]).random(len(split)) < 0.5
    swapped = split[coin & (answers[split] >= 0)]
    result = answers.copy()
    result[swapped] = other[swapped]
    return result


def _nearest_other_class(dataset: Dataset, rows: Integers) -> tuple[NDArray[np.float64], Integers]:
    """How much farther the nearest other class's mean is than the own one's, and that class."""
    flat = dataset.train.reshape(len(dataset.train), -1)[rows].astype(np.float64)
    truth = dataset.train_classes[rows]
    count = len(dataset.class_names)
    gaps = np.full((len(rows), count), np.inf)
    for group in np.unique(truth).tolist():
        gaps[:, group] = np.linalg.norm(flat - flat[truth == group].mean(axis=0), axis=1)
    here = np.arange(len(rows))
    own = gaps[here, truth].copy()
    gaps[here, truth] = np.inf
    other = gaps.argmin(axis=1)
    return gaps[here, other] - own, other.astype(np.int64)


def _cost_bands(sites: Integers, bands: tuple[int, ...]) -> NDArray[np.uint8]:
    if not bands:
        return np.zeros(len(sites), dtype=np.uint8)
    return np.asarray(np.asarray(bands, dtype=np.uint8)[sites % len(bands)])


def _capacity(sites: int, capacity: tuple[int, ...]) -> Integers:
    if not capacity:
        return np.full(sites, 2**31, dtype=np.int64)
    counts = np.asarray(capacity, dtype=np.int64)
    return np.asarray(counts[np.arange(sites) % len(capacity)])


def _ids(seed: int, rows: int) -> NDArray[np.uint8]:
    key = hashlib.sha256(f"candidates/{seed}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
    return rng.integers(0, 256, (rows, 16)).astype(np.uint8)
