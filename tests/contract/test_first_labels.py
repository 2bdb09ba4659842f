"""What devices say of a pool that no label has touched, and what the coordinator buys of it."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.core.allocation.policy import Budget, Phase, Policy, Reason, Switches
from coordinator.core.allocation.pool import Pool, Progress
from coordinator.core.allocation.seam import allocate
from edge_agent.scoring import CandidateColumns, ModelOutputs, score, with_coverage

CLASSES, WIDTH = 6, 24


def a_site(
    sizes: list[int], seed: int, *, places: int | None = None
) -> tuple[CandidateColumns, np.ndarray]:
    """Samples in clusters of the given sizes, as an untrained model's columns; whose each is.

    Sites with the same `places` have their clusters at the same places.
    """
    rng = np.random.default_rng(seed)
    spots = np.random.default_rng(seed if places is None else places)
    centres = np.linalg.qr(spots.normal(size=(WIDTH, WIDTH)))[0][: len(sizes)]
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    embedding = centres[cluster] + 0.02 * rng.normal(size=(len(cluster), WIDTH))
    embedding = embedding.astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    logits = rng.normal(size=(len(cluster), CLASSES)).astype(np.float32)
    columns = score(
        ModelOutputs(logits, embedding),
        temperature=1.0,
        prototypes=np.zeros((CLASSES, WIDTH), np.float32),
        code_book=np.random.default_rng(7).normal(size=(256, WIDTH)).astype(np.float32),
    )
    return with_coverage(columns, embedding), cluster


def pool_of(sites: list[CandidateColumns]) -> Pool:
    """The open candidates of all sites before any label."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(site, name) for site in sites])

    owner = np.repeat(np.arange(len(sites)), [len(site) for site in sites]).astype(np.int32)
    return Pool(
        candidate_ids=np.random.default_rng(9).integers(0, 256, (len(owner), 16), np.uint8),
        site_index=owner,
        agent_index=owner,
        margins=joined("margins"),
        entropies=joined("entropies"),
        top_probabilities=joined("top_probabilities"),
        divergences=joined("divergence_risk") & np.uint8(0x3F),
        predicted_classes=joined("predicted_classes"),
        runner_up_classes=joined("runner_up_classes"),
        prototype_classes=joined("prototype_classes"),
        cell_ids=joined("cell_ids"),
        density_bands=joined("density_cost") & np.uint8(0x0F),
        cost_bands=joined("density_cost") >> np.uint8(4),
        site_ids=tuple(f"site-{n}" for n in range(len(sites))),
        class_count=CLASSES,
        progress=Progress(
            np.zeros(CLASSES, np.int64), np.zeros(len(sites), np.int64), model_trained=False
        ),
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_first_labels_of_two_sites_go_to_one_sample_of_each_of_the_largest_clusters(seed):
    north, north_cluster = a_site([160, 20, 90], seed)
    south, south_cluster = a_site([20, 120, 24, 22, 65], seed + 10)
    cluster = np.concatenate([north_cluster, south_cluster])
    pool = pool_of([north, south])
    budget = Budget(4, np.array([99, 99]), np.full(CLASSES, 2))
    made = allocate(pool, budget, Policy(explore_ratio=0.5), np.random.default_rng(seed))
    assert made.phase is Phase.COLD
    assert set(made.reasons.tolist()) == {Reason.USEFUL}
    bought = set(zip(made.site_index.tolist(), cluster[made.rows].tolist(), strict=True))
    assert bought == {(0, 0), (0, 2), (1, 1), (1, 4)}
    again = allocate(pool, budget, Policy(explore_ratio=0.5), np.random.default_rng(seed))
    assert again.digest() == made.digest()


def test_what_two_sites_hold_alike_is_bought_once_before_anything_is_bought_twice():
    north, north_cluster = a_site([160, 90, 40], 1, places=3)
    south, south_cluster = a_site([150, 80, 45], 2, places=3)
    cluster = np.concatenate([north_cluster, south_cluster])
    budget = Budget(3, np.array([99, 99]), np.zeros(CLASSES, np.int64))
    pool = pool_of([north, south])
    made = allocate(pool, budget, Policy(), np.random.default_rng(0))
    assert sorted(cluster[made.rows].tolist()) == [0, 1, 2]
    blind = Policy(switches=Switches(cells=False))
    twice = allocate(pool, budget, blind, np.random.default_rng(0))
    assert sorted(cluster[twice.rows].tolist()) != [0, 1, 2]


def test_with_a_label_for_every_cluster_each_one_gets_a_label():
    north, north_cluster = a_site([60, 20, 40], 3)
    south, south_cluster = a_site([30, 50], 4)
    cluster = np.concatenate([north_cluster, south_cluster])
    budget = Budget(5, np.array([99, 99]), np.zeros(CLASSES, np.int64))
    made = allocate(pool_of([north, south]), budget, Policy(), np.random.default_rng(0))
    bought = set(zip(made.site_index.tolist(), cluster[made.rows].tolist(), strict=True))
    assert bought == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
