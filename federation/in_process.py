"""Flower's grid without Flower's processes: the same server loop, client app and trainers, in one.

    grid = InProcessGrid(client_apps)                      # node id -> client app
    transport = FlowerTransport(grid, lambda: {1: "north", 2: "south"})
    train_run(request, transport)

`simulate` joins the parts for a set of site trainers. It tests no serialisation limits, time-outs
or isolation of processes; the deployed journey does. Two private attributes of flwr are set here
and nowhere else.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from federation.central import train_run
from federation.client_app import Handle, make_app
from federation.dataset import SiteData
from federation.flower_transport import FlowerTransport
from federation.requests import TrainingRequest
from federation.trainer_desk import DeskLimits, TrainerDesk

RUN_ID = 1
_RAISED = 7


class InProcessGrid(Grid):
    """Delivers each message to its node's client app at once, one after the other.

    Args:
        apps: Client app of each node id.
    """

    def __init__(self, apps: Mapping[int, ClientApp]) -> None:
        self._apps = dict(apps)
        self._contexts = {node_id: _context(node_id) for node_id in apps}
        self._replies: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN_ID, 1, 0

    @property
    def run(self) -> Any:
        """There is no run record in process."""
        return None

    def set_run(self, run: Any) -> None:
        """Does nothing: there is no run record in process."""

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Deprecated in Flower; `Message` is built directly."""
        return Message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Node ids, all online."""
        return list(self._apps)

    def get_nodes(self) -> Iterable[Any]:
        """There are no node records in process."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Runs each message to its end and keeps the reply."""
        ids = []
        for message in messages:
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            self._replies[message_id] = self._run(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns the replies that were not taken yet."""
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Runs the messages and returns their replies."""
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def _run(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        try:
            return self._apps[node_id](message, self._contexts[node_id])
        except Exception as error:  # noqa: BLE001 - a site's failure is a failed reply, as deployed
            return Message(Error(_RAISED, type(error).__name__), reply_to=message)


def _context(node_id: int) -> Context:
    return Context(
        run_id=RUN_ID, node_id=node_id, node_config={}, state=RecordDict(), run_config={}
    )


def desk_for(data: SiteData, limits: DeskLimits | None = None) -> TrainerDesk:
    """Returns a trainer's desk on examples in memory."""
    return TrainerDesk(lambda *_: data, lambda: None, limits)


def transport_for(handles: Mapping[str, Handle]) -> FlowerTransport:
    """Returns a transport that reaches sites by calling their handlers through client apps."""
    names = sorted(handles)
    apps = {i + 1: make_app(_constant(handles[site])) for i, site in enumerate(names)}
    sites = {i + 1: site for i, site in enumerate(names)}
    return FlowerTransport(InProcessGrid(apps), lambda: sites, pause=lambda _: None)


def _constant(handle: Handle) -> Callable[[Context], Handle]:
    return lambda _: handle


def simulate(request: TrainingRequest, sites: Mapping[str, SiteData]) -> None:
    """Runs a whole training run on sites in memory; files land in the request's folder."""
    train_run(request, transport_for({name: desk_for(d).handle for name, d in sites.items()}))
