"""Data sets as arrays on disk, so that their features are computed once and not in every worker."""

from __future__ import annotations

import functools
import json
from dataclasses import fields
from pathlib import Path

import numpy as np

from benchmarks.label_efficiency.protocol import Cell, configuration
from model_bundle.features import FeatureSpec
from simulations.datasets import Dataset, load_dataset

ARRAYS = ("train", "train_classes", "train_groups", "test", "test_classes")


def prepare(cell: Cell, data: Path, folder: Path) -> Path:
    """Computes a data set's features, unless the folder has them; returns their file."""
    path = _place(cell, folder)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _save(load_dataset(configuration(cell, data).data), path)
    return path


@functools.cache
def load(path: Path) -> Dataset:
    """Reads what `prepare` wrote."""
    with np.load(path, allow_pickle=False) as found:
        facts = json.loads(str(found["facts"]))
        facts["features"] = FeatureSpec.from_mapping(facts["features"])
        facts["class_names"] = tuple(facts["class_names"])
        return Dataset(**facts, **{name: found[name] for name in ARRAYS})


def _save(dataset: Dataset, path: Path) -> None:
    facts = {f.name: getattr(dataset, f.name) for f in fields(Dataset) if f.name not in ARRAYS}
    facts["features"] = dataset.features.to_mapping()
    part = path.with_suffix(".part.npz")
    arrays = {name: getattr(dataset, name) for name in ARRAYS}
    np.savez(part, facts=np.array(json.dumps(facts)), **arrays)
    part.replace(path)


def _place(cell: Cell, folder: Path) -> Path:
    return folder / f"{cell.subject.name}.{cell.subject.width}.npz"
