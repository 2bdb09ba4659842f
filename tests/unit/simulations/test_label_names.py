"""Simulated sites learn from the names of classes as a campaign's sites do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulations.config import SimulationConfig, config_of
from simulations.datasets import load_dataset
from simulations.engine import Run
from simulations.errors import ConfigInvalid
from simulations.learned_features import learn_features
from simulations.learner import make_learner
from simulations.world import make_world

pytestmark = pytest.mark.federation
WORDS = {
    "refund_wanted": ["money", "back", "return", "refund", "wanted"],
    "card_lost": ["card", "lost", "stolen", "gone", "block"],
    "rate_asked": ["rate", "exchange", "euro", "price", "asked"],
}


def write_table(place: Path) -> Path:
    rng = np.random.default_rng(3)
    lines = ["text,label,split"]
    for row in range(150):
        name = list(WORDS)[row % 3]
        split = "test" if row >= 120 else "train"
        lines.append(f"{' '.join(rng.choice(WORDS[name], 4))} please,{name},{split}")
    lines += [f"{name.replace('_', ' ')},{name},test" for name in sorted(WORDS)]
    path = place / "tickets.csv"
    path.write_text("\n".join(lines), "utf-8")
    return path


def config(place: Path, **training: object) -> SimulationConfig:
    return config_of(
        {
            "data": {
                "path": str(write_table(place)),
                "kind": "text",
                "features": "learned",
                "width": 20,
            },
            "federation": {"sites": 3, "alpha": 1.0},
            "budget": {"initial": 12},
            "training": {"rounds": 4, "hidden_width": 16, "embedding_width": 8, **training},
        }
    )


def test_names_are_features_of_the_layer_like_samples(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert made.training.label_names
    dataset = load_dataset(made.data)
    found = learn_features(made, dataset, make_world(made, dataset, 1), 1)
    assert found.named is not None
    assert found.named_classes is not None
    assert found.named_classes.tolist() == [0, 1, 2]
    assert found.class_names == tuple(sorted(WORDS))
    # The last rows of the test part are the names themselves, as samples.
    assert np.abs(found.named - found.test[-3:]).max() < 1e-5


def test_names_change_what_sites_learn_and_nothing_else(tmp_path: Path) -> None:
    models, rows = [], []
    for wanted in (True, False):
        made = config(tmp_path, label_names=wanted)
        dataset = load_dataset(made.data)
        world = make_world(made, dataset, 1)
        found = learn_features(made, dataset, world, 1)
        learner = make_learner(found, made.training, 1)
        models.append(Run(made, found, world, learner).start_model())
        rows.append(found)
    with_names, without = models
    assert with_names is not None
    assert without is not None
    assert any((with_names.arrays[n] != a).any() for n, a in without.arrays.items())
    assert rows[1].named is None
    assert rows[0].train.tobytes() == rows[1].train.tobytes()
    blind = replace(rows[0], named=None, named_classes=None)
    made = config(tmp_path)
    world = make_world(made, load_dataset(made.data), 1)
    again = Run(made, blind, world, make_learner(blind, made.training, 1)).start_model()
    assert again is not None
    assert all((again.arrays[n] == a).all() for n, a in without.arrays.items())


@pytest.mark.parametrize("data", [{"features": "frozen"}, {"kind": "image"}])
def test_names_that_no_layer_reads_are_refused(data: dict[str, str]) -> None:
    values = {"path": "x.csv", "kind": "text", "features": "learned", **data}
    with pytest.raises(ConfigInvalid, match="label_names must be false unless"):
        config_of({"data": values, "training": {"label_names": True}})
