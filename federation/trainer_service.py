"""The site's long-lived trainer behind a Unix socket that only its own user can open.

One connection carries one command and its answer. Commands are answered one after the other: a
site has one processor for training, and the next round waits for the last in any case.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from federation import dataset
from federation.dataset import SiteData
from federation.errors import FrameInvalid
from federation.networks import NetworkSpec
from federation.settings import TrainerSettings
from federation.trainer_desk import DeskLimits, TrainerDesk
from federation.trainer_socket import SOCKET_PATH_BYTES_MAX, receive
from federation.training import warm_up

READ_TIMEOUT_SECONDS = 120.0
_BACKLOG = 8
_log = logging.getLogger(__name__)


def desk_of(settings: TrainerSettings) -> TrainerDesk:
    """Returns a desk on the label store of the settings."""
    folder = settings.label_store

    def load(campaign_id: bytes, spec: NetworkSpec) -> SiteData:
        wanted = dataset.Wanted(spec.class_count, settings.unlabelled_max)
        return dataset.load(folder, campaign_id, spec.features, wanted)

    limits = DeskLimits(
        settings.group_count_min,
        settings.device,
        settings.thread_count,
        settings.survey_samples_min,
    )
    return TrainerDesk(load, lambda: store_stamp(folder), limits)


def store_stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Returns name, size and time of change of the label store's files: changes when labels do."""
    found = []
    for path in sorted([*folder.glob("*.db"), *folder.glob("*.db-wal")]):
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            # Opening a store for reading leaves an empty write-ahead log behind: that is no change.
            if state.st_size:
                found.append((path.name, state.st_size, state.st_mtime_ns))
    return tuple(found)


def serve(settings: TrainerSettings) -> None:
    """Answers commands until SIGTERM or SIGINT. The socket's file has mode 0600.

    Raises:
        OSError: The socket cannot be bound; the message names the path.
    """
    desk = desk_of(settings)
    with _stopping() as stop, _listening(settings.socket) as listener:
        _log.info("trainer listens on %s", settings.socket)
        if not (settings.label_store / "labels.db").exists():
            _log.warning("no label store in %s: is it the portal's folder?", settings.label_store)
        warm_up(settings.device)
        while not stop:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                _answer(desk, connection)


def _answer(desk: TrainerDesk, connection: socket.socket) -> None:
    connection.settimeout(READ_TIMEOUT_SECONDS)
    try:
        connection.sendall(desk.handle(receive(connection)))
    except (FrameInvalid, OSError) as error:
        _log.warning("a connection ended early: %s", error)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise OSError(f"the socket's path is too long for the system: {path}; choose a shorter one")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(previous)
    listener.listen(_BACKLOG)
    listener.settimeout(0.5)
    try:
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT in the list that it yields."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
