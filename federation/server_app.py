"""The Flower server app: works on the request that its run configuration names.

Its task is a training run, or the survey for a campaign's first version.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation.central import train_run
from federation.first_layer import survey_first
from federation.flower_transport import FlowerTransport, read_nodes
from federation.requests import REQUEST_NAME, read_request
from federation.run_files import write_whole

ERROR_NAME = "error.txt"
LOCK_NAME = "server.lock"
TRAIN, SURVEY = "train", "survey"
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs or resumes the run in the folder that `run-directory` names."""
    logging.getLogger("federation").setLevel(logging.INFO)
    work = survey_first if context.run_config.get("task") == SURVEY else train_run
    folder = Path(str(context.run_config["run-directory"]))
    try:
        with _locked(folder / LOCK_NAME):
            request = read_request(folder / REQUEST_NAME)
            work(request, FlowerTransport(grid, lambda: read_nodes(request.nodes)))
    except Exception as error:
        write_whole(folder / ERROR_NAME, f"{type(error).__name__}: {error}".encode())
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the run's lock: it ends with this process, so a watcher sees a death at once."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RuntimeError("another server app works on this run") from None
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether a server app works on the run now."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
