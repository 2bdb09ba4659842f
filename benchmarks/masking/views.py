"""What the masked view costs in accuracy: `python -m benchmarks.masking.views`.

The same federated training on raw texts and on what masking leaves of them, tested on the same
view. Production masking, features, trainer and aggregation; all samples labelled, so that nothing
but the view differs. banking77 lies at ten sites with Dirichlet 0.3, medquad at its publishers.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.masking.folder import data_folder
from edge_agent.masking.pipeline import BuiltinMasker
from edge_agent.masking.policy import MaskingPolicy
from edge_agent.masking.seam import Masked
from federation.networks import INPUT_NAMES
from model_bundle.features import FeatureSpec, extract
from simulations.config import TrainingConfig
from simulations.datasets import Dataset
from simulations.learner import make_learner
from simulations.readers import read_parquet
from simulations.tables import Table

SITES, CONCENTRATION = 10, 0.3
TRAINING = TrainingConfig(rounds=30, local_epochs=1, batch_size=32)


@dataclass(frozen=True)
class Views:
    """One set in both views.

    Attributes:
        raw: as it is.
        masked: the same rows after masking; held ones are empty.
        held_count: texts that masking held.
        touched_ratio: share of texts in which something was masked.
    """

    raw: Table
    masked: Table
    held_count: int
    touched_ratio: float


def thinned(table: Table, rows: int) -> Table:
    """At most so many rows, drawn by chance from both parts alike."""
    kept = np.random.default_rng(0).permutation(len(table.classes))[:rows]
    samples = [table.samples[i] for i in np.sort(kept).tolist()]
    kept = np.sort(kept)
    return Table(
        samples, table.classes[kept], table.is_test[kept], table.groups[kept], table.class_names
    )


def both_views(table: Table) -> Views:
    """Masks every text at level balanced."""
    masker = BuiltinMasker(MaskingPolicy())
    texts = [str(text) for text in table.samples]
    answers = [a for i in range(0, len(texts), 64) for a in masker.mask_many(texts[i : i + 64])]
    shown = [answer.text if isinstance(answer, Masked) else "" for answer in answers]
    touched = sum(isinstance(a, Masked) and bool(a.spans) for a in answers)
    held = sum(not isinstance(a, Masked) for a in answers)
    masked = replace(table, samples=shown)
    return Views(table, masked, held, touched / len(texts))


def accuracy(table: Table, seed: int) -> float:
    """Test accuracy in [0, 1] after federated training on one view."""
    features = FeatureSpec("text")
    rows = extract(list(table.samples), features)[INPUT_NAMES["text"]]
    train, test = ~table.is_test, table.is_test
    dataset = Dataset(
        family="text",
        features=features,
        input_width=0,
        train=rows[train],
        train_classes=table.classes[train],
        train_groups=table.groups[train],
        test=rows[test],
        test_classes=table.classes[test],
        class_names=table.class_names,
    )
    learner = make_learner(dataset, TRAINING, seed)
    sites = _sites(dataset, seed)
    examples = {
        f"site-{site}": learner.examples(
            dataset.train[sites == site], dataset.train_classes[sites == site]
        )
        for site in np.unique(sites).tolist()
    }
    model = learner.train(learner.initial(), examples)
    logits, _ = learner.predict(model.arrays, dataset.test)
    return float((logits.argmax(axis=1) == dataset.test_classes).mean())


def _sites(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    """int64[n]: the data's own sites, or Dirichlet shares of each class."""
    if (dataset.train_groups >= 0).all():
        return dataset.train_groups
    rng = np.random.default_rng([seed, 4])
    shares = rng.dirichlet(np.full(SITES, CONCENTRATION), len(dataset.class_names))
    steps = shares.cumsum(axis=1)[dataset.train_classes]
    return np.asarray((rng.random((len(steps), 1)) > steps[:, :-1]).sum(axis=1), dtype=np.int64)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=6000, help="rows of each set")
    parser.add_argument("--sets", nargs="+", default=["banking77", "medquad_qtype"])
    args = parser.parse_args()
    folder: Path = data_folder()
    print("| set | texts changed | held | raw, % | masked, % | lost, points | each seed |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for name in args.sets:
        table = thinned(read_parquet(folder / f"{name}.parquet", "text"), args.rows)
        views = both_views(table)
        raw = [100 * accuracy(views.raw, seed) for seed in range(args.seeds)]
        masked = [100 * accuracy(views.masked, seed) for seed in range(args.seeds)]
        lost = np.subtract(raw, masked)
        told = ", ".join(f"{points:+.1f}" for points in lost)
        print(
            f"| {name} | {views.touched_ratio:.1%} | {views.held_count} | {np.mean(raw):.1f} "
            f"| {np.mean(masked):.1f} | {lost.mean():+.2f} | {told} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
