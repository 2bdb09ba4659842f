"""Which parameters lie in a layer that nobody trains, and which on top of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from federation.networks import Arrays, NetworkSpec, feature_names


def fixed_arrays(arrays: Mapping[str, NDArray[np.float32]], spec: NetworkSpec) -> Arrays:
    """Returns the parameters of `feature_names`; those of the layer that nobody trains."""
    return {name: arrays[name] for name in feature_names(spec)}


def layer_digest(arrays: Mapping[str, NDArray[np.float32]], spec: NetworkSpec) -> str:
    """Returns the SHA-256 of the fixed layer's bytes in network order, 64 hex digits."""
    found = hashlib.sha256()
    for array in fixed_arrays(arrays, spec).values():
        found.update(array.tobytes())
    return found.hexdigest()


def trained_arrays(arrays: Mapping[str, NDArray[np.float32]], spec: NetworkSpec) -> Arrays:
    """Returns the parameters that learn from labels: those of `head_spec`."""
    fixed = feature_names(spec)
    return {name: array for name, array in arrays.items() if name not in fixed}
