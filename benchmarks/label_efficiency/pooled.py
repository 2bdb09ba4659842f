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
from numpy.typing import NDArray

from benchmarks.label_efficiency import protocol
from benchmarks.label_efficiency.__main__ import BESIDE
from benchmarks.label_efficiency.prepared import learned, load, prepare
from simulations.engine import Run
from simulations.learner import Learner, Model, make_learner
from simulations.world import World, make_world

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
    config = replace(config, budget=replace(config.budget, initial=total, start="random"))
    dataset = load(prepare(cell, entrant, data, features))
    world = make_world(config, dataset, seed)
    dataset = learned(config, dataset, world, features / f"{cell.name}.{seed}")
    learner = make_learner(dataset, config.training, seed)
    run = Run(config, dataset, world, learner)
    model = run.start_model()
    assert model is not None
    return accuracy(learner, model), pooled_accuracy(learner, world, run.start_labels())


def pooled_accuracy(learner: Learner, world: World, labels: NDArray[np.int64]) -> float:
    """Test accuracy of training on a world's labels in one place, the better of two momenta.

    Args:
        learner: its settings, with its server momentum and with none.
        world: who holds which.
        labels: int64[n], -1 for none.
    """
    dataset, known = learner.dataset, labels >= 0
    rows = world.rows[known]
    views = None if dataset.views is None else dataset.views[rows]
    together = {"everything": learner.examples(dataset.train[rows], labels[known], views)}
    found = []
    for momentum in (0.0, learner.config.server_momentum):
        one = replace(learner, config=replace(learner.config, server_momentum=momentum))
        found.append(accuracy(one, one.train(one.initial(), together)))
    return max(found)


def accuracy(learner: Learner, model: Model) -> float:
    """Share of the test part that a model gets right."""
    logits, _ = learner.predict(model.arrays, learner.dataset.test)
    return float((logits.argmax(axis=1) == learner.dataset.test_classes).mean())


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
