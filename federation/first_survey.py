"""Submits the survey for a campaign's first version and watches it; part of `init-model`.

Sites that are away, have no samples or do not answer, and a SuperLink that is not there, cost time
and what would be fitted, never the version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from federation import first_layer, run_files
from federation.control import Control
from federation.errors import CheckpointInvalid, ControlFailed, FederationError
from federation.first_layer import FirstFit
from federation.requests import TrainingRequest
from federation.server_app import SURVEY
from federation.train_command import (
    CONTROL_PATIENCE_SECONDS,
    START_SECONDS,
    Errand,
    Pace,
    Watch,
)

_log = logging.getLogger(__name__)


def first_fit_of(request: TrainingRequest, pace: Pace | None = None) -> FirstFit:
    """Returns what the survey found; asks once, also when called again.

    Args:
        request: An order that `surveys_first`.
        pace: Time for the watcher.
    """
    try:
        return first_layer.load(request)
    except CheckpointInvalid:
        _log.debug("no survey yet")
    try:
        _survey(request, pace or Pace())
        return first_layer.load(request)
    except FederationError as error:
        _log.warning("the first version keeps a seeded layer: %s", error)
        first_layer.save(request, FirstFit(), {"fitted": False, "error": str(error)})
        return FirstFit()


def _survey(request: TrainingRequest, pace: Pace) -> None:
    """Submits the survey and watches it.

    Raises:
        ControlFailed: The SuperLink is not there, the survey failed in all attempts, or none was
            under way after `node_wait_seconds` and the time that a server app may need to start.
    """
    wait = request.settings.rounds.node_wait_seconds
    errand = Errand(
        SURVEY,
        lambda: first_layer.is_settled(request),
        first_layer.first_exchange_count(request),
        min(wait, CONTROL_PATIENCE_SECONDS),
        _limit(request, pace, wait + START_SECONDS),
    )
    control = Control(request.superlink, request.superlink_authority)
    watch = Watch(request, control, pace, errand)
    try:
        while not errand.done():
            watch.attempt()
    except ControlFailed:
        watch.abandon()
        raise
    finally:
        control.close()


def _limit(request: TrainingRequest, pace: Pace, seconds: float) -> Callable[[], None]:
    """Returns what gives up, once the time is over, on a survey that is not under way."""
    end = pace.clock() + seconds

    def check() -> None:
        asking = run_files.read_state(request.folder).get("state") == "training"
        if not asking and pace.clock() >= end:
            raise ControlFailed(f"no survey was under way after {seconds:g} s")

    return check
