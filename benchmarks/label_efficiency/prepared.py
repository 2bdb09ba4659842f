"""Data sets as arrays on disk, so that their features are computed once and not in every worker."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from benchmarks.label_efficiency.protocol import Cell, Entrant, configuration
from model_bundle.features import FeatureSpec
from simulations.config import SimulationConfig
from simulations.datasets import Dataset, load_dataset
from simulations.world import World

ARRAYS = ("train", "train_classes", "train_groups", "test", "test_classes")
LEARNED = ("train", "test", "views", "named", "named_classes")


def prepare(cell: Cell, entrant: Entrant, data: Path, folder: Path) -> Path:
    """Computes an entrant's model inputs, unless the folder has them; returns their file."""
    config = configuration(cell, data, entrant).data
    inputs = str(config.width) if config.features == "frozen" else "native"
    path = folder / f"{cell.subject.name}.{inputs}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _save(load_dataset(config), path)
    return path


@functools.cache
def load(path: Path) -> Dataset:
    """Reads what `prepare` wrote."""
    with np.load(path, allow_pickle=False) as found:
        known = {f.name for f in fields(Dataset)}
        # Files of an earlier version may hold facts that are none any more.
        facts = {k: v for k, v in json.loads(str(found["facts"])).items() if k in known}
        facts["features"] = FeatureSpec.from_mapping(facts["features"])
        facts["class_names"] = tuple(facts["class_names"])
        return Dataset(**facts, **{name: found[name] for name in ARRAYS})


def learned(config: SimulationConfig, dataset: Dataset, world: World, place: Path) -> Dataset:
    """The features that a world's sites learn, computed once for all entrants on it.

    Args:
        config: says whether they are wanted.
        dataset: model inputs as they are.
        world: who holds which.
        place: where they are kept, without an ending; its name tells worlds apart.
    """
    from simulations.learned_features import learn_features

    if config.data.features != "learned":
        return dataset
    training = config.training
    extra = f"{training.input_views}{'.named' if training.label_names else ''}"
    file = place.with_name(f"{place.name}.learned.{config.data.width}.{extra}.npz")
    if not file.exists():
        made = learn_features(config, dataset, world, world.seed)
        part = file.with_suffix(f".{os.getpid()}.npz")
        arrays = {name: getattr(made, name) for name in LEARNED}
        np.savez(part, **{name: array for name, array in arrays.items() if array is not None})
        part.replace(file)
    with np.load(file, allow_pickle=False) as found:
        rows = {name: found[name] for name in found.files}
    return replace(dataset, family="encoder", input_width=rows["train"].shape[1], **rows)


def _save(dataset: Dataset, path: Path) -> None:
    facts = {f.name: getattr(dataset, f.name) for f in fields(Dataset) if f.name not in ARRAYS}
    facts["features"] = dataset.features.to_mapping()
    part = path.with_suffix(".part.npz")
    arrays = {name: getattr(dataset, name) for name in ARRAYS}
    np.savez(part, facts=np.array(json.dumps(facts)), **arrays)
    part.replace(path)
