"""Federated training beside training in one place, on the same random labels.

    python -m benchmarks.label_efficiency.pooled --features DIR [--data DIR --sets … --seeds N]

For each cell and seed as many labels are drawn at random as a whole run of the protocol buys; the
whole system's features and training learn from them at their sites, and with all of them in one
place, there with the system's server momentum and with none: the better one counts. DIR keeps
prepared features, the protocol's own as well.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.label_efficiency import protocol
from benchmarks.label_efficiency.__main__ import BESIDE
from benchmarks.label_efficiency.prepared import learned, load, prepare
from federation.dataset import Examples
from simulations.learner import Learner, make_learner
from simulations.world import make_world

ALPHA = 0.1


def cells(sets: tuple[str, ...]) -> Iterator[protocol.Cell]:
    """Yields every set at alpha 0.1, dealt out even where it has sites, and its own sites."""
    for subject in protocol.SUBJECTS:
        if sets and subject.name not in sets:
            continue
        dealt = replace(subject, natural=False)
        yield from (protocol.Cell(dealt, ALPHA, rho) for rho in subject.rhos)
        if subject.natural:
            yield from (protocol.Cell(subject, 0.0, rho) for rho in subject.rhos)


def measure(cell: protocol.Cell, seed: int, data: Path, features: Path) -> tuple[float, float]:
    """Returns test accuracy of federated and of pooled training."""
    entrant = next(e for e in protocol.entrants() if e.name == protocol.WHOLE_SYSTEM)
    config = protocol.configuration(cell, data, entrant)
    total = cell.subject.labels * (1 + protocol.CYCLES)
    config = replace(config, budget=replace(config.budget, initial=total))
    dataset = load(prepare(cell, entrant, data, features))
    world = make_world(config, dataset, seed)
    dataset = learned(config, dataset, world, features / f"{cell.name}.{seed}")
    learner = make_learner(dataset, config.training, seed)
    rows, sites = world.rows[world.start], world.sites[world.start]

    def examples(of: Learner, here: np.ndarray) -> Examples:  # type: ignore[type-arg]
        chosen = rows[here]
        views = None if dataset.views is None else dataset.views[chosen]
        return of.examples(dataset.train[chosen], dataset.train_classes[chosen], views)

    def accuracy(of: Learner, parts: dict[str, Examples]) -> float:
        logits, _ = of.predict(of.train(of.initial(), parts).arrays, dataset.test)
        return float((logits.argmax(axis=1) == dataset.test_classes).mean())

    apart = {f"{site}": examples(learner, sites == site) for site in np.unique(sites).tolist()}
    together = []
    for momentum in (0.0, config.training.server_momentum):
        one = make_learner(dataset, replace(config.training, server_momentum=momentum), seed)
        together.append(accuracy(one, {"all": examples(one, sites >= 0)}))
    return accuracy(learner, apart), max(together)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.label_efficiency.pooled", description=__doc__)
    parser.add_argument("--features", type=Path, required=True, help="folder of prepared features")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--sets", nargs="*", default=[], help="data sets; all without")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    data = options.data or Path(os.environ.get("PERIMETER_DATA", BESIDE))
    print("| cell | seed | federated | pooled | ratio |\n| --- | --: | --: | --: | --: |")
    for cell in cells(tuple(options.sets)):
        for seed in range(options.seeds):
            apart, together = measure(cell, seed, data, options.features)
            print(
                f"| {cell.name} | {seed} | {100 * apart:.1f} | {100 * together:.1f} | "
                f"{100 * apart / together:.1f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
