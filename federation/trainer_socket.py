"""The caller's side of the trainer's socket: bytes in, bytes out. Standard library only.

The Flower client app imports this module in a process that lives for one message, so it must not
import torch, and need not import numpy.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from federation.errors import FrameInvalid, TrainerUnavailable

SOCKET_PATH_BYTES_MAX = 107
"""Longest path of a Unix socket on Linux."""
FRAME_BYTES_MAX = (1 << 30) + (1 << 20) + 16
ANSWER_TIMEOUT_SECONDS = 3600.0
_PREFIX = struct.Struct("<4sIQ")
_CHUNK = 1 << 20
_PAUSE_SECONDS = 0.25


def receive(connection: socket.socket) -> bytes:
    """Reads one frame from a connection.

    Raises:
        FrameInvalid: The peer announces too much, or closes before the end.
    """
    prefix = _exactly(connection, _PREFIX.size)
    _, header_length, body_length = _PREFIX.unpack(prefix)
    if _PREFIX.size + header_length + body_length > FRAME_BYTES_MAX:
        raise FrameInvalid("a peer announces a message that is too large")
    return prefix + _exactly(connection, header_length + body_length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        chunk = connection.recv(min(_CHUNK, count - len(parts)))
        if not chunk:
            raise FrameInvalid("the peer closed the connection before the message's end")
        parts += chunk
    return bytes(parts)


def ask(path: Path, frame: bytes, *, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> bytes:
    """Sends one frame to the trainer and returns its answer.

    Raises:
        TrainerUnavailable: Nothing listens there, or the trainer ended before it answered.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_seconds)
            connection.connect(os.fspath(path))
            connection.sendall(frame)
            return receive(connection)
    except (OSError, FrameInvalid) as error:
        raise TrainerUnavailable(
            f"the trainer at {path} does not answer ({error}); "
            "start it with `perimeter-federation trainer`"
        ) from error


def ask_patiently(
    path: Path,
    frame: bytes,
    *,
    patience_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """Like `ask`, but asks again while the trainer restarts.

    A command changes nothing at the site, so that asking twice is safe.

    Raises:
        TrainerUnavailable: It did not answer within the patience.
    """
    end = clock() + patience_seconds
    while True:
        try:
            return ask(path, frame)
        except TrainerUnavailable:
            if clock() >= end:
                raise
        time.sleep(_PAUSE_SECONDS)
