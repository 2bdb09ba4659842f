"""Runs Flower's tasks in forks of a warm process, with the code of this installation.

Flower's own executor starts a Python interpreter for every task, which is most of a short round,
and that interpreter imports the app bundle that came over the network. Forks of a process that
has everything imported start at once, and the bundle's code is never imported: what runs is the
app of this installation. Whoever reaches the Control API can start runs, but brings no code.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import flwr.supercore.superexec.run_superexec as flower_executor
from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from federation.pacing import PacedTime

Work = Callable[[ExecutionSpec], None]
_SET_DEATH_SIGNAL = 1
_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)


class ForkExecutor:
    """Runs tasks of one type in forks of this process, and refuses every other type.

    Args:
        task_type: The type.
        work: Does one task; runs in the fork.
        pace: Learns of each task.
    """

    def __init__(self, task_type: TaskType, work: Work, pace: PacedTime) -> None:
        self._task_type, self._work, self._pace = task_type, work, pace
        self._children: set[int] = set()

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: Any
    ) -> tuple[set[TaskType], set[str]]:
        """The one type only."""
        return supported_task_types & {self._task_type}, set()

    def wait_for_capacity(self, task_type: TaskType | None = None, **_: Any) -> None:
        """There is always room."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Forks a child that does the task."""
        if spec.task_type != self._task_type:
            return LaunchResult.failed(f"only {self._task_type} runs here")
        self._pace.note_work()
        child = os.fork()
        if child == 0:
            _live(self._work, spec)
        self._children.add(child)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Collects children that ended."""
        for child in list(self._children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(child, os.WNOHANG)[0] == 0:
                    continue
            self._children.discard(child)

    def close(self) -> None:
        """Ends the children."""
        self.reconcile()
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)


def _live(work: Work, spec: ExecutionSpec) -> NoReturn:
    """The child's whole life. It must never return into the parent's loop."""
    code = 1
    try:
        _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
        work(spec)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must end here, whatever happened
        _log.exception("a task failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_executor(task_type: TaskType, work: Work, pace: PacedTime) -> None:
    """Runs Flower's executor loop with forks, until it is stopped.

    It takes the command line of `flower-superexec`.
    """
    executor = ForkExecutor(task_type, work, pace)
    vars(flower_executor).update(time=pace, get_executor=lambda *_, **__: executor)
    flower_superexec()
