"""Features that the sites learn without labels, fitted on one seed's world by the production code.

    dataset = learn_features(config, dataset, world, seed)

A campaign whose network has `unsupervised_width` asks its sites for sums before the first round
and keeps the layer that these give. Here the same questions go to the same answers in memory, and
every sample is then taken through the layer once, so that cycles train on features alone, as a
site's trainer does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from federation import torch_engine
from federation.errors import RequestInvalid
from federation.feature_fit import fit_features
from federation.fixed_columns import is_fitted
from federation.local_settings import LocalSettings
from federation.networks import Arrays, NetworkSpec, initial_arrays
from federation.survey import ask_of
from federation.views import moved
from simulations.config import SimulationConfig
from simulations.datasets import Dataset
from simulations.errors import ConfigInvalid
from simulations.world import World

ROWS_AT_ONCE = 32


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
    return replace(
        dataset,
        family="encoder",
        input_width=config.data.width,
        train=_features(spec, fitted, dataset.train),
        test=_features(spec, fitted, dataset.test),
        views=_views(spec, fitted, dataset.train, config.training.input_views),
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


def _views(
    spec: NetworkSpec, arrays: Arrays, rows: NDArray[Any], count: int
) -> NDArray[np.float32] | None:
    """Moved copies of all samples, since any of them may get a label."""
    if not count:
        return None
    found = np.zeros((len(rows), count, spec.unsupervised_width), dtype=np.float32)
    x = torch.from_numpy(np.ascontiguousarray(rows))
    for copy in range(count):
        found[:, copy] = _features(spec, arrays, moved(x, copy).numpy())
    return found


def _features(spec: NetworkSpec, arrays: Arrays, rows: NDArray[Any]) -> NDArray[np.float32]:
    parameters = torch_engine.to_parameters(arrays, torch.device("cpu"))
    found = np.zeros((len(rows), spec.unsupervised_width), dtype=np.float32)
    with torch.no_grad():
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            x = torch.from_numpy(np.ascontiguousarray(rows[part]))
            found[part] = torch_engine.features(spec, parameters, x).numpy()
    return found
