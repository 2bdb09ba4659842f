"""Flower's SuperNode with our pacing: `python -m federation.node_process <its arguments>`."""

from __future__ import annotations

import flwr.supernode.start_client_internal as flower_node
from flwr.supernode.cli.flower_supernode import flower_supernode

from federation.pacing import PacedTime

BUSY_SECONDS = 0.25
IDLE_SECONDS = 2.0
CALM_AFTER_SECONDS = 20.0


def main() -> None:
    """Runs the SuperNode until it is stopped."""
    pace = PacedTime(
        busy_seconds=BUSY_SECONDS,
        idle_seconds=IDLE_SECONDS,
        calm_after_seconds=CALM_AFTER_SECONDS,
    )
    vars(flower_node)["time"] = pace
    flower_supernode()


if __name__ == "__main__":
    main()
