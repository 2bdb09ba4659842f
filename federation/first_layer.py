"""The survey for a campaign's first version: its layer is fitted before any label is asked for.

`perimeter-federation init-model` submits a run whose server app calls `survey_first`. What came of
it lies in one file of the run's folder, also where no layer could be fitted: the first version then
has a seeded one, and a later run surveys (`survey_run`). A layer is fitted once for a campaign, so
the first survey counts only where a quorum of the campaign's sites has samples by then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from federation import frames, run_files
from federation.central import await_sites, plan_of
from federation.errors import CheckpointInvalid, FrameInvalid, QuorumMissed
from federation.feature_fit import exchange_count, fit_features
from federation.networks import (
    Arrays,
    NetworkSpec,
    feature_names,
    initial_arrays,
    is_fitted,
    parameter_layout,
)
from federation.requests import TrainingRequest
from federation.round_loop import RunPlan, Transport, quorum
from federation.survey_run import Survey

LAYER_NAME = "layer.frame"
_KIND = "layer"
_log = logging.getLogger(__name__)


def survey_first(
    request: TrainingRequest,
    transport: Transport,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Asks the sites for the layer of a first version, and leaves what came of it in its folder.

    Waits for all sites of the campaign, at most `node_wait_seconds`. One attempt a stage; a site
    that was silent once is not waited for again.

    Args:
        request: The order, of a network with `unsupervised_width`.
        transport: Reaches the sites.
        clock: Monotonic seconds.
        pause: Waits.
    """
    if is_settled(request):
        return
    spec, plan = request.network, _first_plan(request)
    await_sites(transport, set(request.label_counts), plan.rounds, clock=clock, pause=pause)
    survey = Survey(plan, transport, on_stage=lambda stage: _note(request, stage), once=True)
    arrays, failed = initial_arrays(spec, seed=request.seed), {}
    try:
        arrays = fit_features(spec, arrays, survey.ask, request.seed)
    except QuorumMissed as error:
        failed = {"error": str(error)}
    fitted = is_fitted(arrays, spec)
    layer = {name: arrays[name] for name in feature_names(spec)} if fitted else {}
    save(request, layer, {**survey.facts(), **failed, "fitted": fitted})


def save(request: TrainingRequest, layer: Arrays, facts: Mapping[str, Any]) -> None:
    """Writes a first layer, {} where none could be fitted, and the survey's facts for people."""
    run_files.write_json(request.folder / run_files.SURVEY_NAME, facts)
    frame = frames.Frame(_KIND, {"request": request.digest()}, layer)
    run_files.write_whole(request.folder / LAYER_NAME, frames.encode(frame))
    _log.info("survey for the first version: %s", dict(facts))


def load(request: TrainingRequest) -> Arrays:
    """Returns the first layer; {} where none could be fitted.

    Raises:
        CheckpointInvalid: There was no survey yet, or its file is damaged or of another request.
    """
    try:
        frame = frames.decode((request.folder / LAYER_NAME).read_bytes())
    except (OSError, FrameInvalid) as error:
        raise CheckpointInvalid(f"the first layer cannot be read: {error}") from None
    shapes = {name: array.shape for name, array in frame.arrays.items()}
    owned = (frame.kind, frame.fields.get("request")) == (_KIND, request.digest())
    if not owned or (shapes and shapes != _layer_layout(request.network)):
        raise CheckpointInvalid("the first layer belongs to another request")
    return {name: array.copy() for name, array in frame.arrays.items()}


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
    total = exchange_count(request.network)
    run_files.write_state(request.folder, "training", round_number=stage - 1, rounds=total)
