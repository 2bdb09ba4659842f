"""Features that the sites learn without labels, fitted on one seed's world by the production code.

    dataset = learn_features(config, dataset, world, seed)

A campaign whose network has `unsupervised_width` asks its sites for sums before the first round
and keeps the layer that these give. Here the same questions go to the same answers in memory, and
every sample is then taken through the layer once, so that cycles train on features alone, as a
site's trainer does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from federation.class_texts import class_texts, named_examples
from federation.dataset import VIEWS, unlabelled_examples
from federation.errors import RequestInvalid
from federation.feature_fit import fit_features
from federation.feature_layer import encoded, with_views
from federation.fixed_columns import is_fitted
from federation.local_settings import LocalSettings
from federation.networks import INPUT_NAMES, Arrays, NetworkSpec, initial_arrays
from federation.survey import ask_of
from simulations.config import SimulationConfig
from simulations.datasets import Dataset
from simulations.errors import ConfigInvalid
from simulations.world import World


def learn_features(config: SimulationConfig, dataset: Dataset, world: World, seed: int) -> Dataset:
    """Returns the data set as features where `[data] features = "learned"`, else as it is.

    The first labels are chosen on the fitted layer too, as those of a campaign whose sites had
    samples when its first version was made.

    Raises:
        ConfigInvalid: the kind has no such layer, its width does not fit, or no site has enough
            samples.
    """
    if config.data.features != "learned":
        return dataset
    spec = _spec(config, dataset)
    start = initial_arrays(spec, seed=seed)
    pool = dataset.train[world.rows]
    sites = [pool[world.sites == site] for site in range(world.site_count)]
    ask = ask_of(spec, sites, seed=seed, count_min=LocalSettings().group_count_min)
    fitted = fit_features(spec, start, ask, seed)
    if not is_fitted(fitted, spec):
        raise ConfigInvalid(
            f"[data] features = 'learned' needs a site with more samples than these "
            f"{max(len(rows) for rows in sites)}; use 'frozen'"
        )
    # Any sample of the pool may get a label, so all are moved.
    train = _through(spec, fitted, dataset.train, config.training.input_views)
    named = None
    if config.training.label_names:
        texts = named_examples(class_texts(dataset.class_names), dataset.features)
        named = encoded(spec, fitted, texts, torch.device("cpu")) if len(texts) else None
    return replace(
        dataset,
        family="encoder",
        input_width=config.data.width,
        train=train[INPUT_NAMES["encoder"]],
        test=_through(spec, fitted, dataset.test)[INPUT_NAMES["encoder"]],
        views=train.get(VIEWS),
        named=None if named is None else named.inputs[INPUT_NAMES["encoder"]],
        named_classes=None if named is None else named.classes,
    )


def _spec(config: SimulationConfig, dataset: Dataset) -> NetworkSpec:
    try:
        return NetworkSpec(
            dataset.family,
            dataset.features,
            len(dataset.class_names),
            unsupervised_width=config.data.width,
        )
    except RequestInvalid as error:
        raise ConfigInvalid(f"[data] features = 'learned', width: {error}") from None


def _through(
    spec: NetworkSpec, arrays: Arrays, rows: NDArray[Any], view_count: int = 0
) -> Mapping[str, NDArray[Any]]:
    """Features of samples, and of moved copies of them, as a site's trainer computes them."""
    samples = unlabelled_examples({INPUT_NAMES[spec.family]: rows}, len(rows))
    return with_views(spec, arrays, samples, view_count, torch.device("cpu")).inputs
