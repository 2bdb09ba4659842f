"""Carries frames over Flower's grid: the deployed SuperLink's, or the in-process one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from federation.client_app import FRAME, RECORD
from federation.courier import Replies
from federation.errors import RequestInvalid

REGISTERED_NAME = "registered.json"
POLL_SECONDS = 0.2
_TYPE = "train"


class FlowerTransport:
    """One site is one node: the first online one by name, where a site has several.

    Args:
        grid: Flower's grid.
        nodes: Returns the site of each known node, by node id.
        pause: Waits; a test passes its own.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Callable[[], Mapping[int, str]],
        *,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid, self._nodes = grid, nodes
        self._pause, self._clock = pause, clock

    def sites(self) -> list[str]:
        """Sites that are online now, in name order."""
        return sorted(self._online())

    def exchange(self, frame: bytes, sites: list[str], *, timeout_seconds: float) -> Replies:
        """Sends one frame to all sites and waits for their answers, at most the time-out."""
        online = self._online()
        waiting: dict[str, str] = {}
        silent = {site: "the site went offline" for site in sites if site not in online}
        reached = [site for site in sites if site in online]
        messages = [_message(frame, online[site]) for site in reached]
        pushed = self._grid.push_messages(messages) if messages else []
        for site, message_id in zip(reached, pushed, strict=False):
            if message_id:
                waiting[message_id] = site
            else:
                silent[site] = "the message could not be sent"
        answers = self._collect(waiting, silent, self._clock() + timeout_seconds)
        return Replies(answers, silent | dict.fromkeys(waiting.values(), "no answer in time"))

    def _collect(
        self, waiting: dict[str, str], silent: dict[str, str], end: float
    ) -> dict[str, bytes]:
        answers: dict[str, bytes] = {}
        while waiting and self._clock() < end:
            for reply in self._grid.pull_messages(list(waiting)):
                site = waiting.pop(reply.metadata.reply_to_message_id, None)
                if site is None:
                    continue
                frame = _frame_of(reply)
                if isinstance(frame, bytes):
                    answers[site] = frame
                else:
                    silent[site] = frame
            if waiting:
                self._pause(POLL_SECONDS)
        return answers

    def _online(self) -> dict[str, int]:
        known, alive = self._nodes(), set(self._grid.get_node_ids())
        found: dict[str, int] = {}
        for node_id, site in known.items():
            if node_id in alive:
                found.setdefault(site, node_id)
        return found


def _message(frame: bytes, node_id: int) -> Message:
    content = RecordDict({RECORD: ConfigRecord({FRAME: frame})})
    return Message(content, node_id, _TYPE)


def _frame_of(reply: Message) -> bytes | str:
    """Returns the reply's frame, or why it has none as text."""
    if reply.has_error():
        return f"the node reports an error (code {reply.error.code})"
    try:
        frame = reply.content[RECORD][FRAME]
    except KeyError:
        return "the reply holds no frame"
    return frame if isinstance(frame, bytes) else "the reply holds no frame"


def read_nodes(folder: Path) -> dict[int, str]:
    """Reads which node belongs to which site, from the file that the SuperLink's watcher writes.

    Raises:
        RequestInvalid: The file is damaged.
    """
    path = folder / REGISTERED_NAME
    try:
        nodes = json.loads(path.read_bytes())["nodes"]
        ordered = sorted(nodes, key=lambda node: (node["site"], node["name"]))
        return {int(node["node_id"]): str(node["site"]) for node in ordered}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise RequestInvalid(f"{path} cannot be read ({error!r}); restart the superlink") from None
