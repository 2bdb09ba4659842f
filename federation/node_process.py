"""Flower's SuperNode with our pacing: `python -m federation.node_process <its arguments>`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flwr.supernode.start_client_internal as flower_node
from flwr.supernode.cli.flower_supernode import flower_supernode

from federation.pacing import PacedTime

BUSY_SECONDS = 0.25
IDLE_SECONDS = 2.0
CALM_AFTER_SECONDS = 20.0


class UntilAnswered:
    """Stays with each message until its own answer is sent.

    Flower sends whatever answer comes first after a message was received. Where the SuperLink
    ended a run while a message was on its way, that is the old message's answer, and the new one's
    stays behind until the next message: from then on the node is one answer late, and each round
    waits for its time-out.

    Args:
        pull: Flower's function that receives a message.
        push: Flower's function that waits for answers and sends them.
    """

    def __init__(self, pull: Callable[..., int | None], push: Callable[..., None]) -> None:
        self._pull, self._push = pull, push
        self._asked = ""

    def pull(self, *, receive: Callable[[], Any], **rest: Any) -> int | None:
        """Receives a message and remembers which; returns its run, None for no message."""

        def noted() -> Any:
            received = receive()
            if received is not None:
                self._asked = received[0].metadata.message_id
            return received

        return self._pull(receive=noted, **rest)

    def push(self, *, send: Callable[..., Any], **rest: Any) -> None:
        """Sends answers until the last message's is among them."""
        answered = set()

        def noted(message: Any, *details: Any) -> Any:
            answered.add(message.metadata.reply_to_message_id)
            return send(message, *details)

        while self._asked not in answered:
            self._push(send=noted, **rest)


def main() -> None:
    """Runs the SuperNode until it is stopped."""
    pace = PacedTime(
        busy_seconds=BUSY_SECONDS,
        idle_seconds=IDLE_SECONDS,
        calm_after_seconds=CALM_AFTER_SECONDS,
    )
    original = vars(flower_node)
    until = UntilAnswered(original["_pull_and_store_message"], original["_push_messages"])
    original.update(time=pace, _pull_and_store_message=until.pull, _push_messages=until.push)
    flower_supernode()


if __name__ == "__main__":
    main()
