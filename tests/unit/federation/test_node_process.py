"""A site's node sends each message's own answer, also after the SuperLink ended a run midway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flwr.supernode.start_client_internal as flower_node
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from federation.node_process import UntilAnswered

ENDED_RUN, NEXT_RUN = 1, 2
Pull, Push = Callable[..., int | None], Callable[..., None]


@pytest.fixture(autouse=True)
def centre(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are written as the centre's server app writes them."""
    for name, value in {"_run_id": ENDED_RUN, "_task_id": 1, "_node_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, name, value)


@dataclass
class Node:
    """Flower's own state of a node between a SuperLink that ends the first run and an executor.

    The executor answers late: each answer comes only when the node asks for the next one.
    """

    pull: Pull
    push: Push
    store: ObjectStore = field(default_factory=InMemoryObjectStore)
    inbox: list[Message] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = InMemoryNodeState(self.store)
        self.state.set_node_id(7)
        self._waiting = self.state.get_messages_legacy
        vars(self.state)["get_messages_legacy"] = self._messages
        for run_id in (ENDED_RUN, NEXT_RUN):
            self.state.store_run(Run.create_empty(run_id))

    def ask(self, run_id: int, text: str) -> str:
        message = Message(RecordDict({"ask": ConfigRecord({"text": text})}), 7, "train")
        message.metadata.__dict__["_run_id"] = run_id
        message.metadata.__dict__["_message_id"] = message.object_id
        self.inbox.append(message)
        self.answers.append(Message(message.content, reply_to=message))
        return str(message.object_id)

    def step(self) -> None:
        """One turn of the node's loop."""
        run_id = self.pull(
            state=self.state,
            object_store=self.store,
            node_config={},
            receive=self._receive,
            get_run=None,
            get_fab=None,
            pull_object=self._pull_object,
            confirm_message_received=self._confirm,
            trusted_entities=None,
        )
        if run_id is not None:
            self.push(
                state=self.state,
                object_store=self.store,
                send=self._send,
                push_object=lambda *_: None,
            )

    def _receive(self) -> tuple[Message, ObjectTree] | None:
        if not self.inbox:
            return None
        self._content = self.inbox.pop(0)
        return self._content, get_object_tree(self._content)

    def _pull_object(self, run_id: int, object_id: str) -> bytes:
        del run_id
        return get_all_nested_objects(self._content)[object_id].deflate()

    def _confirm(self, run_id: int, message_id: str) -> None:
        del message_id
        if run_id == ENDED_RUN:
            raise RunNotRunningException

    def _messages(self, **filters: Any) -> Any:
        if self.answers:
            flower_node._insert_message(self.answers.pop(0), self.state, self.store)
        return self._waiting(**filters)

    def _send(self, message: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
        del tree, seconds
        self.sent.append(message.metadata.reply_to_message_id)
        if message.metadata.run_id == ENDED_RUN:
            raise RunNotRunningException
        return set(), "session"


def functions(*, own: bool) -> tuple[Pull, Push]:
    pull, push = flower_node._pull_and_store_message, flower_node._push_messages
    until = UntilAnswered(pull, push)
    return (until.pull, until.push) if own else (pull, push)


def test_a_run_that_ended_midway_leaves_no_answer_behind() -> None:
    node = Node(*functions(own=True))
    old, new = node.ask(ENDED_RUN, "old"), node.ask(NEXT_RUN, "new")
    for _ in range(4):
        node.step()
    assert node.sent == [old, new]
    again = node.ask(NEXT_RUN, "again")
    node.step()
    assert node.sent[2:] == [again]


def test_flower_alone_stays_one_answer_behind() -> None:
    """The reason for `UntilAnswered`: once this fails, Flower needs it no longer."""
    node = Node(*functions(own=False))
    old, new = node.ask(ENDED_RUN, "old"), node.ask(NEXT_RUN, "new")
    for _ in range(4):
        node.step()
    assert node.sent == [old]
    node.ask(NEXT_RUN, "again")
    node.step()
    assert node.sent == [old, new]


@pytest.mark.parametrize("own", [True, False])
def test_messages_of_a_run_are_answered_one_by_one(own: bool) -> None:
    node = Node(*functions(own=own))
    asked = [node.ask(NEXT_RUN, f"ask {number}") for number in range(3)]
    for _ in range(4):
        node.step()
    assert node.sent == asked
