"""The masking process: reads frames, answers frames, touches nothing else.

It starts with a limit on memory, without torch (spaCy would import it for nothing) and with every
route to the network shut, so a detector that wants to fetch something fails instead.
"""

import os
import resource
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

from edge_agent.masking.frames import FrameError, answer_to_json, pack_frame, read_frame

_NETWORK_EVENTS = frozenset(
    {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
)
_HEAVY_MODULES = ("torch", "tensorflow", "cupy", "mxnet", "jax")


def main() -> int:
    """Serve one parent until it closes the pipe; 0 then, 1 when the policy cannot be run."""
    source, target = _own_pipes()
    opening = read_frame(source.read)
    if opening is None:
        return 0
    shut_network()
    limit_memory(int(opening["policy"]["limits"]["memory_mb"]))
    if opening["policy"]["detector"] == "builtin":
        shut_modules()
    try:
        masker = _start(opening["policy"])
    except Exception as error:  # noqa: BLE001
        # The reason goes to the parent; a traceback could carry a path or a term of a site list.
        _send(target, {"refused": type(error).__name__, "detail": str(error)})
        return 1
    _send(target, {"ready": masker.digest.hex()})
    return _serve(masker, source.read, target)


def shut_network() -> None:
    """Make every look-up and connection in this process raise."""

    def refuse(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _NETWORK_EVENTS:
            raise PermissionError("masking has no route out")

    sys.addaudithook(refuse)


def limit_memory(memory_mb: int) -> None:
    """Limit the address space of this process, in MiB."""
    size = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def shut_modules() -> None:
    """Make heavy libraries unimportable; spaCy imports torch wherever it finds it."""
    for name in _HEAVY_MODULES:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]
    if "spacy" not in sys.modules:
        # Importing spaCy loads its command line, with a web client, a third of its time and memory.
        for name in ("spacy.cli", "spacy.cli.info"):
            stand_in = ModuleType(name)
            stand_in.__dict__.update(info=_refuse, download=_refuse)
            sys.modules[name] = stand_in


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError("masking downloads nothing")


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take the pipes away from print and logging, which would break the framing."""
    source = os.fdopen(os.dup(0), "rb")
    target = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return source, target


def _start(policy: dict[str, Any]) -> Any:
    from edge_agent.masking.canaries import failed_canaries
    from edge_agent.masking.errors import MaskingError
    from edge_agent.masking.pipeline import BuiltinMasker
    from edge_agent.masking.policy import policy_from_json

    masker = BuiltinMasker(policy_from_json(policy))
    if failed := failed_canaries(masker):
        raise MaskingError(f"canaries not masked: {', '.join(failed)}")
    return masker


def _serve(masker: Any, read: Callable[[int], bytes], target: BinaryIO) -> int:
    while True:
        try:
            request = read_frame(read)
        except FrameError:
            return 1
        if request is None:
            return 0
        answers = masker.mask_many(request["texts"], language=request["language"])
        _send(target, {"answers": [answer_to_json(answer) for answer in answers]})


def _send(target: BinaryIO, value: Any) -> None:
    target.write(pack_frame(value))
    target.flush()
