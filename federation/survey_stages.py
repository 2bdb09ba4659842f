"""The stages of a survey: what each sends to a site, what comes back, how long a sum may be. Pure.

A network with `unsupervised_width` begins with a layer that no label teaches. It is fitted once,
before the first round of a run, from sums over all samples that the sites may learn from. Then, for
a campaign's first version, and where columns are given (record, encoder), the same sums give cells:

image, series
    patches      mean and second moment of normalised patches, for whitening
    filters      sums of whitened patches by nearest filter: one step of spherical k-means
    responses    mean and second moment of pooled responses, for principal components
text
    frequencies  how many texts hold each bucket of n-grams
    directions   one step of subspace iteration on the texts' TF-IDF rows
all
    cells        sums of unit rows of the layer by nearest cell: one step of spherical k-means

Sources: Coates and Ng, "Learning feature representations with k-means", 2012; Deerwester et al.,
"Indexing by latent semantic analysis", 1990; Halko, Martinsson and Tropp, "Finding structure with
randomness", 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.errors import RequestInvalid
from federation.fixed_columns import fixed_width
from federation.networks import (
    NetworkSpec,
    feature_names,
    input_shape,
    parameter_layout,
    patch_side,
    pooled_width,
)

PATCHES, FILTERS, RESPONSES = "patches", "filters", "responses"
FREQUENCIES, DIRECTIONS = "frequencies", "directions"
CELLS = "cells"
STAGES = {
    "image": (PATCHES, FILTERS, RESPONSES, CELLS),
    "series": (PATCHES, FILTERS, RESPONSES, CELLS),
    "text": (FREQUENCIES, DIRECTIONS, CELLS),
    "record": (CELLS,),
    "encoder": (CELLS,),
}
CELLS_MAX = 1024
"""Most cells that a survey looks for."""
SAMPLES_MIN = 30
"""A site with fewer distinct samples adds nothing: few rows would show in a second moment."""
PATCHES_MAX = 20
"""Patches of one sample."""

Shape = tuple[int | None, ...]
"""Lengths of an array's axes; None for any, up to `CELLS_MAX`."""


@dataclass(frozen=True, eq=False)
class Question:
    """What the centre asks in one stage.

    Attributes:
        stage: One of the family's `STAGES`.
        arrays: What the stage needs, as `question_layout` says.
        seed: Chooses the patches of a sample; the same in all stages of a survey.
        count_min: Sums over fewer distinct samples than this are left out.
    """

    stage: str
    arrays: Mapping[str, NDArray[np.float32]]
    seed: int
    count_min: int

    @property
    def cell_count(self) -> int:
        """Cells that the question names; 0 in all stages but that of cells."""
        return len(self.arrays[CELLS]) if self.stage == CELLS else 0


@dataclass(frozen=True, eq=False)
class SurveySums:
    """What a site answers: counts and sums, never a row.

    Attributes:
        sample_count: Distinct samples behind the answer, 0 or at least `SAMPLES_MIN`.
        counts: int64[g], rows behind each sum.
        sums: float32[g, d].
        moments: float32[d, d], sum of outer products, or float32[0, 0].
    """

    sample_count: int
    counts: NDArray[np.int64]
    sums: NDArray[np.float32]
    moments: NDArray[np.float32]


Ask = Callable[[str, Mapping[str, NDArray[np.float32]]], list[SurveySums]]
"""Asks all sites one stage with its arrays; returns the answers that hold any samples."""


@dataclass(frozen=True)
class SumsLayout:
    """Shapes of a stage's answer and its bounds.

    Attributes:
        groups: Length of `counts`.
        width: Columns of `sums`.
        moments_side: Rows and columns of `moments`.
        row_length: Greatest length of one summed row.
        rows_per_sample: Most rows that one sample adds to one group.
    """

    groups: int
    width: int
    moments_side: int
    row_length: float
    rows_per_sample: int


def patch_width(spec: NetworkSpec) -> int:
    """Returns the numbers in one patch."""
    shape = input_shape(spec)
    return math.prod((shape[0], *[patch_side(spec)] * (len(shape) - 1)))


def question_layout(spec: NetworkSpec, stage: str) -> dict[str, Shape]:
    """Returns name and shape of every array that goes out with a stage.

    Raises:
        RequestInvalid: The network has no such stage.
    """
    check_stage(spec, stage)
    layout = parameter_layout(spec)
    if stage == FILTERS:
        d = patch_width(spec)
        return {"mean": (d,), "whitening": (d, d), "filters": (spec.filter_count, d)}
    if stage == RESPONSES:
        return {name: layout[name] for name in ("dictionary.weight", "dictionary.bias")}
    if stage == DIRECTIONS:
        table = layout["tokens.weight"]
        return {"rarity": (table[0],), "basis": table}
    if stage == CELLS:
        fixed: dict[str, Shape] = {name: layout[name] for name in feature_names(spec)}
        return fixed | {CELLS: (None, fixed_width(spec))}
    return {}


def sums_layout(spec: NetworkSpec, stage: str, cell_count: int = 0) -> SumsLayout:
    """Returns shapes and bounds of a stage's answer.

    Args:
        spec: The network.
        stage: One of its stages.
        cell_count: Cells of the question, see `Question.cell_count`.

    Raises:
        RequestInvalid: The network has no such stage.
    """
    check_stage(spec, stage)
    buckets = spec.features.buckets
    if stage == PATCHES:
        d = patch_width(spec)
        return SumsLayout(1, d, d, math.sqrt(d), PATCHES_MAX)
    if stage == FILTERS:
        return SumsLayout(spec.filter_count, patch_width(spec), 0, 1.0, PATCHES_MAX)
    if stage == RESPONSES:
        return SumsLayout(1, pooled_width(spec), pooled_width(spec), 1.0, 1)
    if stage == FREQUENCIES:
        return SumsLayout(buckets, 0, 0, 0.0, 1)
    if stage == CELLS:
        return SumsLayout(cell_count, fixed_width(spec), 0, 1.0, 1)
    return SumsLayout(buckets, spec.unsupervised_width, 0, 1.0, 1)


def no_sums(layout: SumsLayout) -> SurveySums:
    """Returns the answer of a site with too few samples."""
    side = layout.moments_side
    return SurveySums(
        0,
        np.zeros(layout.groups, dtype=np.int64),
        np.zeros((layout.groups, layout.width), dtype=np.float32),
        np.zeros((side, side), dtype=np.float32),
    )


def check_stage(spec: NetworkSpec, stage: str) -> None:
    """Raises `RequestInvalid` where the network has no such stage."""
    if not fixed_width(spec) or stage not in STAGES[spec.family]:
        raise RequestInvalid(f"a survey of this network has no stage {stage!r}")
