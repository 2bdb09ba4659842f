"""The columns that no label changes: what the trained part of a network takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from federation.networks import FEATURE_NAMES, NetworkSpec, input_shape


def fixed_width(spec: NetworkSpec) -> int:
    """Returns the columns that the trained part takes and no label changes; 0 where there are none.

    >>> from model_bundle.features import FeatureSpec
    >>> fixed_width(NetworkSpec("text", FeatureSpec("text"), 2, unsupervised_width=8))
    8
    """
    if spec.family in FEATURE_NAMES:
        return spec.unsupervised_width
    return input_shape(spec)[0]


def is_fitted(arrays: Mapping[str, NDArray[np.float32]], spec: NetworkSpec) -> bool:
    """Whether the layer that learns without labels has done so; True where there is none.

    A fitted projection is centred, a fitted n-gram table leaves out padding and rare n-grams; the
    seeded start does neither.

    >>> from federation.networks import initial_arrays
    >>> from model_bundle.features import FeatureSpec
    >>> spec = NetworkSpec("text", FeatureSpec("text", buckets=9), 2, unsupervised_width=4)
    >>> is_fitted(initial_arrays(spec, seed=1), spec)
    False
    """
    if not spec.unsupervised_width:
        return True
    if spec.family == "text":
        return not arrays["tokens.weight"].any(axis=1).all()
    return bool(arrays["projection.bias"].any())
