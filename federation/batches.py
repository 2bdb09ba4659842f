"""Which examples of a site make up a step, and what each of them counts.

for batches in epochs(90, LocalSettings(), seed=1):
    ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from federation.local_settings import LocalSettings
from federation.statistics import Counts


def class_weights(classes: Counts, class_count: int, balance: float) -> NDArray[np.float32]:
    """Returns what a class counts by its rarity at the site, float32[class_count], mean 1.

    >>> class_weights(np.array([0, 0, 1]), 2, 1.0).tolist()
    [0.75, 1.5]
    """
    counts = np.maximum(np.bincount(classes, minlength=class_count), 1)
    weights = counts.astype(np.float64) ** -balance
    mean = weights[classes].mean() if len(classes) else 1.0
    return (weights / mean).astype(np.float32)


def resampling(rows: int, members: int, seed: int) -> Tensor:
    """Poisson(1) weights float32[rows, members]: bagging without copies (Oza, Russell, 2001)."""
    draws = np.random.default_rng(seed).poisson(1.0, (rows, members))
    return torch.from_numpy(draws.astype(np.float32))


def epochs(rows: int, local: LocalSettings, seed: int) -> Iterator[list[Tensor]]:
    """Yields each pass over a site's examples as batches of rows, in an order by seed.

    >>> [len(part) for part in next(epochs(90, LocalSettings(batch_size=32), seed=1))]
    [30, 30, 30]
    """
    rng = np.random.default_rng(seed)
    parts = max(1, math.ceil(rows / local.batch_size_of(rows)))
    for _ in range(local.local_epochs):
        yield [torch.from_numpy(part) for part in np.array_split(rng.permutation(rows), parts)]
