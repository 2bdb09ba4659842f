"""Acquisition scores mean what their names say, and only sound outputs are scored."""

import doctest
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent import coverage, geometry, scoring
from edge_agent.scoring import ModelOutputs, ScoringError, score

CLASSES = 4


def outputs(rows: int = 6, seed: int = 0, **parts: np.ndarray) -> ModelOutputs:
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(rows, 3)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    logits = rng.normal(size=(rows, CLASSES)).astype(np.float32) * 3
    return ModelOutputs(logits=logits, embedding=embedding, **parts)


PROTOTYPES = np.eye(CLASSES, 3, dtype=np.float32)
CODE_BOOK = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]])
NO_CODE_BOOK = np.zeros((0, 3), dtype=np.float32)

logits = arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.integers(2, 6)),
    elements=st.floats(-30, 30, width=32),
)


def test_the_examples_in_the_docstrings_hold():
    results = [doctest.testmod(module) for module in (scoring, geometry, coverage)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) > 12


@given(logits)
def test_every_score_lies_between_zero_and_one(values):
    probabilities = scoring.softmax(values)
    for acquisition in (scoring.margin, scoring.entropy, scoring.least_confidence):
        result = acquisition(probabilities)
        assert result.dtype == np.float32
        assert ((result >= 0) & (result <= 1)).all()


@given(logits, st.floats(0.1, 10))
def test_temperature_never_changes_the_predicted_class(values, temperature):
    cool = scoring.softmax(values)
    warm = scoring.softmax(values, temperature=temperature)
    picked = warm[np.arange(len(values)), cool.argmax(axis=1)]
    assert np.allclose(picked, warm.max(axis=1), atol=1e-5)


def test_a_higher_temperature_makes_scores_more_uncertain():
    values = np.float32([[3.0, 1.0, 0.0]])
    scores = [scoring.margin(scoring.softmax(values, temperature=t))[0] for t in (0.5, 1, 2, 4)]
    assert scores == sorted(scores)


def test_divergence_sees_which_class_the_mass_lies_on():
    shared = np.float32([[0.9, 0.05, 0.05]])
    permuted = np.float32([[0.05, 0.9, 0.05]])
    softer = np.float32([[0.5, 0.25, 0.25]])
    assert scoring.divergence(shared, permuted)[0] > scoring.divergence(shared, softer)[0] > 0
    assert scoring.divergence(shared, shared)[0] == 0


def test_divergence_is_symmetric():
    left, right = np.float32([[0.7, 0.2, 0.1]]), np.float32([[0.1, 0.3, 0.6]])
    assert scoring.divergence(left, right) == pytest.approx(scoring.divergence(right, left))


def test_bald_is_zero_where_members_are_unsure_alike_and_high_where_they_disagree():
    unsure = np.full((1, 3, 2), 0.5, dtype=np.float32)
    split = np.float32([[[1, 0], [0, 1], [1, 0]]])
    assert scoring.bald(unsure)[0] == pytest.approx(0, abs=1e-6)
    assert scoring.bald(split)[0] > 0.9


def test_variation_ratio_counts_dissenting_votes():
    committee = np.float32([[[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    assert scoring.variation_ratio(committee).tolist() == [0.5]


def test_a_sample_in_a_crowd_is_more_typical_than_an_outlier():
    crowd = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32) * 0.1
    pool = np.vstack([crowd, np.float32([[9, 9]])])
    assert geometry.typicality(pool, neighbours=5).argmin() == 50


def test_typicality_does_not_depend_on_block_size(monkeypatch):
    pool = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    whole = geometry.typicality(pool, neighbours=5)
    monkeypatch.setattr(geometry, "CHUNK_ROWS", 7)
    assert np.allclose(whole, geometry.typicality(pool, neighbours=5), atol=1e-5)


def test_an_unseen_class_is_never_the_nearest_prototype():
    prototypes = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    columns = score(outputs(50), temperature=1, prototypes=prototypes, code_book=CODE_BOOK)
    assert set(columns.prototype_classes.tolist()) <= {1, 2}


def test_without_any_prototype_the_predicted_class_stands_in():
    columns = score(
        outputs(), temperature=1, prototypes=np.zeros((CLASSES, 3), np.float32), code_book=CODE_BOOK
    )
    assert columns.prototype_classes.tolist() == columns.predicted_classes.tolist()


def test_without_a_code_book_everything_is_in_cell_zero():
    columns = score(outputs(), temperature=1, prototypes=PROTOTYPES, code_book=NO_CODE_BOOK)
    assert not columns.cell_ids.any()


def test_cells_do_not_depend_on_the_length_of_vectors():
    made = outputs(30)
    short, _ = geometry.assign_cells(made.embedding, CODE_BOOK)
    long, _ = geometry.assign_cells(made.embedding * 7, CODE_BOOK * np.float32(3))
    assert short.tolist() == long.tolist()


def test_columns_have_the_widths_that_the_wire_asks_for():
    columns = score(outputs(), temperature=1.3, prototypes=PROTOTYPES, code_book=CODE_BOOK)
    widths = {name: getattr(columns, name).dtype.itemsize for name in columns.__slots__}
    assert widths == {
        "margins": 1,
        "top_probabilities": 1,
        "entropies": 1,
        "divergence_risk": 1,
        "predicted_classes": 2,
        "runner_up_classes": 2,
        "prototype_classes": 2,
        "cell_ids": 2,
        "density_cost": 1,
    }
    assert columns.margins.max() <= 63
    assert (columns.predicted_classes != columns.runner_up_classes).all()


def test_an_empty_pool_gives_empty_columns():
    assert len(score(outputs(0), temperature=1, prototypes=PROTOTYPES, code_book=CODE_BOOK)) == 0


def test_bands_are_packed_beside_the_scores_and_leave_them_unchanged():
    made = outputs(4, site_logits=outputs(4, seed=9).logits)
    plain = score(made, temperature=1, prototypes=PROTOTYPES, code_book=CODE_BOOK)
    banded = plain.with_bands(risk_bands=np.uint8([0, 1, 2, 3]), cost_bands=np.uint8([0, 3, 5, 7]))
    assert (banded.divergence_risk >> 6).tolist() == [0, 1, 2, 3]
    assert (banded.density_cost >> 4).tolist() == [0, 3, 5, 7]
    assert (banded.divergence_risk & 63).tolist() == plain.divergence_risk.tolist()
    assert (banded.density_cost & 15).tolist() == plain.density_cost.tolist()


def test_a_band_out_of_range_is_refused():
    plain = score(outputs(2), temperature=1, prototypes=PROTOTYPES, code_book=CODE_BOOK)
    with pytest.raises(ScoringError, match="cost_bands"):
        plain.with_bands(risk_bands=np.uint8([0, 0]), cost_bands=np.uint8([8, 0]))


def test_the_site_head_decides_the_divergence_and_the_committee_stands_in():
    site = outputs(5, seed=3).logits
    committee = np.stack([outputs(5, seed=s).logits for s in (4, 5, 6)], axis=1)
    kwargs = {"temperature": 1.0, "prototypes": PROTOTYPES, "code_book": CODE_BOOK}
    assert not score(outputs(5), **kwargs).divergence_risk.any()
    assert score(outputs(5, site_logits=site), **kwargs).divergence_risk.any()
    assert score(outputs(5, committee_logits=committee), **kwargs).divergence_risk.any()


FOLLOWS_THE_ASKING_HEAD = ("margins", "entropies")
FOLLOWS_THE_SERVED_HEAD = (
    "top_probabilities",
    "predicted_classes",
    "prototype_classes",
    "cell_ids",
    "density_cost",
)


@pytest.mark.parametrize("prototypes", [PROTOTYPES, np.zeros_like(PROTOTYPES)])
def test_one_head_asks_and_the_other_is_what_is_claimed(prototypes):
    kwargs = {"temperature": 1.7, "prototypes": prototypes, "code_book": CODE_BOOK}
    made, asked = outputs(60), outputs(60, seed=3).logits
    asked[:20] = made.logits[:20] / 2
    found = score(replace(made, acquisition_logits=asked), **kwargs)
    served, asking = score(made, **kwargs), score(replace(made, logits=asked), **kwargs)
    for name in FOLLOWS_THE_ASKING_HEAD:
        assert getattr(found, name).tolist() == getattr(asking, name).tolist()
        assert getattr(found, name).tolist() != getattr(served, name).tolist()
    for name in FOLLOWS_THE_SERVED_HEAD:
        assert getattr(found, name).tolist() == getattr(served, name).tolist()
    assert served.top_probabilities.tolist() != asking.top_probabilities.tolist()
    agreed = served.predicted_classes == asking.predicted_classes
    assert 20 <= agreed.sum() < 60
    other = np.where(agreed, asking.runner_up_classes, asking.predicted_classes)
    assert found.runner_up_classes.tolist() == other.tolist()
    assert (found.runner_up_classes != found.predicted_classes).all()


def test_disagreement_with_a_site_is_that_of_the_head_which_asks():
    kwargs = {"temperature": 1.0, "prototypes": PROTOTYPES, "code_book": CODE_BOOK}
    asked = outputs(9, seed=3).logits
    alike = outputs(9, acquisition_logits=asked, site_logits=asked)
    assert not score(alike, **kwargs).divergence_risk.any()
    apart = replace(alike, site_logits=alike.logits)
    assert score(apart, **kwargs).divergence_risk.any()


def test_without_a_second_head_all_scores_are_of_the_only_one():
    made = outputs(40)
    found = score(made, temperature=1.7, prototypes=PROTOTYPES, code_book=CODE_BOOK)
    probabilities = scoring.softmax(made.logits, temperature=1.7)
    order = np.argsort(-probabilities, axis=1)
    levels = np.sort(probabilities, axis=1)
    assert found.predicted_classes.tolist() == order[:, 0].tolist()
    assert found.runner_up_classes.tolist() == order[:, 1].tolist()
    gaps = 1 - (levels[:, -1] - levels[:, -2])
    assert found.margins.tolist() == scoring.quantise(gaps).tolist()
    assert found.top_probabilities.tolist() == scoring.quantise(levels[:, -1]).tolist()
    assert found.entropies.tolist() == scoring.quantise(scoring.entropy(probabilities)).tolist()


def test_the_only_class_is_its_own_runner_up():
    one = ModelOutputs(np.zeros((3, 1), np.float32), np.eye(3, dtype=np.float32))
    found = score(one, temperature=1, prototypes=PROTOTYPES[:1], code_book=CODE_BOOK)
    assert found.runner_up_classes.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "asked",
    [
        np.zeros((6, CLASSES + 1), np.float32),
        np.zeros((5, CLASSES), np.float32),
        np.zeros((6, 2, CLASSES), np.float32),
        np.zeros(6, np.float32),
        np.full((6, CLASSES), np.inf, np.float32),
    ],
)
def test_a_second_head_that_does_not_fit_is_refused(asked):
    with pytest.raises(ScoringError, match="acquisition_logits"):
        score(
            outputs(acquisition_logits=asked),
            temperature=1,
            prototypes=PROTOTYPES,
            code_book=CODE_BOOK,
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"prototypes": np.zeros((2, 3), np.float32)}, "prototypes"),
        ({"code_book": np.zeros((2, 9), np.float32)}, "code_book"),
    ],
)
def test_parts_that_do_not_fit_are_named(change, words):
    kwargs = {"temperature": 1.0, "prototypes": PROTOTYPES, "code_book": CODE_BOOK} | change
    with pytest.raises(ScoringError, match=words):
        score(outputs(), **kwargs)


def test_a_value_that_is_not_finite_is_refused():
    broken = outputs()
    broken.logits[2, 1] = np.nan
    with pytest.raises(ScoringError, match="logits"):
        score(broken, temperature=1, prototypes=PROTOTYPES, code_book=CODE_BOOK)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_of_samples_in_heaps_one_of_each_heap_stands_for_all_of_it(sizes):
    directions = np.eye(len(sizes), dtype=np.float32)
    embedding = np.repeat(directions, sizes, axis=0)
    heaps = np.repeat(np.arange(len(sizes)), sizes)
    columns = score(
        ModelOutputs(np.zeros((len(embedding), 2), np.float32), embedding),
        temperature=1.0,
        prototypes=np.zeros((2, len(sizes)), np.float32),
        code_book=np.zeros((0, len(sizes)), np.float32),
    )
    bands = scoring.with_coverage(columns, embedding).density_cost & 15
    if min(sizes) > 10:
        assert np.unique(heaps[bands > 0]).tolist() == list(range(len(sizes)))
        assert (np.bincount(heaps[bands > 0]) == 1).all()
        best = [bands[heaps == heap].max() for heap in np.argsort(sizes)]
        assert best == sorted(best)
    largest = np.flatnonzero(np.array(sizes) == max(sizes))
    assert bands.max() == bands[np.isin(heaps, largest)].max() > 0


def test_what_a_sample_stands_for_replaces_nothing_but_its_density_band():
    found = outputs(40)
    plain = score(
        found, temperature=1.0, prototypes=PROTOTYPES * 0, code_book=CODE_BOOK
    ).with_bands(risk_bands=np.full(40, 3, np.uint8), cost_bands=np.full(40, 7, np.uint8))
    covered = scoring.with_coverage(plain, found.embedding)
    assert (covered.density_cost >> 4 == 7).all()
    assert (covered.density_cost != plain.density_cost).any()
    same = replace(covered, density_cost=plain.density_cost)
    for item in fields(same):
        assert np.array_equal(getattr(same, item.name), getattr(plain, item.name))


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_pool_covers_nothing_and_a_lone_sample_itself(rows):
    found = outputs(rows)
    columns = score(found, temperature=1.0, prototypes=PROTOTYPES * 0, code_book=CODE_BOOK)
    assert scoring.with_coverage(columns, found.embedding).density_cost.tolist() == [1] * rows


def test_columns_and_embeddings_of_different_samples_are_refused():
    found = outputs(3)
    columns = score(found, temperature=1.0, prototypes=PROTOTYPES, code_book=CODE_BOOK)
    with pytest.raises(ScoringError, match="embedding has 2 rows, the columns have 3"):
        scoring.with_coverage(columns, found.embedding[:2])


def test_taking_rows_keeps_them_whole():
    columns = score(outputs(6), temperature=1, prototypes=PROTOTYPES, code_book=CODE_BOOK)
    taken = columns.take(np.array([4, 1]))
    for name in columns.__slots__:
        assert getattr(taken, name).tolist() == getattr(columns, name)[[4, 1]].tolist()
