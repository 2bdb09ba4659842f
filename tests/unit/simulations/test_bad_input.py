"""A wrong configuration or data file ends with a sentence that names it, never with a traceback."""

from __future__ import annotations

import dataclasses
import doctest

import numpy as np
import pytest

from federation.local_settings import LocalSettings
from simulations import production
from simulations.config import TrainingConfig, config_of
from simulations.datasets import load_dataset
from simulations.errors import ConfigInvalid, DataInvalid
from simulations.world import make_world

DIGITS = {"path": "builtin:digits", "kind": "image", "rows": 100, "width": 8}


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("data", "rows", -4, "0 .all. or more, not -4"),
        ("data", "kind", "video", "one of text, image, series, record, not 'video'"),
        ("budget", "initial", -5, "0 or more"),
        ("budget", "class_floor", -1, "0 or more"),
        ("expert", "seconds", -3.0, "above 0"),
        ("expert", "hourly_price", -3.0, "0 or more"),
        ("training", "rounds", -1, "rounds is out of range"),
        ("training", "batch_size", 0, "batch_size is out of range"),
        ("training", "cell_count", -3, "cell_count is out of range"),
        ("training", "learning_rate", -0.1, "learning_rate is out of range"),
        ("training", "server_momentum", 2.0, "server_momentum"),
        ("training", "hidden_width", 0, "2 to 4096"),
        ("scenario", "drift_cycle", -1, "0 for never"),
        ("simulation", "strategies", ["random", "random"], "each once"),
        ("simulation", "processes", -1, "one per core"),
        ("simulation", "first_seed", -1, "0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_with_what_it_must_be(section, key, value, words):
    values = {"data": dict(DIGITS)}
    values.setdefault(section, {})[key] = value
    with pytest.raises(ConfigInvalid, match=words) as refused:
        config_of(values)
    assert section in str(refused.value)
    assert key in str(refused.value)


@pytest.mark.parametrize("key", ["liar_site", "drop_out_site"])
def test_a_scenario_about_a_site_that_does_not_exist_is_refused(key):
    values = {"data": DIGITS, "federation": {"sites": 2}, "scenario": {key: 2}}
    config = config_of(values | {"budget": {"initial": 10}})
    with pytest.raises(ConfigInvalid, match=f"{key} must be below 2"):
        make_world(config, load_dataset(config.data), 0)


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("a.csv", "txt,lbl\nhello,a\n", "text", "lacks the column label; it has txt, lbl"),
        ("a.csv", "text,label\nhello,a\nworld,\n", "text", "row 2 has no label"),
        ("a.csv", "text,label\n,a\nworld,b\n", "text", "row 1 has no text"),
        ("a.csv", "", "text", "cannot be read as .csv"),
        ("a.csv", "text,label\n", "text", "both are needed"),
        ("a.csv", "text,label\n" + "hi,a\n" * 40, "text", "one class only"),
        ("a.csv", "text,label,split\nhi,a,tset\n", "text", "train or test, not 'tset'"),
        ("a.csv", "x,label\n1,a\n", "image", "not image"),
        ("a.parquet", "no parquet", "text", "cannot be read as .parquet"),
        ("a.npz", "no npz", "image", "cannot be read as .npz"),
        ("a.txt", "hello", "text", "must be .npz, .parquet, .csv or a folder"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_reason(
    tmp_path, name, content, kind, words
):
    (tmp_path / name).write_text(content)
    config = config_of({"data": {"path": str(tmp_path / name), "kind": kind}})
    with pytest.raises(DataInvalid, match=words):
        load_dataset(config.data)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"y_train": np.zeros(4, np.int64)}, "image", "X_train has 5 rows, y_train has 4"),
        ({"y_train": np.array(list("abcde"))}, "image", "whole numbers"),
        ({}, "text", "texts come as"),
        ({}, "image", "one class only"),
        ({"y_train": np.arange(5)}, "series", "not of kind series"),
    ],
)
def test_arrays_that_do_not_fit_each_other_or_their_kind_are_refused(tmp_path, change, kind, words):
    shape = (8, 8, 3) if kind == "series" else (8, 8)
    arrays = {"X_train": np.zeros((5, *shape)), "y_train": np.zeros(5, np.int64)}
    arrays |= {"X_test": np.zeros((2, *shape)), "y_test": np.zeros(2, np.int64)}
    np.savez(tmp_path / "a.npz", **(arrays | change))
    config = config_of({"data": {"path": str(tmp_path / "a.npz"), "kind": kind}})
    with pytest.raises(DataInvalid, match=words):
        load_dataset(config.data)


def test_images_of_two_sizes_are_refused(tmp_path):
    from PIL import Image

    (tmp_path / "cats").mkdir()
    for side in (8, 9):
        Image.fromarray(np.zeros((side, 8), np.uint8)).save(tmp_path / "cats" / f"{side}.png")
    with pytest.raises(DataInvalid, match="the same shape"):
        load_dataset(config_of({"data": {"path": str(tmp_path), "kind": "image"}}).data)


def test_a_record_may_lack_values(tmp_path):
    rows = "".join(f"{i},{'' if i % 3 else i},{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "a.csv").write_text("x,y,label\n" + rows)
    dataset = load_dataset(
        config_of({"data": {"path": f"{tmp_path}/a.csv", "kind": "record"}}).data
    )
    assert np.isfinite(dataset.train).all()
    assert dataset.input_width == 4


def test_training_keys_of_the_same_name_are_the_productions_settings():
    training = TrainingConfig()
    made = production.local_settings(training)
    names = {f.name for f in dataclasses.fields(training)}
    shared = [f.name for f in dataclasses.fields(LocalSettings) if f.name in names]
    assert {"batch_size", "pool_prior", "spread"} <= set(shared)
    assert all(getattr(made, name) == getattr(training, name) for name in shared)
    assert doctest.testmod(production).attempted > 0
