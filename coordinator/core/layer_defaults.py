"""What goes with a layer that sites learn without labels, unless a campaign says otherwise.

    features, network, training = completed("image", {}, {"unsupervised_width": 256}, {})

Such a layer wants another training than a network that learns all from labels: more rounds, larger
batches, changed inputs; images moved copies too, images and series several heads that answer
together, texts a wide head, counts of words beside those of character n-grams, and the names of
their classes as examples. What is measured
best on real and made-up sets is in `docs/learning-from-unlabelled.md`; whoever asks for the layer
gets it without naming ten keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
LAYER_WIDTH: Mapping[str, int] = {"image": 256, "series": 64, "text": 400}
"""Columns that were measured best, by kind; texts with a handful of classes do with 200."""
_ENSEMBLE: Settings = {"ensemble_size": 8}
HEAD: Mapping[str, Settings] = {
    "image": _ENSEMBLE,
    "series": _ENSEMBLE,
    "text": {"linear_skip": True, "hidden_width": 512, "embedding_width": 256},
}
"""What lies on the layer, where it is not the usual."""
FEATURES: Mapping[str, Settings] = {"text": {"word_weight": 2}}
"""Feature extraction in front of the layer."""
STEP: Settings = {"optimizer": "sgd", "learning_rate": 0.05}
"""Go together: a step that suits one optimiser makes another diverge."""
_SHARED: Settings = {
    "rounds": 80,
    "local_epochs": 2,
    "batch_size": 32,
    "local_steps_max": 6,
    "input_noise": 0.6,
    "server_momentum": 0.9,
}
TRAINING: Mapping[str, Settings] = {
    "image": {**_SHARED, "input_views": 8},
    "series": _SHARED,
    "text": {**_SHARED, "input_noise": 1.0, "server_momentum": 0.8, "label_names": True},
}
"""Training on the layer, without the step."""


def completed(
    kind: str, features: Settings, network: Settings, training: Settings
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns the three tables of a campaign with what goes with its layer.

    Args:
        kind: Of the samples.
        features: Feature extraction, as the campaign names it.
        network: Sizes of the network; `unsupervised_width` above 0 asks for the layer.
        training: Training settings. Named keys stay as they are, here and in the other tables.

    >>> completed("series", {}, {"unsupervised_width": 64}, {"rounds": 20})[2]["rounds"]
    20
    >>> completed("series", {}, {}, {"rounds": 20})
    ({}, {}, {'rounds': 20})
    """
    if not network.get("unsupervised_width") or kind not in TRAINING:
        return dict(features), dict(network), dict(training)
    step = {} if set(STEP) & set(training) else STEP
    return (
        {**FEATURES.get(kind, {}), **features},
        {**HEAD.get(kind, {}), **network},
        {**TRAINING[kind], **step, **training},
    )
