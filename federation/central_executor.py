"""The centre's executor: works on each run with this installation's server app.

python -m federation.central_executor --runtime-api-address 127.0.0.1:8000 \
        --root-certificates ca.pem --superexec-auth-secret-file secret
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from queue import Queue
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor.types import ExecutionSpec

from federation.fork_executor import run_executor
from federation.pacing import PacedTime
from federation.server_app import app as own_app

# The package exports a function of the same name as this module, which hides it from `import`.
flower_server = importlib.import_module("flwr.superlink.runtime.run_serverapp")
BUSY_SECONDS = 0.25
IDLE_SECONDS = 1.0
CALM_AFTER_SECONDS = 2.0


def work(spec: ExecutionSpec) -> None:
    """Works on one run to its end."""
    certificates = spec.root_certificates_path
    flower_server.run_serverapp(
        runtime_api_address=spec.runtime_api_address,
        log_queue=Queue(),
        token=spec.token,
        insecure=spec.insecure,
        certificates=Path(certificates).read_bytes() if certificates else None,
        parent_pid=None,
        runtime_dependency_install=False,
    )


def keep_own_code() -> None:
    """Makes Flower's server process run this installation's app, whatever the bundle holds."""

    def run_own(grid: Grid, context: Context, **_: Any) -> Context:
        own_app(grid, context)
        return context

    assert "run_" in vars(flower_server), "this version of flwr runs server apps in another way"
    vars(flower_server)["run_"] = run_own


def main() -> None:
    """Runs the executor until it is stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_own_code()
    pace = PacedTime(
        busy_seconds=BUSY_SECONDS,
        idle_seconds=IDLE_SECONDS,
        calm_after_seconds=CALM_AFTER_SECONDS,
    )
    run_executor(TaskType.SERVER_APP, work, pace)


if __name__ == "__main__":
    main()
