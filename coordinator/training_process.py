"""Training as a child process that outlives the coordinator.

The child inherits an open file on which an exclusive lock is held. The lock ends with the child
and with nothing else, so that a coordinator that was killed and started again knows whether its
training still runs without trusting any process id. What the child says is read from its files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOCK_FILE = "child.lock"
LOG_FILE = "child.log"
STATE_FILE = "state.json"
STOP_SECONDS = 10.0
# Whatever the child loads must not call home.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
POLL_SECONDS = 0.1

# Children of this process, so that their exit is collected; a restarted coordinator has none.
_children: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Progress:
    """What `state.json` says; `state` is empty when there is no such file yet."""

    state: str = ""
    round: int = 0
    rounds: int = 0
    error: str = ""


def start(folder: Path, command: Sequence[str]) -> bool:
    """Starts a child in a run's folder unless one is running there.

    Args:
        folder: The run's folder; the child's output goes to `child.log` in it.
        command: Program and arguments.

    Returns:
        False when a child of this or of an earlier coordinator still runs.

    Raises:
        OSError: The program cannot be started.
    """
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / LOG_FILE).open("ab") as log:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                env={**os.environ, **QUIET},
                # A signal to the coordinator's group, such as Ctrl-C, must not end a training.
                start_new_session=True,
            )
        _children[folder] = child
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(child.pid).encode("ascii"), 0)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def is_running(folder: Path) -> bool:
    """Whether a child holds the run's lock."""
    child = _children.get(folder)
    if child is not None and child.poll() is not None:
        del _children[folder]
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def stop(folder: Path) -> None:
    """Ends a run's child, also one that an earlier coordinator started; its run can be resumed."""
    deadline = time.monotonic() + STOP_SECONDS
    while is_running(folder):
        # The pid is believed only while the lock is held, so it cannot name another program.
        content = (folder / LOCK_FILE).read_text(encoding="ascii")
        forced = time.monotonic() > deadline
        if not content:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(content), signal.SIGKILL if forced else signal.SIGTERM)
        time.sleep(POLL_SECONDS)


def read_progress(folder: Path) -> Progress:
    """Reads `state.json`; a missing or unreadable file counts as no progress."""
    try:
        content = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        return Progress(
            state=str(content.get("state", "")),
            round=int(content.get("round", 0) or 0),
            rounds=int(content.get("rounds", 0) or 0),
            error=str(content.get("error") or ""),
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return Progress()
