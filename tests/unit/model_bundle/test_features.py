"""Feature extraction is the same on every machine, bit for bit."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_bundle.errors import FeatureInvalid
from model_bundle.features import ColumnSpec, FeatureSpec, extract, record_width

TEXT = FeatureSpec("text")


def test_text_buckets_never_change_without_a_new_version() -> None:
    ids = extract(["Mr <PERSON_2> wrote: où est ma carte? 42"], TEXT)["token_ids"]
    digest = hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    assert digest == "1bcb1bbc9fd449bd3d0547538738018659a48b07a04cc1fd1d2e3b3b48be902b"


@pytest.mark.parametrize("weight", [2, 3])
def test_words_count_as_often_as_asked(weight: int) -> None:
    text = "the card, the red card"
    once = np.bincount(extract([text], TEXT)["token_ids"][0], minlength=TEXT.buckets)
    words = np.bincount(
        extract([text], FeatureSpec("text", char_ngrams=()))["token_ids"][0], minlength=TEXT.buckets
    )
    more = np.bincount(
        extract([text], FeatureSpec("text", word_weight=weight))["token_ids"][0],
        minlength=TEXT.buckets,
    )
    np.testing.assert_array_equal(more, once + (weight - 1) * words)


def test_a_long_text_keeps_the_weight_of_its_words() -> None:
    spec = FeatureSpec("text", tokens_max=64, word_weight=2)
    ids = extract([" ".join(f"w{n}" for n in range(200))], spec)["token_ids"][0]
    assert len(ids) == 64
    np.testing.assert_array_equal(ids[:32], ids[32:])


def test_older_software_reads_features_without_a_word_weight() -> None:
    assert "word_weight" not in TEXT.to_mapping()
    weighted = FeatureSpec("text", word_weight=2)
    assert FeatureSpec.from_mapping(weighted.to_mapping()) == weighted


@pytest.mark.parametrize("weight", [0, 9, 2.0, True])
def test_a_word_weight_outside_its_range_is_refused(weight: object) -> None:
    with pytest.raises(FeatureInvalid, match="word_weight must be 1 to 8"):
        FeatureSpec.from_mapping({"kind": "text", "word_weight": weight})


@given(st.lists(st.text(max_size=300), min_size=1, max_size=5))
def test_any_text_becomes_buckets_in_range(texts: list[str]) -> None:
    ids = extract(texts, TEXT)["token_ids"]
    assert ids.shape[0] == len(texts)
    assert ids.shape[1] <= TEXT.tokens_max
    assert ids.min() >= 0
    assert ids.max() < TEXT.buckets


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_row_does_not_depend_on_its_neighbours(one: str, other: str) -> None:
    alone = extract([one], TEXT)["token_ids"][0]
    beside = extract([one, other], TEXT)["token_ids"][0]
    np.testing.assert_array_equal(np.trim_zeros(beside, "b"), np.trim_zeros(alone, "b"))


def test_numbered_placeholders_of_one_type_mean_the_same() -> None:
    one = extract(["ask <PERSON_1> please"], TEXT)["token_ids"]
    other = extract(["ask <PERSON_17> please"], TEXT)["token_ids"]
    np.testing.assert_array_equal(one, other)


def test_an_image_of_the_right_size_is_only_scaled() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    spec = FeatureSpec("image", height=8, width=8, scale=(16.0,))
    pixels = extract([image], spec)["pixels"]
    np.testing.assert_allclose(pixels[0, 0], image / 16.0, rtol=1e-6)


def test_resizing_keeps_a_flat_image_flat() -> None:
    spec = FeatureSpec("image", height=13, width=5)
    pixels = extract([np.full((28, 28, 3), 51, np.uint8)], spec)["pixels"]
    assert pixels.shape == (1, 1, 13, 5)
    np.testing.assert_allclose(pixels, 0.2, rtol=1e-6)


def test_a_series_is_standardised_per_channel() -> None:
    spec = FeatureSpec("series", steps=4, channels=2, mean=(1.0, 2.0), scale=(2.0, 4.0))
    window = np.tile(np.array([[3.0, 6.0]], np.float32), (4, 1))
    np.testing.assert_allclose(extract([window], spec)["signal"], np.ones((1, 2, 4)))


def test_a_record_marks_what_is_missing() -> None:
    columns = (ColumnSpec("age", mean=40, scale=20), ColumnSpec("ward", "category", buckets=4))
    values = extract([{"age": 60, "ward": "B"}, {}], FeatureSpec("record", columns=columns))[
        "values"
    ]
    assert values.shape == (2, record_width(columns))
    assert values[0, :2].tolist() == [1.0, 0.0]
    assert values[1, :2].tolist() == [0.0, 1.0]
    assert values[:, 2:].sum(axis=1).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("spec", "sample", "words"),
    [
        (FeatureSpec("image"), np.zeros((8, 8), np.float32), "uint8"),
        (FeatureSpec("image"), np.zeros((0, 8), np.uint8), "image must be"),
        (
            FeatureSpec("series", steps=4, channels=1),
            np.zeros((3, 1), np.float32),
            "series must be",
        ),
        (
            FeatureSpec("series", steps=1, channels=1),
            np.array([[np.nan]], np.float32),
            "not finite",
        ),
        (FeatureSpec("record", columns=(ColumnSpec("age"),)), {"age": "old"}, "'age'"),
    ],
)
def test_a_sample_that_does_not_fit_is_named(spec: FeatureSpec, sample: object, words: str) -> None:
    with pytest.raises(FeatureInvalid, match=words):
        extract([sample], spec)


def test_unknown_feature_rules_are_refused() -> None:
    with pytest.raises(FeatureInvalid, match="update the software"):
        FeatureSpec("text", version=99)
    with pytest.raises(FeatureInvalid, match="wrong"):
        FeatureSpec.from_mapping({"kind": "text", "colour": "red"})
