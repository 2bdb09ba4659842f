"""The Flower client app: hands each message to the site's trainer and the answer back.

It runs in a process of its own for every message, so it imports no torch and no numpy of its own
accord, and it arrives over the network, so it holds no code that touches a site's data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from federation.errors import TrainerUnavailable
from federation.trainer_socket import ask_patiently

RECORD = "perimeter"
FRAME = "frame"
TRAINER_PATIENCE_SECONDS = 45.0
Handle = Callable[[bytes], bytes]


def answer(message: Message, handle: Handle) -> Message:
    """Returns the reply to a message: the handler's frame for the message's frame."""
    frame = message.content[RECORD][FRAME]
    if not isinstance(frame, bytes):
        raise TypeError("the message holds no frame")
    return Message(RecordDict({RECORD: ConfigRecord({FRAME: handle(frame)})}), reply_to=message)


def make_app(handle_of: Callable[[Context], Handle]) -> ClientApp:
    """Returns a client app that answers train and evaluate messages with a site's handler."""
    made = ClientApp()

    def respond(message: Message, context: Context) -> Message:
        return answer(message, handle_of(context))

    made.train()(respond)
    made.evaluate()(respond)
    return made


def _socket_handle(context: Context) -> Handle:
    path = Path(str(context.node_config["trainer-socket"]))

    def handle(frame: bytes) -> bytes:
        try:
            return ask_patiently(path, frame, patience_seconds=TRAINER_PATIENCE_SECONDS)
        except TrainerUnavailable:
            # The error's text would travel to the centre, and it names a path of the site.
            raise RuntimeError("the site's trainer does not answer") from None

    return handle


app = make_app(_socket_handle)
