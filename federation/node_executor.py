"""A site's executor: answers each message with this installation's client app.

python -m federation.node_executor --runtime-api-address 127.0.0.1:9094 \
        --superexec-auth-secret-file secret
"""

from __future__ import annotations

from typing import Any

import flwr.supernode.runtime.run_clientapp as flower_client
from flwr.clientapp import ClientApp
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.types import ExecutionSpec

from federation.client_app import app as own_app
from federation.fork_executor import run_executor
from federation.pacing import PacedTime

BUSY_SECONDS = 0.15
IDLE_SECONDS = 0.5
CALM_AFTER_SECONDS = 20.0


def answer(spec: ExecutionSpec) -> None:
    """Answers one message."""
    flower_client.run_clientapp(
        runtime_api_address=spec.runtime_api_address,
        token=spec.token,
        insecure=spec.insecure,
        certificates=None,
        parent_pid=None,
        runtime_dependency_install=False,
    )


def keep_own_code() -> None:
    """Makes Flower's client process ignore the app bundle and run this installation's app."""

    def load(*_: Any, **__: Any) -> Any:
        def own(*_: Any) -> ClientApp:
            return own_app

        return own

    replaced = {"install_from_fab": lambda *_, **__: None, "get_load_client_app_fn": load}
    missing = set(replaced) - set(vars(flower_client))
    assert not missing, f"this version of flwr has no {missing}"
    vars(flower_client).update(replaced)


def main() -> None:
    """Runs the executor until it is stopped."""
    keep_own_code()
    pace = PacedTime(
        busy_seconds=BUSY_SECONDS,
        idle_seconds=IDLE_SECONDS,
        calm_after_seconds=CALM_AFTER_SECONDS,
    )
    run_executor(TaskType.CLIENT_APP, answer, pace)


if __name__ == "__main__":
    main()
