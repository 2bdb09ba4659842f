"""`perimeter-federation train`: submits a run, watches it, resumes it, publishes its model.

The coordinator starts it as a child and reads the run's files. It may be killed at any time: a
second call finds the run that the first submitted and goes on watching. A run that fails is
submitted again, up to three attempts, and resumes from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from federation import run_files
from federation.central import load_assessment
from federation.control import FINISHED, Control, RunStatus
from federation.errors import CheckpointInvalid, ControlFailed, FederationError, RequestInvalid
from federation.publish import publish
from federation.requests import TrainingRequest, read_request
from federation.server_app import ERROR_NAME, LOCK_NAME, TRAIN, is_locked

ATTEMPTS_MAX = 3
POLL_SECONDS = 0.2
STATUS_SECONDS = 2.0
"""The run's files tell of success at once; the SuperLink is asked for failures only."""
ABANDONED_SECONDS = 5.0
"""A run whose server app began and then let go of its lock for this long is dead."""
START_SECONDS = 90.0
"""A run whose server app did not begin within this time never will."""
CONTROL_PATIENCE_SECONDS = 120.0
R = TypeVar("R")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """Time for the watcher: a monotonic clock and a wait; tests pass their own."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Errand:
    """What a run is submitted for.

    Attributes:
        task: What the server app is to do.
        done: Whether the run's folder holds the result.
        rounds: Exchanges in all, for those who watch.
        patience_seconds: How long the SuperLink may be away.
        check: Raises `ControlFailed` where it is to be given up.
    """

    task: str
    done: Callable[[], bool]
    rounds: int
    patience_seconds: float = CONTROL_PATIENCE_SECONDS
    check: Callable[[], None] = lambda: None


def train(path: Path, pace: Pace | None = None) -> None:
    """Carries the run of a request to a signed bundle, or to the state `failed`.

    Raises:
        FederationError: The run failed in all attempts; `state.json` says so too.
    """
    request = read_request(path)
    try:
        _train(request, pace or Pace())
        publish(request)
    except FederationError as error:
        rounds = request.settings.rounds.rounds
        run_files.write_state(request.folder, "failed", rounds=rounds, error=str(error))
        raise


def _train(request: TrainingRequest, pace: Pace) -> None:
    if not request.superlink:
        raise RequestInvalid("request: key 'superlink' is missing")
    threading.Thread(target=_warm_up, daemon=True).start()
    control = Control(request.superlink, request.superlink_authority)
    try:
        errand = Errand(TRAIN, lambda: _assessed(request), request.settings.rounds.rounds)
        watch = Watch(request, control, pace, errand)
        while not errand.done():
            watch.attempt()
    finally:
        control.close()


def _warm_up() -> None:
    """Imports what publishing needs while the sites work."""
    import onnxruntime
    import torch

    _log.debug("torch %s, onnxruntime %s", torch.__version__, onnxruntime.__version__)


def _assessed(request: TrainingRequest) -> bool:
    """Whether the sites have measured the final model."""
    try:
        load_assessment(request.folder, request.digest())
    except CheckpointInvalid:
        return False
    return True


class Watch:
    """One run and its attempts."""

    def __init__(
        self, request: TrainingRequest, control: Control, pace: Pace, errand: Errand
    ) -> None:
        self._request, self._control, self._pace = request, control, pace
        self._errand = errand
        self._last, self._run_id = 0, -1

    def attempt(self) -> None:
        """Submits the run, or finds the attempt that is still going, and watches it to its end.

        Raises:
            ControlFailed: The last attempt failed, too, or the errand is given up.
        """
        self._errand.check()
        found = self._patiently(lambda: self._control.find_runs("run-key", self._key()))
        open_runs = [run for run in found if run.status != FINISHED]
        if open_runs:
            self._run_id = open_runs[-1].run_id
            self._last = max(run.attempt for run in found)
        else:
            self._last = 1 + max([self._last, *(run.attempt for run in found)], default=0)
            if self._last > ATTEMPTS_MAX:
                raise ControlFailed(f"the run failed {ATTEMPTS_MAX} times; {self._reason(found)}")
            self._run_id = self._submit()
        self._follow(self._run_id)

    def abandon(self) -> None:
        """Stops the attempt that is under way, if the SuperLink can be reached."""
        if self._run_id >= 0:
            with contextlib.suppress(ControlFailed):
                self._control.stop_run(self._run_id)

    def _submit(self) -> int:
        folder = self._request.folder
        run_files.write_state(folder, "submitted", rounds=self._errand.rounds)
        (folder / ERROR_NAME).unlink(missing_ok=True)
        config = {
            "run-directory": str(folder.resolve()),
            "run-key": self._key(),
            "attempt": self._last,
            "task": self._errand.task,
        }
        run_id = self._patiently(lambda: self._control.start_run(config))
        _log.info("attempt %d is run %d", self._last, run_id)
        return run_id

    def _follow(self, run_id: int) -> None:
        """Waits until the run is over, or until nobody works on it any more."""
        began, free_since, ask_at = False, self._pace.clock(), self._pace.clock()
        while not self._errand.done():
            self._errand.check()
            if self._pace.clock() >= ask_at:
                status = self._patiently(lambda: self._control.run_status(run_id))
                if status.status == FINISHED:
                    return
                ask_at = self._pace.clock() + STATUS_SECONDS
            if is_locked(self._request.folder / LOCK_NAME):
                began, free_since = True, self._pace.clock()
            elif self._pace.clock() - free_since > (ABANDONED_SECONDS if began else START_SECONDS):
                _log.warning("nobody works on run %d; stopping it", run_id)
                self._patiently(lambda: self._control.stop_run(run_id))
                return
            self._pace.pause(POLL_SECONDS)

    def _patiently(self, call: Callable[[], R]) -> R:
        """Repeats a call while the SuperLink restarts."""
        end = self._pace.clock() + self._errand.patience_seconds
        while True:
            try:
                return call()
            except ControlFailed as error:
                if not error.retry or self._pace.clock() >= end:
                    raise
            self._pace.pause(POLL_SECONDS)

    def _key(self) -> str:
        return f"{self._request.run_key}/{self._request.digest()[:16]}"

    def _reason(self, found: list[RunStatus]) -> str:
        try:
            return (self._request.folder / ERROR_NAME).read_text("utf-8")
        except FileNotFoundError:
            return found[-1].details if found else "no reason was given"
