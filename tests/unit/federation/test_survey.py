"""Sums that sites give for a layer of features, and the layer that the centre makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from federation import survey, torch_engine
from federation.dataset import SiteData, from_samples, no_examples, unlabelled_examples
from federation.errors import FrameInvalid, ReplyRefused, RequestInvalid
from federation.feature_fit import fit_cells, fit_features
from federation.fixed_columns import is_fitted
from federation.messages import SurveyCommand, read_survey, survey_frame
from federation.networks import Arrays, NetworkSpec, initial_arrays
from federation.reply_rules import check_survey
from federation.survey_stages import (
    CELLS,
    CELLS_MAX,
    DIRECTIONS,
    FILTERS,
    FREQUENCIES,
    PATCHES,
    PATCHES_MAX,
    RESPONSES,
    SAMPLES_MIN,
    Question,
    question_layout,
    sums_layout,
)
from model_bundle.features import FeatureSpec, extract

pytestmark = pytest.mark.federation
DIGITS = FeatureSpec("image", height=8, width=8)
IMAGE = NetworkSpec("image", DIGITS, 10, unsupervised_width=48, filter_count=64)
SMALL = replace(IMAGE, unsupervised_width=12, filter_count=16)
WORDS = FeatureSpec("text", buckets=2048, word_ngrams=1, char_ngrams=())
TEXT = NetworkSpec("text", WORDS, 6, unsupervised_width=16)
STAGES = {
    PATCHES: SMALL,
    FILTERS: SMALL,
    RESPONSES: SMALL,
    FREQUENCIES: replace(TEXT, unsupervised_width=4),
    DIRECTIONS: replace(TEXT, unsupervised_width=4),
    CELLS: SMALL,
}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    pixels = (found.images * 15.9).astype(np.uint8)[order, None]
    return pixels.astype(np.float32) / np.float32(255), found.target[order]


@pytest.fixture(scope="module")
def topics() -> tuple[np.ndarray, np.ndarray]:
    """Texts of 12 words out of 360; each of six topics draws half of them from 60 of its own."""
    rng = np.random.default_rng(5)
    classes = rng.integers(0, 6, 900)
    texts = []
    for topic in classes:
        own = rng.integers(60 * topic, 60 * topic + 60, 12)
        words = np.where(rng.random(12) < 0.5, own, rng.integers(0, 360, 12))
        texts.append(" ".join(f"w{word}" for word in words))
    return extract(texts, WORDS)["token_ids"], classes


def fitted(spec: NetworkSpec, sites: list[np.ndarray], count_min: int = 1) -> Arrays:
    ask = survey.ask_of(spec, sites, seed=3, count_min=count_min)
    return fit_features(spec, initial_arrays(spec, seed=2), ask, 3)


def features(spec: NetworkSpec, arrays: Arrays, samples: np.ndarray) -> np.ndarray:
    parameters = torch_engine.to_parameters(arrays, torch.device("cpu"))
    return torch_engine.features(spec, parameters, torch.from_numpy(samples)).numpy()


def question(stage: str, *, count_min: int = 3, **changes: Any) -> Question:
    """A stage's question with plausible arrays."""
    spec, rng = STAGES[stage], np.random.default_rng(1)
    arrays = {}
    for name, shape in question_layout(spec, stage).items():
        lengths = [6 if length is None else length for length in shape]
        arrays[name] = rng.standard_normal(lengths).astype(np.float32)
    if stage == FILTERS:
        arrays["filters"] /= np.linalg.norm(arrays["filters"], axis=1, keepdims=True)
        arrays["whitening"] = np.eye(len(arrays["mean"]), dtype=np.float32)
    if stage == DIRECTIONS:
        arrays["basis"] = np.linalg.qr(arrays["basis"])[0]
        arrays["rarity"] = np.abs(arrays["rarity"])
    return Question(stage, arrays | changes, 7, count_min)


def samples_of(stage: str, digits: Any, topics: Any) -> np.ndarray:
    return np.asarray((topics if STAGES[stage].family == "text" else digits)[0])


@pytest.mark.parametrize("spec", [IMAGE, TEXT])
def test_sites_together_find_the_layer_of_all_samples_in_one_place(
    spec: NetworkSpec, digits: Any, topics: Any
) -> None:
    samples = (topics if spec.family == "text" else digits)[0][:600]
    apart = fitted(spec, [samples[:200], samples[200:350], samples[350:]])
    together = fitted(spec, [samples])
    assert is_fitted(apart, spec)
    if spec.family == "image":
        gaps = np.abs(apart["dictionary.weight"] - together["dictionary.weight"])
        # Rounding may send a patch that lies between two filters to the other one.
        assert (gaps.max(axis=(1, 2, 3)) < 1e-3).mean() > 0.9
    one, two = (features(spec, arrays, samples) for arrays in (apart, together))
    distances = [np.square(x[:, None] - x[None]).sum(axis=2) for x in (one, two)]
    assert np.corrcoef(distances[0].ravel(), distances[1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("spec", [IMAGE, TEXT])
def test_a_seed_fixes_every_byte_of_the_layer_whatever_the_order_of_samples(
    spec: NetworkSpec, digits: Any, topics: Any
) -> None:
    samples = (topics if spec.family == "text" else digits)[0][:300]
    once, again = (fitted(spec, [samples[:150], samples[150:]]) for _ in range(2))
    assert {n: a.tobytes() for n, a in once.items()} == {n: a.tobytes() for n, a in again.items()}
    stage = FREQUENCIES if spec.family == "text" else PATCHES
    turned = survey.answer(spec, Question(stage, {}, 3, 1), samples[::-1].copy())
    straight = survey.answer(spec, Question(stage, {}, 3, 1), samples)
    assert np.allclose(turned.sums, straight.sums, rtol=0, atol=1e-3)
    assert (turned.counts == straight.counts).all()


def test_the_features_of_digits_need_few_labels(digits: Any) -> None:
    """60 random labels, 8 draws; 1,200 samples at three sites, 597 to test on, 48 columns.

    Right, on average, by nearest class mean and by logistic regression: .891 and .899 on the
    learned features, .846 and .841 on as many principal components of the pixels, .832 and .847 on
    the seeded layer.
    """
    from sklearn.decomposition import PCA

    x, y = digits
    arrays = fitted(IMAGE, [x[:400], x[400:800], x[800:1200]], count_min=3)
    pixels = x.reshape(len(x), -1)
    components = PCA(48).fit(pixels[:1200]).transform(pixels)
    learned = right_with_few(features(IMAGE, arrays, x), y)
    plain = right_with_few(components / components.std(), y)
    seeded = right_with_few(features(IMAGE, initial_arrays(IMAGE, seed=2), x), y)
    assert (learned > plain + 0.03).all()
    assert (learned > seeded + 0.03).all()


def right_with_few(rows: np.ndarray, y: np.ndarray, *, labels: int = 60) -> np.ndarray:
    """Accuracy of class means and of logistic regression, mean of 8 draws of labels."""
    from sklearn.linear_model import LogisticRegression

    found = []
    pool = len(y) * 2 // 3
    for seed in range(8):
        drawn = np.random.default_rng(seed).permutation(pool)[:labels]
        present = np.unique(y[drawn])
        means = np.stack([rows[drawn][y[drawn] == c].mean(axis=0) for c in present])
        nearest = present[np.square(rows[pool:, None] - means).sum(axis=2).argmin(axis=1)]
        model = LogisticRegression(max_iter=1000).fit(rows[drawn], y[drawn])
        found.append(((nearest == y[pool:]).mean(), model.score(rows[pool:], y[pool:])))
    return np.mean(found, axis=0)


def test_the_features_of_texts_need_few_labels(topics: Any) -> None:
    """60 random labels of six drawn topics, 8 draws; 600 texts at three sites, 300 to test on.

    Right, on average, by nearest class mean and by logistic regression: .905 and .903 on the 16
    learned columns, .701 and .493 on weighted word counts, .305 and .281 on the seeded layer.
    """
    x, y = topics
    arrays = fitted(TEXT, [x[:200], x[200:400], x[400:600]], count_min=3)
    learned = right_with_few(features(TEXT, arrays, x), y)
    seeded = right_with_few(features(TEXT, initial_arrays(TEXT, seed=2), x), y)
    words = np.stack([np.bincount(row[row > 0], minlength=2048) for row in x]).astype(np.float64)
    words *= np.log(601 / (1 + (words[:600] > 0).sum(axis=0)))
    plain = right_with_few(words / np.linalg.norm(words, axis=1, keepdims=True), y)
    assert (learned > plain + 0.1).all()
    assert (learned > seeded + 0.4).all()


def test_a_site_with_few_samples_adds_nothing(digits: Any, topics: Any) -> None:
    for stage, spec in STAGES.items():
        samples = samples_of(stage, digits, topics)
        told = survey.answer(spec, question(stage), samples[:SAMPLES_MIN])
        assert told.sample_count == SAMPLES_MIN
        assert told.counts.any()
        copies = np.concatenate([samples[: SAMPLES_MIN - 1]] * 3)
        blank = np.zeros((9, *samples.shape[1:]), dtype=samples.dtype)
        silent = survey.answer(spec, question(stage), np.concatenate([copies, blank]))
        assert not silent.sample_count
        assert not any(a.any() for a in (silent.counts, silent.sums, silent.moments))
        check_survey(silent, sums_layout(spec, stage), 3)


def test_many_patches_of_one_sample_are_one_sample() -> None:
    rng, (rows, columns) = np.random.default_rng(0), np.indices((8, 8))
    slopes = rng.uniform(0.05, 0.1, (59, 2))
    x = (slopes[:, :1, None] * rows + slopes[:, 1:, None] * columns).astype(np.float32)[:, None]
    board = ((rows + columns) % 2).astype(np.float32)
    x = np.concatenate([x, board[None, None]])
    asked = question(FILTERS)
    filters, shift = asked.arrays["filters"].copy(), np.zeros(9, dtype=np.float32)
    filters[0] = survey.normalised(board[:3, :3].reshape(9)) / 3
    filters[1] = -filters[0]
    asked = question(FILTERS, filters=filters, mean=shift)
    alone = survey.answer(SMALL, replace(asked, count_min=1), x)
    guarded = survey.answer(SMALL, asked, x)
    assert alone.counts[:2].sum() == PATCHES_MAX
    assert not guarded.counts[:2].any()
    assert not guarded.sums[:2].any()
    assert guarded.counts.any()


def test_a_response_of_one_sample_is_not_told(digits: Any) -> None:
    x = digits[0][:40]
    asked = question(RESPONSES)
    weight = asked.arrays["dictionary.weight"].copy()
    spec, patch = SMALL, survey.normalised(x[0, 0, 2:5, 2:5].reshape(1, 9)).reshape(3, 3)
    weight[0, 0] = patch / np.square(patch).sum()
    bias = np.full(spec.filter_count, 5.0, dtype=np.float32)
    bias[0] = -0.999
    arrays = {"dictionary.weight": weight, "dictionary.bias": bias}
    told = survey.answer(spec, replace(asked, arrays=arrays, count_min=1), x)
    assert told.sums[0, :4].any()
    guarded = survey.answer(spec, replace(asked, arrays=arrays, count_min=40), x)
    assert not guarded.sums[0, :4].any()
    assert not guarded.moments[:4].any()
    assert not guarded.moments[:, :4].any()
    assert guarded.sums[0, 4:].all()


def test_a_word_of_few_texts_of_a_site_is_neither_told_nor_asked_for(topics: Any) -> None:
    spec, x = STAGES[DIRECTIONS], topics[0][:60].copy()
    rare = 2047
    assert not (x == rare).any()
    x[0, 0] = x[1, 0] = rare
    told = survey.answer(spec, question(FREQUENCIES), x)
    assert told.counts[0] == 60
    assert told.counts[rare] == 0
    assert ((told.counts == 0) | (told.counts >= 3)).all()
    basis = np.zeros((2048, 4), dtype=np.float32)
    basis[rare, 0] = 1.0
    found = survey.answer(spec, question(DIRECTIONS, basis=basis), x)
    assert not found.sums.any()
    shown = survey.answer(spec, question(DIRECTIONS, count_min=2, basis=basis), x)
    assert shown.sums.any()


def test_a_survey_looks_at_all_samples_that_may_teach_and_at_no_other(digits: Any) -> None:
    images = [(image[0] * 255).astype(np.uint8) for image in digits[0][:70]]
    train = from_samples(images[:40], [0] * 40, DIGITS)
    test = from_samples(images[40:60], [0] * 20, DIGITS)
    free = from_samples(images[60:], [0] * 10, DIGITS)
    pool = unlabelled_examples(free.inputs, 10)
    found = survey.site_samples(SiteData(train, test, pool), SMALL)
    assert (found == np.concatenate([train.inputs["pixels"], pool.inputs["pixels"]])).all()
    none = survey.site_samples(SiteData(no_examples(), test), SMALL)
    assert not survey.answer(SMALL, question(PATCHES), none).sample_count
    short = {"token_ids": np.ones((1, 2), np.int64)}
    texts = SiteData(
        replace(train, inputs={"token_ids": np.ones((40, 5), np.int64)}),
        no_examples(),
        unlabelled_examples(short, 1),
    )
    assert survey.site_samples(texts, TEXT)[-1].tolist() == [1, 1, 0, 0, 0]


def test_without_enough_samples_anywhere_the_seeded_layer_stays(digits: Any, topics: Any) -> None:
    for spec, samples in ((SMALL, digits[0]), (TEXT, topics[0])):
        start = initial_arrays(spec, seed=2)
        ask = survey.ask_of(spec, [samples[:20], samples[20:45]], seed=3, count_min=3)
        assert fit_features(spec, start, ask, 3) is start


def test_series_get_filters_too() -> None:
    rng = np.random.default_rng(0)
    time, tune = np.arange(60) / 60, rng.integers(2, 9, 120)
    waves = np.sin(2 * np.pi * tune[:, None] * time + rng.uniform(0, 6, (120, 1)))
    samples = np.stack([waves, rng.standard_normal(waves.shape) / 9], axis=1).astype(np.float32)
    spec = NetworkSpec(
        "series",
        FeatureSpec("series", steps=60, channels=2),
        2,
        unsupervised_width=8,
        filter_count=24,
    )
    arrays = fitted(spec, [samples[:60], samples[60:]])
    assert is_fitted(arrays, spec)
    rows = features(spec, arrays, samples)
    assert rows.var(axis=0).mean() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(rows.mean(axis=0)).max() < 1e-3


LIES: Mapping[str, Any] = {
    "few samples": lambda r: replace(r, sample_count=SAMPLES_MIN - 1),
    "no samples": lambda r: replace(r, sample_count=0),
    "nan": lambda r: replace(r, sums=r.sums * np.float32(np.nan)),
    "long": lambda r: replace(r, sums=r.sums * np.float32(1e4)),
    "negative": lambda r: replace(r, counts=-r.counts),
    "small group": lambda r: replace(r, counts=np.where(r.counts > 0, 2, 0).astype(np.int64)),
    "more rows than samples": lambda r: replace(r, counts=r.counts * 1000),
}
MOMENT_LIES: Mapping[str, Any] = {
    "nan": lambda m: m * np.float32(np.nan),
    "large": lambda m: m * np.float32(1e4),
    "negative": lambda m: -m,
    "lopsided": np.triu,
    "one negative variance": lambda m: m - 2 * np.diag(np.diag(m) * (np.arange(len(m)) == 0)),
}


@pytest.mark.parametrize("stage", [PATCHES, FILTERS, RESPONSES, DIRECTIONS, CELLS])
def test_impossible_sums_are_refused(stage: str, digits: Any, topics: Any) -> None:
    spec, asked = STAGES[stage], question(stage)
    layout = sums_layout(spec, stage, asked.cell_count)
    honest = survey.answer(spec, asked, samples_of(stage, digits, topics)[:200])
    check_survey(honest, layout, 3)
    lies = [change(honest) for change in LIES.values()]
    if layout.moments_side:
        lies += [replace(honest, moments=f(honest.moments)) for f in MOMENT_LIES.values()]
    for lie in lies:
        with pytest.raises(ReplyRefused):
            check_survey(lie, layout, 3)


def test_a_question_with_other_arrays_is_refused(topics: Any) -> None:
    spec = STAGES[DIRECTIONS]
    honest = survey_frame(SurveyCommand("ab" * 16, "run", spec, question(DIRECTIONS)))
    assert read_survey(honest).question.stage == DIRECTIONS
    basis = honest.arrays["basis"]
    for arrays in (
        {"basis": basis},
        {**honest.arrays, "extra": basis},
        {**honest.arrays, "basis": basis[:, :2]},
        {**honest.arrays, "basis": basis * np.float32(np.inf)},
    ):
        with pytest.raises(FrameInvalid):
            read_survey(replace(honest, arrays=arrays))
    for name, value in (("stage", "rows"), ("network", IMAGE.to_mapping())):
        with pytest.raises(RequestInvalid, match="no stage"):
            read_survey(replace(honest, fields={**honest.fields, name: value}))
    with pytest.raises(FrameInvalid, match="known keys"):
        read_survey(replace(honest, fields={**honest.fields, "paths": "all"}))
    for changes in ({"basis": 2 * basis}, {"rarity": -honest.arrays["rarity"]}):
        with pytest.raises(ReplyRefused):
            survey.answer(spec, question(DIRECTIONS, **changes), topics[0][:60])


def test_a_question_of_more_cells_than_there_may_be_is_refused() -> None:
    asked = question(CELLS)
    arrays = {**asked.arrays, CELLS: np.ones((CELLS_MAX + 1, 12), dtype=np.float32)}
    most = {**asked.arrays, CELLS: arrays[CELLS][1:]}
    command = SurveyCommand("ab" * 16, "run", SMALL, replace(asked, arrays=most))
    assert read_survey(survey_frame(command)).question.cell_count == CELLS_MAX
    for wrong in (arrays, {**most, CELLS: most[CELLS][:, 1:]}):
        with pytest.raises(FrameInvalid, match="cells"):
            read_survey(replace(survey_frame(command), arrays=wrong))


def test_a_cell_of_few_samples_of_a_site_is_not_told(topics: Any) -> None:
    spec, rows = STAGES[DIRECTIONS], topics[0][:60]
    arrays = fitted(spec, [topics[0]])
    columns = survey.unit_columns(spec, arrays, rows)
    middle = columns.mean(axis=0) / np.linalg.norm(columns.mean(axis=0))
    cells = np.stack([middle, columns[(columns @ middle).argmin()]])
    layer = {"tokens.weight": arrays["tokens.weight"], CELLS: cells.astype(np.float32)}
    alone = np.flatnonzero((columns @ cells.T).argmax(axis=1) == 1)
    told = survey.answer(spec, Question(CELLS, layer, 7, 1), rows)
    assert told.counts.tolist() == [60 - len(alone), len(alone)]
    assert np.allclose(told.sums[1], columns[alone].sum(axis=0), atol=1e-4)
    least = len(alone) + 1
    silent = survey.answer(spec, Question(CELLS, layer, 7, least), rows)
    assert silent.counts.tolist() == [60 - len(alone), 0]
    assert not silent.sums[1].any()


def test_cells_that_sites_find_together_hold_one_topic_each(topics: Any) -> None:
    """Share of the largest topic inside a cell: three sites, 24 cells, six topics of 900 texts."""
    samples, classes = topics
    arrays = fitted(TEXT, [samples])
    ask = survey.ask_of(TEXT, [samples[:300], samples[300:500], samples[500:]], seed=3, count_min=3)
    cells = fit_cells(TEXT, arrays, ask, 24, 3)
    assert cells is not None
    assert cells.shape == (24, TEXT.unsupervised_width)
    held = (survey.unit_columns(TEXT, arrays, samples) @ cells.T).argmax(axis=1)
    table = np.array([np.bincount(classes[held == cell], minlength=6) for cell in range(24)])
    assert (table.sum(axis=1) > 0).all()
    assert table.max(axis=1).sum() / len(samples) > 0.75
    few = survey.ask_of(TEXT, [samples[: SAMPLES_MIN - 1]], seed=3, count_min=3)
    assert fit_cells(TEXT, arrays, few, 24, 3) is None


def test_no_sample_gives_more_patches_than_its_share(digits: Any) -> None:
    x = digits[0][:50]
    told = survey.answer(SMALL, question(PATCHES), x)
    assert told.counts[0] == 50 * PATCHES_MAX
    other = survey.answer(SMALL, replace(question(PATCHES), seed=8), x)
    assert not np.allclose(told.sums, other.sums)
