"""The survey for a campaign's first version: layer and cells are fitted before the first label.

`perimeter-federation init-model` submits a run whose server app calls `survey_first`. What came of
it lies in one file of the run's folder, also where no layer could be fitted: the first version then
has a seeded one, and a later run surveys (`survey_run`). A layer is fitted once for a campaign, so
the first survey counts only where a quorum of the campaign's sites has samples by then.

On the fitted layer, or on columns that are given, the sites also find cells of alike samples, one
for each label of the first cycle: what lies near their centres is worth the first labels.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from federation import frames, run_files
from federation.central import await_sites, plan_of
from federation.courier import Transport
from federation.errors import CheckpointInvalid, FrameInvalid, QuorumMissed
from federation.feature_fit import CELL_STEPS, exchange_count, fit_cells, fit_features
from federation.fixed_columns import fixed_width, is_fitted
from federation.layer_arrays import fixed_arrays
from federation.networks import Arrays, NetworkSpec, feature_names, initial_arrays, parameter_layout
from federation.requests import TrainingRequest
from federation.round_loop import RunPlan, quorum
from federation.statistics import Floats
from federation.survey_run import Survey
from federation.survey_stages import CELLS, Ask

LAYER_NAME = "layer.frame"
_KIND = "layer"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FirstFit:
    """What a survey gave a first version.

    Attributes:
        layer: Fitted parameters of the layer that no label teaches; {} for seeded ones.
        cells: Unit centres of cells of alike samples, float32[count, fixed_width], or None.
    """

    layer: Arrays = field(default_factory=dict)
    cells: Floats | None = None


def survey_first(
    request: TrainingRequest,
    transport: Transport,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Asks the sites for layer and cells of a first version; leaves what came of it in its folder.

    Waits for all sites of the campaign, at most `node_wait_seconds`. One attempt a stage; a site
    that was silent once is not waited for again.

    Args:
        request: An order that `surveys_first`.
        transport: Reaches the sites.
        clock: Monotonic seconds.
        pause: Waits.
    """
    if is_settled(request):
        return
    spec, plan = request.network, _first_plan(request)
    await_sites(transport, set(request.label_counts), plan.rounds, clock=clock, pause=pause)
    survey = Survey(plan, transport, on_stage=lambda stage: _note(request, stage), once=True)
    fit, failed = FirstFit(), {}
    try:
        for fit in _fits(request, survey.ask):
            _log.debug("%d cells", 0 if fit.cells is None else len(fit.cells))
    except QuorumMissed as error:
        failed = {"error": str(error)}
    cells = 0 if fit.cells is None else len(fit.cells)
    fitted = bool(fit.layer) or not spec.unsupervised_width
    save(request, fit, {**survey.facts(), **failed, "fitted": fitted, "cells": cells})


def _fits(request: TrainingRequest, ask: Ask) -> Iterator[FirstFit]:
    """Yields what is fitted, more each time: cells that find no quorum cost no layer."""
    spec, arrays = request.network, initial_arrays(request.network, seed=request.seed)
    layer: Arrays = {}
    if spec.unsupervised_width:
        arrays = fit_features(spec, arrays, ask, request.seed)
        if not is_fitted(arrays, spec):
            return
        layer = fixed_arrays(arrays, spec)
        yield FirstFit(layer)
    if request.first_cell_count:
        yield FirstFit(layer, fit_cells(spec, arrays, ask, request.first_cell_count, request.seed))


def save(request: TrainingRequest, fit: FirstFit, facts: Mapping[str, Any]) -> None:
    """Writes what could be fitted for a first version, and the survey's facts for people."""
    run_files.write_json(request.folder / run_files.SURVEY_NAME, facts)
    cells = {} if fit.cells is None else {CELLS: fit.cells}
    frame = frames.Frame(_KIND, {"request": request.digest()}, {**fit.layer, **cells})
    run_files.write_whole(request.folder / LAYER_NAME, frames.encode(frame))
    _log.info("survey for the first version: %s", dict(facts))


def load(request: TrainingRequest) -> FirstFit:
    """Returns what was fitted for the first version.

    Raises:
        CheckpointInvalid: There was no survey yet, or its file is damaged or of another request.
    """
    try:
        frame = frames.decode((request.folder / LAYER_NAME).read_bytes())
    except (OSError, FrameInvalid) as error:
        raise CheckpointInvalid(f"the first layer cannot be read: {error}") from None
    layer = {name: array.copy() for name, array in frame.arrays.items()}
    cells = layer.pop(CELLS, None)
    shapes = {name: array.shape for name, array in layer.items()}
    owned = (frame.kind, frame.fields.get("request")) == (_KIND, request.digest())
    odd = cells is not None and cells.shape[1:] != (fixed_width(request.network),)
    if not owned or odd or (shapes and shapes != _layer_layout(request.network)):
        raise CheckpointInvalid("the first layer belongs to another request")
    return FirstFit(layer, cells)


def first_exchange_count(request: TrainingRequest) -> int:
    """Returns how often the survey for a first version asks."""
    return exchange_count(request.network) + (CELL_STEPS if request.first_cell_count else 0)


def is_settled(request: TrainingRequest) -> bool:
    """Whether the survey for the first version is over, with a layer or without one."""
    try:
        load(request)
    except CheckpointInvalid:
        return False
    return True


def _layer_layout(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    layout = parameter_layout(spec)
    return {name: layout[name] for name in feature_names(spec)}


def _first_plan(request: TrainingRequest) -> RunPlan:
    plan = plan_of(request)
    enough = quorum(plan.rounds, len(request.label_counts))
    return replace(plan, rounds=replace(plan.rounds, quorum_count=enough, round_attempts=1))


def _note(request: TrainingRequest, stage: int) -> None:
    total = first_exchange_count(request)
    run_files.write_state(request.folder, "training", round_number=stage - 1, rounds=total)
