"""What histogram mode costs in allocation: `python -m benchmarks.masking.histograms`.

A model trained on a few labels scores the rest of banking77 at twenty sites. Row mode sends these
scores; histogram mode sends what the device's own release path makes of them, and the coordinator's
own stand-ins take their place. Both go through the production `allocate`; in histogram mode each
device then fills its quota with its own best samples. Compared is what was bought: the sum of the
real margin scores, and the value of the allocator's objective on the real samples.
"""

from __future__ import annotations

import argparse
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.masking.folder import data_folder
from coordinator.core.allocation.policy import Budget, Policy, Reason, Switches
from coordinator.core.allocation.pool import Pool, Progress
from coordinator.core.allocation.result import Allocation
from coordinator.core.allocation.seam import allocate, certify
from coordinator.stand_ins import stand_in_columns
from edge_agent.histograms import count_samples, with_noise

SITES, SAMPLES, BUDGET = 20, 450, 200
START_LABELS = 1_000
RELEASES = 6
POLICY = Policy(explore_ratio=0.0, switches=Switches(chance=False, explore=False, overlap=False))
Columns = dict[str, NDArray[Any]]


def scored(folder: Path, seed: int, cells: int) -> Columns:
    """Margins, cells, prototypes and classes of unlabelled samples, as devices score them."""
    from edge_agent.scoring import margin, quantise, softmax
    from federation.statistics import nearest_cells
    from simulations.config import DataConfig, TrainingConfig
    from simulations.datasets import load_dataset
    from simulations.learner import make_learner

    data = DataConfig(path=str(folder / "banking77.parquet"), kind="text", features="frozen")
    dataset = load_dataset(data)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset.train))
    start, rest = order[:START_LABELS], order[START_LABELS:]
    learner = make_learner(dataset, TrainingConfig(rounds=15, cell_count=cells), seed)
    examples = {
        f"site-{site}": learner.examples(
            dataset.train[start[site::5]], dataset.train_classes[start[site::5]]
        )
        for site in range(5)
    }
    model = learner.train(learner.initial(), examples)
    logits, embedding = learner.predict(model.arrays, dataset.train[rest])
    probabilities = softmax(logits)
    second, first = np.argsort(probabilities, axis=1)[:, -2:].T
    return {
        "margins": quantise(margin(probabilities)),
        "cells": nearest_cells(embedding, model.code_book).astype(np.uint16),
        "predicted": first.astype(np.uint16),
        "runner_up": second.astype(np.uint16),
        "prototypes": np.argmax(embedding @ model.prototypes.T, axis=1).astype(np.uint16),
        "labelled": np.bincount(dataset.train_classes[start], minlength=77),
    }


@dataclass(frozen=True)
class Partition:
    """How samples lie at the sites.

    Attributes:
        title: for the table.
        concentration: of classes at sites; small gives each site few classes.
        rich_sites: so many sites hold most of the samples that the model is unsure of.
    """

    title: str
    concentration: float
    rich_sites: int = 0


PARTITIONS = (
    Partition("alike", 100.0),
    Partition("few classes each", 0.1),
    Partition("five hold most of what is useful", 100.0, rich_sites=5),
)


def split(columns: Columns, seed: int, how: Partition) -> NDArray[np.int64]:
    """int64[sites, samples]: rows of each site."""
    rng = np.random.default_rng([seed, 1])
    free = rng.permutation(len(columns["margins"]))
    taken = []
    for site in range(SITES):
        classes = rng.dirichlet(np.full(77, how.concentration))[columns["predicted"][free]]
        pull = 20.0 * columns["margins"][free] / 63 if site < how.rich_sites else 0.0
        wish = classes * rng.random(len(free)) * (1 + pull)
        places = np.argsort(-wish)[:SAMPLES]
        taken.append(free[places])
        free = np.delete(free, places)
    return np.array(taken)


def pool_of(columns: Columns, rows: NDArray[np.int64], site: NDArray[np.int32]) -> Pool:
    """The pool that row mode would send."""
    none = np.zeros(len(rows), np.uint8)
    ids = np.zeros((len(rows), 2), "<u8")
    ids[:, 0] = np.arange(len(rows))
    return Pool(
        candidate_ids=np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 16),
        site_index=site,
        agent_index=site,
        margins=columns["margins"][rows],
        entropies=columns["margins"][rows],
        top_probabilities=none,
        divergences=none,
        predicted_classes=columns["predicted"][rows],
        runner_up_classes=columns["runner_up"][rows],
        prototype_classes=columns["prototypes"][rows],
        cell_ids=columns["cells"][rows],
        density_bands=none,
        cost_bands=none,
        site_ids=tuple(f"site-{i}" for i in range(int(site.max()) + 1)),
        class_count=77,
        progress=Progress(columns["labelled"], np.full(int(site.max()) + 1, START_LABELS // SITES)),
    )


def stand_ins_of(pool: Pool, cells: int, epsilon: float, chance: Random) -> Pool:
    """The pool that the coordinator builds from noised histograms."""
    parts, sites = [], []
    for site in range(pool.site_count):
        mine = pool.site_index == site
        counts = count_samples(pool.cell_ids[mine], pool.margins[mine], cells)
        noised = with_noise(counts, round(epsilon * 1000), chance.randrange)
        parts.append(stand_in_columns(noised, epsilon, secrets.token_bytes(32)))
        sites.append(np.full(len(parts[-1]["margins"]), site, np.int32))
    raw = {name: b"".join(part[name] for part in parts) for name in parts[0]}
    site_index = np.concatenate(sites)
    small, wide = np.uint8, "<u2"
    none = np.zeros(len(site_index), small)
    return replace(
        pool,
        candidate_ids=np.frombuffer(raw["candidate_ids"], small).reshape(-1, 16),
        site_index=site_index,
        agent_index=site_index,
        margins=np.frombuffer(raw["margins"], small),
        entropies=np.frombuffer(raw["entropies"], small),
        top_probabilities=np.frombuffer(raw["top_probabilities"], small),
        divergences=none,
        predicted_classes=np.frombuffer(raw["predicted_classes"], wide),
        runner_up_classes=np.frombuffer(raw["runner_up_classes"], wide),
        prototype_classes=np.frombuffer(raw["prototype_classes"], wide),
        cell_ids=np.frombuffer(raw["cell_ids"], wide),
        density_bands=none,
        cost_bands=none,
    )


def filled(pool: Pool, quotas: NDArray[np.int64], open_rows: NDArray[np.bool_]) -> NDArray[Any]:
    """Each device fills its quota with its own best open samples."""
    order = np.argsort(-pool.margins.astype(np.int64), kind="stable")
    chosen = [
        order[(pool.site_index[order] == site) & open_rows[order]][:quota]
        for site, quota in enumerate(quotas.tolist())
    ]
    return np.concatenate(chosen)


def worth(pool: Pool, budget: Budget, found: Allocation, rows: NDArray[Any]) -> NDArray[np.float64]:
    """float64[2]: sum of margin scores in [0, 1], value of the objective; of the real rows."""
    useful = np.full(len(rows), int(Reason.USEFUL), np.uint8)
    bought = replace(
        found, rows=rows, reasons=useful, candidate_ids=pool.candidate_ids[rows], engine="lazy"
    )
    value = certify(pool, budget, POLICY, bought).value
    return np.array([pool.margins[rows].sum() / 63.0, value])


def one_round(pool: Pool, cells: int, epsilon: float, seed: int) -> dict[str, NDArray[np.float64]]:
    """What each mode buys with one budget, on the same real samples."""
    budget = Budget(BUDGET, np.full(pool.site_count, BUDGET), np.zeros(77, np.int64))
    every = np.ones(len(pool), np.bool_)
    by_row = allocate(pool, budget, POLICY, np.random.default_rng(seed))
    noised = stand_ins_of(pool, cells, epsilon, Random(seed))
    by_count = allocate(noised, budget, POLICY, np.random.default_rng(seed))
    quotas = np.bincount(noised.site_index[by_count.rows], minlength=pool.site_count)
    even = np.full(pool.site_count, BUDGET // pool.site_count)
    chance = np.random.default_rng(seed).choice(len(pool), BUDGET, replace=False)
    bought = {
        "rows": by_row.rows,
        "histograms": filled(pool, quotas, every),
        "an equal quota for each site": filled(pool, even, every),
        "drawn by chance": chance,
    }
    return {name: worth(pool, budget, by_row, rows) for name, rows in bought.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    args = parser.parse_args()
    folder = data_folder()
    print(f"banking77, {SITES} sites of {SAMPLES} samples, {BUDGET} labels, {args.cells} cells;")
    print(
        f"means of seeds {args.seeds}; {RELEASES} releases, a campaign, cost {RELEASES} epsilons\n"
    )
    print("| sites | epsilon | quota from | scores | objective | of row mode | of row mode |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    scores = {seed: scored(folder, seed, args.cells) for seed in args.seeds}
    for how in PARTITIONS:
        for epsilon in args.epsilons:
            rounds = []
            for seed, columns in scores.items():
                places = split(columns, seed, how)
                site = np.repeat(np.arange(len(places), dtype=np.int32), places.shape[1])
                rounds.append(
                    one_round(pool_of(columns, places.ravel(), site), args.cells, epsilon, seed)
                )
            for name in rounds[0]:
                mean = np.mean([found[name] for found in rounds], axis=0)
                share = mean / np.mean([found["rows"] for found in rounds], axis=0)
                bought = f"{mean[0]:.1f} | {mean[1]:.1f} | {share[0]:.3f} | {share[1]:.3f}"
                print(f"| {how.title} | {epsilon} | {name} | {bought} |", flush=True)


if __name__ == "__main__":
    main()
