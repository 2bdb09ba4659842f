"""A site's executor: answers each message in a fork of a warm process, with the site's own code.

Flower's executor starts a Python interpreter for every message; most of a short round would be
imports. This one has everything imported and forks. And Flower's client process would unpack and
import the app bundle that came over the network; here the bundle is not even unpacked: the child
runs `client_app` of this installation. Whoever takes over the SuperLink can send a site frames,
which the trainer judges, but no code.

    python -m federation.node_executor --runtime-api-address 127.0.0.1:9094 \
        --superexec-auth-secret-file secret
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any, NoReturn

import flwr.supercore.superexec.run_superexec as flower_executor
import flwr.supernode.runtime.run_clientapp as flower_client
from flwr.clientapp import ClientApp
from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from federation.client_app import app as own_app
from federation.pacing import PacedTime

BUSY_SECONDS = 0.05
IDLE_SECONDS = 0.5
CALM_AFTER_SECONDS = 20.0
_log = logging.getLogger(__name__)


class ForkExecutor:
    """Runs client messages in forks of this process, and refuses every other kind of task."""

    def __init__(self, pace: PacedTime) -> None:
        self._pace = pace
        self._children: set[int] = set()

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: Any
    ) -> tuple[set[TaskType], set[str]]:
        """Client messages only."""
        return supported_task_types & {TaskType.CLIENT_APP}, set()

    def wait_for_capacity(self, task_type: TaskType | None = None, **_: Any) -> None:
        """There is always room: a site gets one message at a time."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Forks a child that answers the message."""
        if spec.task_type != TaskType.CLIENT_APP:
            return LaunchResult.failed("this site runs client messages only")
        self._pace.note_work()
        child = os.fork()
        if child == 0:
            _answer(spec)
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
        """Collects what ended; running children finish their message."""
        self.reconcile()


def _answer(spec: ExecutionSpec) -> NoReturn:
    """The child's whole life. It must never return into the parent's loop."""
    code = 1
    try:
        flower_client.run_clientapp(
            runtime_api_address=spec.runtime_api_address,
            token=spec.token,
            insecure=spec.insecure,
            certificates=None,
            parent_pid=None,
            runtime_dependency_install=False,
        )
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must end here, whatever happened
        _log.exception("a message could not be answered")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _keep_own_code() -> None:
    """Makes the client process ignore the app bundle and run this installation's client app."""

    def load(*_: Any, **__: Any) -> Any:
        def own(*_: Any) -> ClientApp:
            return own_app

        return own

    vars(flower_client).update(install_from_fab=lambda *_, **__: None, get_load_client_app_fn=load)


def main() -> None:
    """Runs the executor until it is stopped."""
    _keep_own_code()
    pace = PacedTime(
        busy_seconds=BUSY_SECONDS,
        idle_seconds=IDLE_SECONDS,
        calm_after_seconds=CALM_AFTER_SECONDS,
    )
    vars(flower_executor).update(time=pace, get_executor=lambda *_, **__: ForkExecutor(pace))
    flower_superexec()


if __name__ == "__main__":
    main()
