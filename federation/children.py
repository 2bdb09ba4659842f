"""Keeps child processes up: starts them, starts a dead one again, stops them by their own pid.

A child also gets SIGTERM from the system when its supervisor dies, so that nothing is left behind.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

FLOWER_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "PYTHONUNBUFFERED": "1",
}
STOP_SECONDS = 10.0
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 30.0
_TICK_SECONDS = 0.2
_SET_DEATH_SIGNAL = 1
_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ChildSpec:
    """One child: its name, command, environment additions, folder and log file."""

    name: str
    command: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Child:
    spec: ChildSpec
    process: subprocess.Popen[bytes]
    started_at: float
    failures: int = 0
    restart_at: float | None = None


class Family:
    """A set of children that live as long as their supervisor wants.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._children: dict[str, _Child] = {}

    def start(self, spec: ChildSpec) -> None:
        """Starts a child and keeps it up from then on."""
        self._children[spec.name] = _Child(spec, _spawn(spec), self._clock())
        _log.info("%s runs as pid %d", spec.name, self._children[spec.name].process.pid)

    def restart(self, name: str) -> None:
        """Ends a child so that the next `tend` starts it again, as after a renewed certificate."""
        self._children[name].process.terminate()

    def pid(self, name: str) -> int:
        """Returns the process id of a child."""
        return self._children[name].process.pid

    def tend(self) -> None:
        """Looks after the children once: starts dead ones again, each after its back-off."""
        now = self._clock()
        for child in self._children.values():
            if child.restart_at is None and child.process.poll() is not None:
                self._plan_restart(child, now)
            elif child.restart_at is not None and now >= child.restart_at:
                child.process, child.started_at = _spawn(child.spec), now
                child.restart_at = None
                _log.info("%s runs again as pid %d", child.spec.name, child.process.pid)

    def _plan_restart(self, child: _Child, now: float) -> None:
        steady = now - child.started_at >= STEADY_SECONDS
        child.failures = 1 if steady else child.failures + 1
        wait = BACK_OFF_SECONDS[min(child.failures, len(BACK_OFF_SECONDS)) - 1]
        child.restart_at = now + wait
        code = child.process.returncode
        _log.warning("%s ended with %s; again in %.1f s", child.spec.name, code, wait)

    def stop(self) -> None:
        """Stops all children, last started first: SIGTERM, and SIGKILL for those that stay."""
        running = [c.process for c in reversed(self._children.values()) if c.process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._children.clear()


def supervise(family: Family, each_tick: Callable[[], None] = lambda: None) -> None:
    """Tends the family until SIGTERM or SIGINT, then stops it."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        caught.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    try:
        while not caught:
            family.tend()
            each_tick()
            time.sleep(_TICK_SECONDS)
    finally:
        family.stop()


def _spawn(spec: ChildSpec) -> subprocess.Popen[bytes]:
    spec.folder.mkdir(parents=True, exist_ok=True)
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    with spec.log.open("ab") as log:
        return subprocess.Popen(
            list(spec.command),
            cwd=spec.folder,
            env=_environment(spec),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no locks
            start_new_session=True,
        )


def _environment(spec: ChildSpec) -> dict[str, str]:
    """Flower starts its own programs by name, so this installation's must come first."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    return {**os.environ, **FLOWER_ENVIRONMENT, **spec.environment, "PATH": path}


def _die_with_parent() -> None:
    _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
