"""Samples as they were read, before they become model input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Table:
    """Samples as read.

    Attributes:
        samples: one entry per sample, as `model_bundle.features` expects it.
        classes: int64[n].
        is_test: bool[n].
        groups: int64[n], the data's own site, or -1 everywhere.
        class_names: names in label order.
    """

    samples: list[Any] | NDArray[Any]
    classes: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    groups: NDArray[np.int64]
    class_names: tuple[str, ...]
