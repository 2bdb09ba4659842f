"""Runs first in every process of a taint test: debug logging, a list of the network calls of
Python code, and the faults and leaks that a test asks for.

Nothing happens in a process that was not started by the taint test.
"""

import os


def _log_at_debug() -> None:
    import logging

    real = logging.basicConfig

    def at_debug(**settings: object) -> None:
        real(**{**settings, "level": logging.DEBUG})  # type: ignore[arg-type]

    logging.basicConfig = at_debug


def _list_network_calls(folder: str) -> None:
    import sys
    from pathlib import Path

    Path(folder).mkdir(parents=True, exist_ok=True)
    watched = frozenset(
        {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
    )

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in watched:
            said = f"{event} {arguments[1:] if event[7:] in ('connect', 'sendto') else arguments}\n"
            handle = os.open(
                f"{folder}/{os.getpid()}.calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT
            )
            os.write(handle, said.encode())
            os.close(handle)

    sys.addaudithook(note)


if os.environ.get("PERIMETER_TAINT_CALLS"):
    _log_at_debug()
    _list_network_calls(os.environ["PERIMETER_TAINT_CALLS"])
    if os.environ.get("PERIMETER_TAINT_PATCHES"):
        import planted_patches

        planted_patches.install(os.environ["PERIMETER_TAINT_PATCHES"])
