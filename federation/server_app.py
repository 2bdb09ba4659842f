"""The Flower server app: runs the round loop of the request that its run configuration names."""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation.central import train_run
from federation.flower_transport import FlowerTransport, read_nodes
from federation.requests import REQUEST_NAME, read_request
from federation.run_files import write_whole

ERROR_NAME = "error.txt"
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs or resumes the run in the folder that `run-directory` names."""
    logging.getLogger("federation").setLevel(logging.INFO)
    folder = Path(str(context.run_config["run-directory"]))
    request = read_request(folder / REQUEST_NAME)
    try:
        train_run(request, FlowerTransport(grid, lambda: read_nodes(request.nodes)))
    except Exception as error:
        write_whole(folder / ERROR_NAME, f"{type(error).__name__}: {error}".encode())
        raise
