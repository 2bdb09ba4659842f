"""Federated rounds on Flower's simulation engine: Ray actors run the production client app.

The sites' labelled examples are written to a temporary folder, because actors are processes of
their own; each actor answers with the production trainer's desk, and the production round loop
talks to them through Flower's grid.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from federation.checkpoint import RoundState
from federation.client_app import Handle, make_app
from federation.dataset import Examples, SiteData, no_examples
from federation.flower_transport import FlowerTransport
from federation.in_process import desk_for
from federation.round_loop import RunPlan, run_rounds
from federation.trainer_desk import TrainerDesk
from simulations.errors import SimulationError

START_SECONDS = 180.0
POLL_SECONDS = 0.2
NAMED = "named.npz"
"""File of what the classes are called, one for all sites."""


def train_rounds(
    plan: RunPlan,
    state: RoundState,
    sites: dict[str, Examples],
    free: dict[str, Examples],
    named: Examples,
) -> RoundState:
    """Runs all rounds of a plan on Flower's engine.

    Args:
        plan: the production plan.
        state: where to start.
        sites: labelled examples by site; sites without any take no part.
        free: unlabelled samples by site, where they have any.
        named: what the classes are called, for all sites.

    Raises:
        SimulationError: the engine ended without a result.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    names = [name for name in sorted(sites) if len(sites[name])]
    with tempfile.TemporaryDirectory(prefix="perimeter-simulation-") as place:
        _write(Path(place) / NAMED, named)
        for number, name in enumerate(names):
            _write(Path(place) / f"{number}.npz", sites[name])
            _write(Path(place) / f"{number}.free.npz", free.get(name, no_examples()))
        return _simulate(plan, state, names, place)


def _simulate(plan: RunPlan, state: RoundState, names: list[str], place: str) -> RoundState:
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    found: list[RoundState | Exception] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        try:
            _await_nodes(grid, len(names))
            transport = FlowerTransport(grid, lambda: _named(grid, names))
            found.append(run_rounds(plan, transport, state, lambda following, _: following))
        except Exception as error:  # noqa: BLE001 - carried to the caller's thread
            found.append(error)

    run_simulation(
        server_app=server,
        client_app=make_app(_handle_in(place)),
        num_supernodes=len(names),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    if not found:
        raise SimulationError("Flower's simulation engine ended without a result")
    if isinstance(found[0], Exception):
        raise SimulationError(f"a round failed on Flower's engine: {found[0]}") from found[0]
    return found[0]


def _await_nodes(grid: Any, count: int) -> None:
    """Waits until all actors have registered; Ray takes its time to start them."""
    for _ in range(int(START_SECONDS / POLL_SECONDS)):
        if len(list(grid.get_node_ids())) >= count:
            return
        time.sleep(POLL_SECONDS)
    raise SimulationError(f"Ray did not start {count} actors in {START_SECONDS:.0f} seconds")


def _named(grid: Any, names: list[str]) -> dict[int, str]:
    """A site's name for each node; which node has which data does not matter to the result."""
    return dict(zip(sorted(grid.get_node_ids()), names, strict=False))


def _handle_in(place: str) -> Callable[[Any], Handle]:
    def handle_of(context: Any) -> Handle:
        from simulations.flower_engine import desk_at

        return desk_at(place, int(context.node_config["partition-id"])).handle

    return handle_of


@lru_cache(maxsize=64)
def desk_at(place: str, number: int) -> TrainerDesk:
    """The desk of one site, kept warm inside an actor."""
    parts = (f"{number}.npz", f"{number}.free.npz", NAMED)
    train, free, named = (_read(Path(place) / part) for part in parts)
    return desk_for(SiteData(train, no_examples(), free, named))


def _read(path: Path) -> Examples:
    with np.load(path, allow_pickle=False) as arrays:
        classes = arrays["__classes__"]
        inputs = {name: arrays[name] for name in arrays if name != "__classes__"}
    return Examples(inputs, classes, np.zeros(len(classes), dtype=np.bool_))


def _write(path: Path, examples: Examples) -> None:
    arrays: dict[str, Any] = {**examples.inputs, "__classes__": examples.classes}
    np.savez(path, **arrays)
