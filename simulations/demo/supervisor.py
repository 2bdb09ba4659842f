"""Starts, watches, restarts and stops every process of the demo.

Each process leads a process group of its own, so that its children (Flower's app processes, the
agent's masking child) end with it. A guard process holds the list of groups and a pipe to this
one: when this process ends in any way, `kill -9` included, the pipe closes and the guard ends the
groups.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from simulations.demo.errors import CommandFailed, DemoTimeout, ProcessEnded

STOP_SECONDS = 8.0
LOG_TAIL_CHARACTERS = 2000
GUARD_SOURCE = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    sign, number = line[0], int(line[1:])
    (groups.add if sign == "+" else groups.discard)(number)
for wait, number in ((0, signal.SIGTERM), (3, signal.SIGKILL)):
    if groups:
        time.sleep(wait)
    for group in list(groups):
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            groups.discard(group)
"""


@dataclass(frozen=True)
class ProcessSpec:
    """How to start one process.

    Attributes:
        name: Unique name, used for the log file and in messages.
        command: Argument list.
        log: File that takes standard output and error, appended.
        environment: Added to the inherited environment.
        directory: Working directory, None for the current one.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None


class Supervisor:
    """Owner of the demo's processes; a context manager that leaves none behind."""

    def __init__(self) -> None:
        self._specs: dict[str, ProcessSpec] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._restart_counts: dict[str, int] = {}
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", GUARD_SOURCE],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the processes that were started and not stopped."""
        return tuple(self._running)

    @property
    def restart_counts(self) -> Mapping[str, int]:
        """How often each process was started again."""
        return dict(self._restart_counts)

    def start(self, spec: ProcessSpec) -> int:
        """Starts a process and returns its pid."""
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            process = subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **spec.environment},
                cwd=spec.directory,
                start_new_session=True,
            )
        self._specs[spec.name] = spec
        self._running[spec.name] = process
        self._tell_guard("+", process.pid)
        return process.pid

    def pid(self, name: str) -> int:
        """Returns the pid of a running process."""
        return self._running[name].pid

    def alive(self, name: str) -> bool:
        """Tells whether the process runs."""
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def kill(self, name: str) -> None:
        """Ends a process at once with SIGKILL, as a power cut would; its children too."""
        process = self._running[name]
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()

    def restart(self, name: str) -> int:
        """Starts an ended process again with the same command and returns the new pid."""
        process = self._running[name]
        if process.poll() is None:
            raise ProcessEnded(f"{name} still runs; end it before it starts again")
        _signal_group(process.pid, signal.SIGKILL)
        self._tell_guard("-", process.pid)
        self._restart_counts[name] = self._restart_counts.get(name, 0) + 1
        return self.start(self._specs[name])

    def check(self) -> None:
        """Raises `ProcessEnded` with the end of the log when a process ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                spec = self._specs[name]
                raise ProcessEnded(
                    f"{name} ended with code {process.returncode}; log {spec.log}:\n"
                    + log_tail(spec.log)
                )

    def stop(self, *names: str, seconds: float = STOP_SECONDS) -> None:
        """Asks the named processes to end, waits together, then kills what is left."""
        chosen = {name: self._running[name] for name in names if name in self._running}
        for process in chosen.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for name, process in chosen.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
            self._tell_guard("-", process.pid)
            del self._running[name]

    def stop_all(self, *, seconds: float = STOP_SECONDS) -> None:
        """Stops every process, the last started first."""
        self.stop(*reversed(self._running), seconds=seconds)

    def _tell_guard(self, sign: str, pid: int) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(f"{sign}{pid}\n")
                self._guard.stdin.flush()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def log_tail(log: Path) -> str:
    """Returns the last lines of a log file, empty when there is none."""
    if not log.exists():
        return ""
    return log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]


def run_command(
    command: Sequence[str], *, log: Path, timeout_seconds: float = 120.0, stdin_text: str = ""
) -> str:
    """Runs a set-up command to its end and returns its standard output.

    Args:
        command: Argument list.
        log: Gets the command line and standard error, appended.
        timeout_seconds: Longest time it may take.
        stdin_text: Written to its standard input (passwords never go on a command line).

    Raises:
        CommandFailed: It ended with another code than 0, or took too long.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            input=stdin_text,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(
            f"`{' '.join(command)}` took longer than {timeout_seconds:.0f} s"
        ) from None
    with log.open("a") as lines:
        lines.write(f"$ {' '.join(command[:4])} -> {done.returncode}\n{done.stderr}")
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-LOG_TAIL_CHARACTERS:]
        raise CommandFailed(f"`{' '.join(command)}` ended with {done.returncode}:\n{said}")
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Returns loopback TCP ports that were free just now, all different.

    They lie below the range that the kernel gives to outgoing connections: minutes may pass before
    one is bound, or bound again after a kill, and it must not have been given away by then.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(15_000, 32_000), 500):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise DemoTimeout("no free ports between 15000 and 32000; end some other programs")


def wait_for_port(port: int, *, supervisor: Supervisor, timeout_seconds: float = 180.0) -> None:
    """Waits until something listens on a loopback port.

    Raises:
        DemoTimeout: Nothing did in time.
        ProcessEnded: A process ended while waiting.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        supervisor.check()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise DemoTimeout(f"nothing listens on port {port} after {timeout_seconds:.0f} s")
