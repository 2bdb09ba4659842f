"""The rewritten rivals have the properties that define them."""

import numpy as np
import pytest

from edge_agent.scoring import ModelOutputs, entropy, margin, softmax
from simulations import quotas
from simulations.learner import Model
from simulations.ranking import take
from simulations.rivals import geometry
from simulations.rivals.cold_start import ball_radius, rank_probcover, rank_typiclust
from simulations.rivals.core_set import rank_core_set
from simulations.rivals.fairfal import class_quota, rank_fairfal
from simulations.rivals.federated import kafal_scores, rank_logo
from simulations.rivals.ifal import reverse_neighbour_classes
from simulations.strategies import find_strategy, strategy_names
from simulations.view import LocalView, SelectionView


def make_view(rows=120, sites=3, classes=4, seed=0, **changes):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (classes, 6))
    truth = rng.integers(0, classes, rows)
    embedding = centres[truth] + rng.normal(0, 0.7, (rows, 6))
    embedding = (embedding / np.linalg.norm(embedding, axis=1, keepdims=True)).astype(np.float32)
    logits = (embedding @ centres.T + rng.normal(0, 1, (rows, classes))).astype(np.float32)
    local = (embedding @ centres.T + rng.normal(0, 2, (rows, classes))).astype(np.float32)
    labels = np.where(rng.random(rows) < 0.2, truth, -1)
    parts = {
        "cycle": 1,
        "sites": rng.integers(0, sites, rows),
        "site_ids": tuple(f"site-{s}" for s in range(sites)),
        "candidate_ids": rng.integers(0, 256, (rows, 16)).astype(np.uint8),
        "open": labels < 0,
        "labels": labels,
        "cost_bands": np.zeros(rows, np.uint8),
        "capacity": np.full(sites, 1000),
        "class_count": classes,
        "class_floor": 0,
        "budget": 15,
        "outputs": ModelOutputs(logits, embedding),
        "model": Model({}, centres.astype(np.float32), np.eye(5, 6, dtype=np.float32)),
        "cell_labels": np.zeros(5, np.int64),
        "judged": None,
        "train_local": lambda tuned: LocalView(softmax(local), embedding),
    }
    return SelectionView(**(parts | changes))


@pytest.mark.parametrize("name", sorted(strategy_names()))
def test_every_strategy_spends_the_budget_on_open_samples_once(name):
    view = make_view(cost_bands=np.tile(np.uint8([0, 1]), 60))
    selection = find_strategy(name)(view, np.random.default_rng(1))
    assert view.open[selection.places].all()
    assert len(set(selection.places.tolist())) == len(selection.places)
    assert 12 <= view.costs[selection.places].sum() <= 15


@pytest.mark.parametrize("name", sorted(strategy_names()))
def test_every_strategy_respects_the_experts_of_each_site(name):
    view = make_view(capacity=np.array([2, 0, 50]))
    selection = find_strategy(name)(view, np.random.default_rng(1))
    counts = np.bincount(view.sites[selection.places], minlength=3)
    assert counts[0] <= 2
    assert counts[1] == 0


def test_global_margin_takes_the_largest_margins_anywhere():
    view = make_view()
    chosen = find_strategy("margin-global")(view, np.random.default_rng(0)).places
    scores = margin(view.probabilities)
    assert scores[chosen].min() >= np.sort(scores[view.open])[-15]


def test_core_set_covers_better_than_chance():
    view = make_view()
    places, labelled = np.flatnonzero(view.open), np.flatnonzero(view.labels >= 0)
    rng = np.random.default_rng(0)

    def reach(chosen):
        centres = view.embedding[np.concatenate([chosen, labelled])]
        return geometry.squared_distances(view.embedding[places], centres).min(axis=1).max()

    chosen = rank_core_set(view, places, labelled, 15, rng)
    assert reach(chosen) < min(reach(rng.choice(places, 15)) for _ in range(10))


def test_factored_gradient_distances_equal_those_of_written_out_gradients():
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(size=(9, 3)).astype(np.float32))
    features = rng.normal(size=(9, 4)).astype(np.float32)
    found = geometry.gradients_of(probabilities, features)
    full = np.einsum("nc,nd->ncd", found.errors, found.features).reshape(9, -1)
    gaps = ((full - full[4]) ** 2).sum(axis=1)
    assert np.allclose(found.distances_to(4), gaps, atol=1e-4)


def test_typiclust_visits_clusters_without_labels_first():
    rng = np.random.default_rng(0)
    blobs = np.repeat(np.eye(4, 6), 20, axis=0) + rng.normal(0, 0.02, (80, 6))
    embedding = blobs.astype(np.float32)
    labels = np.full(80, -1)
    labels[:5] = 0
    outputs = ModelOutputs(np.zeros((80, 4), np.float32), embedding)
    view = make_view(80, labels=labels, open=labels < 0, outputs=outputs)
    places = np.flatnonzero(labels < 0)
    chosen = rank_typiclust(view, places, np.arange(5), 3, rng)
    assert sum(c >= 20 for c in chosen.tolist()) >= 2


def test_probcover_balls_are_mostly_pure_and_its_picks_cover_all_blobs():
    rng = np.random.default_rng(0)
    rows = (np.repeat(np.eye(4, 6), 20, axis=0) + rng.normal(0, 0.02, (80, 6))).astype(np.float32)
    pseudo = np.repeat(np.arange(4), 20)
    gaps = geometry.squared_distances(rows, rows)
    radius = ball_radius(gaps, pseudo)
    pure = [len(set(pseudo[gaps[i] <= radius])) == 1 for i in range(80)]
    assert np.mean(pure) >= 0.95
    labels = np.full(80, -1)
    view = make_view(
        80,
        labels=labels,
        open=labels < 0,
        outputs=ModelOutputs(np.zeros((80, 4), np.float32), rows),
    )
    chosen = rank_probcover(view, np.arange(80), np.arange(0), 4, rng)
    assert set((chosen // 20).tolist()) == {0, 1, 2, 3}


def test_logo_takes_the_most_uncertain_of_each_cluster():
    view = make_view()
    places, labelled = view.at_site(0)
    chosen = rank_logo(view, places, labelled, 5, np.random.default_rng(0))
    assert len(chosen) == 5
    scores = entropy(view.probabilities)
    assert scores[chosen].mean() > scores[places].mean()


def test_kafal_scores_are_zero_where_both_models_agree():
    same = make_view()
    same = make_view(train_local=lambda tuned: LocalView(same.probabilities, same.embedding))
    places = np.flatnonzero(same.open)
    assert np.allclose(kafal_scores(same, places, np.array([0, 1])), 0, atol=1e-6)
    other = make_view()
    assert (kafal_scores(other, places, np.array([0, 1])) > 0).any()


def test_reverse_neighbours_see_class_identity():
    view = make_view()
    rows = np.float32([[0, 0], [5, 5]])
    anchors = np.float32([[0, 0.1], [5, 5.1]])
    found = reverse_neighbour_classes(rows, anchors, np.array([1, 2]), view)
    assert found.shape == (2, 4)
    assert np.allclose(found.sum(axis=1), 1)


def test_fairfal_spreads_its_quota_over_pseudo_classes():
    view = make_view(400)
    places, labelled = view.at_site(0)
    chosen = rank_fairfal(view, places, labelled, 16, np.random.default_rng(0))
    assert len(chosen) == 16
    assert class_quota(np.array([0, 0, 0, 1, 2]), 4, 3).tolist() == [2, 1, 1]


def test_quotas_share_what_a_full_site_cannot_take():
    limits = np.array([2, 100, 100])
    for shares in (
        quotas.equal(limits, 30, limits),
        quotas.proportional(limits, 30, limits),
        quotas.square_root(limits, 30, limits),
        quotas.neyman(limits, np.ones(3), 30, limits),
        quotas.water_filling(np.array([9, 0, 0]), 30, limits),
        quotas.thompson(np.ones(3), np.ones(3), 30, limits, np.random.default_rng(0)),
    ):
        assert shares.sum() == 30
        assert (shares <= limits).all()


def test_taking_a_ranking_skips_what_is_too_dear():
    view = make_view(4, cost_bands=np.uint8([7, 0, 0, 7]), open=np.ones(4, bool), budget=9)
    assert take(view, np.array([0, 3, 1, 2])).places.tolist() == [0, 1]
