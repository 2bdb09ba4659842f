"""Agreement coefficients equal the reference implementations, and their intervals cover."""

import math
import random
import time

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_reference

from review_portal.core.agreement import (
    agreement_with_others,
    cohen_kappa,
    fleiss_kappa,
    fleiss_of_units,
    kappa_of_table,
    pairwise_kappas,
    per_class,
)
from review_portal.core.agreement_alpha import alpha_of_units, krippendorff_alpha
from review_portal.core.agreement_intervals import (
    bootstrap,
    student_quantile,
    symmetric,
    wilson,
)
from review_portal.core.agreement_ratings import Rating, RatingsInvalid, by_item, panel_of

KRIPPENDORFF_C = [
    {1: 3}, {2: 3, 3: 1}, {3: 4}, {3: 4}, {2: 4}, {1: 1, 2: 1, 3: 1, 4: 1}, {4: 4},
    {1: 3, 2: 1}, {2: 4}, {5: 3}, {1: 2}, {3: 1},
]  # fmt: skip


def ratings_of(matrix: list[list[int | None]]) -> list[Rating]:
    """Rows are experts, columns are items, None is missing."""
    return [
        Rating(f"item-{column}", f"expert-{row}", value)
        for row, answers in enumerate(matrix)
        for column, value in enumerate(answers)
        if value is not None
    ]


@st.composite
def matrices(draw, missing=True):
    experts = draw(st.integers(2, 6))
    items = draw(st.integers(2, 15))
    classes = draw(st.integers(2, 5))
    value = st.integers(0, classes - 1)
    cell = st.one_of(st.none(), value) if missing else value
    return draw(
        st.lists(st.lists(cell, min_size=items, max_size=items), min_size=experts, max_size=experts)
    )


@settings(max_examples=200, deadline=None)
@given(matrices(), st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_equals_the_reference_for_any_matrix_with_gaps(matrix, level):
    ours = krippendorff_alpha(ratings_of(matrix), level=level)
    columns = [[v for v in column if v is not None] for column in zip(*matrix, strict=True)]
    paired_values = {v for column in columns if len(column) > 1 for v in column}
    if len(paired_values) < 2:
        assert ours.value is None
        assert ours.undefined
        return
    data = np.array([[np.nan if v is None else v for v in row] for row in matrix], float)
    reference = krippendorff.alpha(
        data, level_of_measurement=level, value_domain=sorted(np.unique(data[~np.isnan(data)]))
    )
    assert ours.value == pytest.approx(reference, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(matrices(missing=False))
def test_fleiss_kappa_equals_the_reference_for_full_matrices(matrix):
    ours = fleiss_kappa(ratings_of(matrix))
    class_count = max(max(row) for row in matrix) + 1
    table = np.array(
        [[column.count(c) for c in range(class_count)] for column in zip(*matrix, strict=True)]
    )
    if len({v for row in matrix for v in row}) == 1:
        assert ours.value is None
        return
    assert ours.value == pytest.approx(fleiss_reference(table), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(matrices(missing=False))
def test_cohens_kappa_and_its_interval_equal_the_reference(matrix):
    first, second = matrix[0], matrix[1]
    size = max(*first, *second) + 1
    table = np.zeros((size, size))
    for row, column in zip(first, second, strict=True):
        table[row, column] += 1
    rows, columns = table.sum(1) / table.sum(), table.sum(0) / table.sum()
    ours = cohen_kappa(ratings_of(matrix), "expert-0", "expert-1")
    if (rows * columns).sum() > 1 - 1e-12:
        assert ours.value is None
        return
    reference = cohens_kappa(table)
    assert ours.value == pytest.approx(reference.kappa, abs=1e-9)
    variance = max(0.0, reference.var_kappa)
    half = stats.norm.ppf(0.975) * math.sqrt(variance)
    assert ours.low == pytest.approx(max(-1, reference.kappa - half), abs=1e-7)
    assert ours.high == pytest.approx(min(1, reference.kappa + half), abs=1e-7)


def test_cohens_kappa_reproduces_the_published_standard_error():
    # Fleiss, Cohen and Everitt 1969: kappa 0.429, standard error 0.054
    cells = {
        (0, 0): 106, (0, 1): 10, (0, 2): 4,
        (1, 0): 22, (1, 1): 28, (1, 2): 10,
        (2, 0): 2, (2, 1): 12, (2, 2): 6,
    }  # fmt: skip
    kappa = kappa_of_table(cells)
    assert (kappa.high - kappa.value) / 1.959964 == pytest.approx(0.054, abs=5e-4)


def test_fleiss_kappa_of_the_textbook_table_is_0_210():
    # Ten subjects, fourteen raters, five categories.
    rows = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    units = [{index: n for index, n in enumerate(row) if n} for row in rows]
    assert fleiss_of_units(units).value == pytest.approx(0.210, abs=5e-4)


def test_fleiss_and_alpha_intervals_match_gwets_published_ones():
    fleiss = fleiss_of_units(KRIPPENDORFF_C)
    error = (fleiss.value - fleiss.low) / stats.t.ppf(0.975, 11)
    assert error == pytest.approx(0.15302, abs=1e-5)
    alpha = alpha_of_units(KRIPPENDORFF_C)
    error = (alpha.value - alpha.low) / stats.t.ppf(0.975, 10)
    assert error == pytest.approx(0.14557, rel=0.04)  # the two linearisations differ by O(1/n)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.randoms())
def test_no_coefficient_depends_on_the_order_of_ratings_or_the_names_of_experts(matrix, shuffler):
    ratings = ratings_of(matrix)
    renamed = [Rating(r.item_id, f"x{r.expert_id}", r.class_index) for r in ratings]
    shuffler.shuffle(renamed)
    for coefficient in (krippendorff_alpha, fleiss_kappa):
        first, second = coefficient(ratings), coefficient(renamed)
        assert first.unit_count == second.unit_count
        assert (first.value is None) == (second.value is None)
        if first.value is not None:
            assert first.value == pytest.approx(second.value, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_an_interval_holds_its_value_and_stays_in_range(matrix):
    for level in ("nominal", "interval"):
        shown = krippendorff_alpha(ratings_of(matrix), level=level)
        assume(shown.low is not None)
        assert shown.value is not None
        assert shown.low <= shown.value + 1e-12
        assert shown.value - 1e-12 <= shown.high <= 1.0


def simulated(chance: random.Random, item_count: int, *, right: float) -> list[dict[int, int]]:
    units = []
    for _ in range(item_count):
        truth, counts = chance.randrange(3), {}
        for _ in range(4):
            answer = truth if chance.uniform(0, 1) < right else chance.randrange(3)
            counts[answer] = counts.get(answer, 0) + 1
        units.append(counts)
    return units


@pytest.mark.parametrize("coefficient", [alpha_of_units, fleiss_of_units])
def test_the_95_percent_interval_covers_the_truth_about_95_times_in_100(coefficient):
    # Two experts agree beyond chance exactly when both know: right * right.
    chance = random.Random(11)
    truth, runs = 0.7 * 0.7, 300
    covered = 0
    for _ in range(runs):
        shown = coefficient(simulated(chance, 60, right=0.7))
        covered += shown.low <= truth <= shown.high
    assert 0.91 <= covered / runs <= 0.985


def test_alpha_of_ten_thousand_items_and_five_experts_takes_under_a_second():
    chance = random.Random(5)
    ratings = [
        Rating(str(item), f"e{expert}", chance.randrange(7))
        for item in range(10_000)
        for expert in range(5)
    ]
    started = time.process_time()
    shown = krippendorff_alpha(ratings)
    assert time.process_time() - started < 1.0
    assert abs(shown.value) < 0.02
    assert shown.low < 0 < shown.high


def test_the_ordinal_interval_is_reproducible_and_depends_on_the_seed_only():
    units = simulated(random.Random(3), 40, right=0.6)
    first = alpha_of_units(units, level="ordinal", seed=1)
    assert first == alpha_of_units(units, level="ordinal", seed=1)
    assert first.method == "bootstrap"
    assert first.low < first.value < first.high


def test_analytic_and_bootstrap_intervals_of_nominal_alpha_agree():
    units = simulated(random.Random(8), 150, right=0.6)
    analytic = alpha_of_units(units)
    ends = bootstrap(lambda drawn: alpha_of_units(drawn).value, units, seed=2, resample_count=400)
    assert analytic.low == pytest.approx(ends[0], abs=0.03)
    assert analytic.high == pytest.approx(ends[1], abs=0.03)


def test_undefined_agreement_says_why():
    alone = krippendorff_alpha([Rating("i", "a", 0)])
    assert alone.value is None
    assert "two experts" in alone.undefined
    same = [Rating(item, expert, 2) for item in "ijk" for expert in "ab"]
    for shown in (krippendorff_alpha(same), fleiss_kappa(same), cohen_kappa(same, "a", "b")):
        assert shown.value is None
        assert "same class" in shown.undefined


def test_a_second_rating_of_the_same_item_by_the_same_expert_is_refused():
    with pytest.raises(RatingsInvalid, match="'ann' rates item 'i' twice"):
        by_item([Rating("i", "ann", 0), Rating("i", "ann", 1)])


def test_pairs_that_always_disagree_do_not_look_like_agreement():
    ratings = ratings_of([[0, 1, 0, 1], [1, 0, 1, 0]])
    assert krippendorff_alpha(ratings).value < 0
    assert pairwise_kappas(panel_of(ratings))[0].kappa.value == pytest.approx(-1.0)
    assert pairwise_kappas(panel_of(ratings))[0].agreement_ratio == 0.0


def test_the_view_per_class_finds_the_two_classes_that_experts_mix_up():
    ratings = ratings_of([[0] * 20 + [1] * 10 + [2] * 10, [0] * 20 + [2] * 10 + [1] * 10])
    clear, mixed, other = per_class(panel_of(ratings), 3)
    assert clear.value == pytest.approx(1.0)
    assert mixed.value < 0
    assert other.value < 0


def test_the_view_per_expert_finds_the_one_who_differs():
    chance = random.Random(4)
    truth = [chance.randrange(3) for _ in range(60)]
    guesses = [chance.randrange(3) for _ in truth]
    views = agreement_with_others(panel_of(ratings_of([truth, truth, guesses])))
    assert [view.unit_count for view in views.values()] == [60, 60, 60]
    assert views["expert-2"].value < 0.5 < views["expert-0"].value


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 30, 137, 400, 401, 2000, 10**6])
def test_students_quantile_equals_scipys(freedom):
    assert student_quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 500))
def test_wilsons_interval_equals_scipys(successes, trials):
    successes = min(successes, trials)
    ours = wilson(successes, trials)
    reference = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert ours.low == pytest.approx(reference.low, abs=1e-9)
    assert ours.high == pytest.approx(reference.high, abs=1e-9)


def test_a_share_of_nothing_is_undefined_and_more_successes_than_trials_an_error():
    assert wilson(0, 0).undefined
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson(3, 2)
    assert symmetric(0.5, 0.1, unit_count=1, method="x").low is None
