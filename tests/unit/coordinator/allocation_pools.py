"""Pools for allocation tests."""

import numpy as np

from coordinator.core.allocation.policy import Budget, Switches
from coordinator.core.allocation.pool import Pool, Progress

ONE_PARTITION = Switches(
    pairs=False,
    chance=False,
    novelty=False,
    classes=False,
    sites=False,
    overlap=False,
    explore=False,
    adapt=False,
    share_cap=False,
)
"""Cells alone."""


def make_pool(
    rows: int, *, sites: int = 4, classes: int = 5, cells: int = 12, seed: int = 0, **changes
) -> Pool:
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, classes, rows).astype(np.uint16)
    parts = {
        "candidate_ids": rng.integers(0, 256, (rows, 16)).astype(np.uint8),
        "site_index": rng.integers(0, sites, rows).astype(np.int32),
        "agent_index": rng.integers(0, 2 * sites, rows).astype(np.int32),
        "margins": rng.integers(0, 64, rows).astype(np.uint8),
        "entropies": rng.integers(0, 64, rows).astype(np.uint8),
        "top_probabilities": rng.integers(0, 64, rows).astype(np.uint8),
        "divergences": rng.integers(0, 64, rows).astype(np.uint8),
        "predicted_classes": predicted,
        "runner_up_classes": ((predicted + 1) % classes).astype(np.uint16),
        "prototype_classes": rng.integers(0, classes, rows).astype(np.uint16),
        "cell_ids": rng.integers(0, cells, rows).astype(np.uint16),
        "density_bands": rng.integers(0, 16, rows).astype(np.uint8),
        "cost_bands": rng.integers(0, 8, rows).astype(np.uint8),
        "site_ids": tuple(f"site-{s}" for s in range(sites)),
        "class_count": classes,
        "progress": Progress(
            class_labels=np.full(classes, 20, dtype=np.int64),
            site_labels=np.full(sites, 20 * classes, dtype=np.int64),
            cell_labels=np.zeros(cells, dtype=np.int64),
            calibration_error=0.05,
        ),
    }
    return Pool(**(parts | changes))


def make_budget(pool: Pool, cost_limit: int, **changes) -> Budget:
    parts = {
        "cost_limit": cost_limit,
        "site_capacity": np.full(pool.site_count, 10**9, dtype=np.int64),
        "class_floors": np.zeros(pool.class_count, dtype=np.int64),
    }
    return Budget(**(parts | changes))


def reorder(pool: Pool, order: np.ndarray) -> Pool:
    moved = {name: column[order] for name, column in pool.columns().items()}
    rest = {"site_ids": pool.site_ids, "class_count": pool.class_count, "progress": pool.progress}
    return Pool(**moved, **rest)
