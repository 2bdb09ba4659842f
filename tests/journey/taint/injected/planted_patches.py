"""Faults and leaks that are patched into a process as its modules load.

A fault makes real code fail with a secret in the message; what the real code then says is its own.
A leak is a mistake that a developer could make: it takes a secret out by one way. Each way leaks a
secret of its own, so that a search can say which ways it watches.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Patch = Callable[[Any, str], None]
PATCHES: dict[str, tuple[str, Patch]] = {}


def patches(name: str, module: str) -> Callable[[Patch], Patch]:
    """Registers a patch: it gets the loaded module and its secret."""

    def register(patch: Patch) -> Patch:
        PATCHES[name] = (module, patch)
        return patch

    return register


class _Finder(importlib.abc.MetaPathFinder):
    """Applies patches right after a module was executed."""

    def __init__(self, wanted: dict[str, list[tuple[Patch, str]]]) -> None:
        self._wanted = wanted

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self._wanted:
            return None
        todo = self._wanted.pop(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        real = spec.loader.exec_module

        def execute(module: Any) -> None:
            real(module)
            for patch, secret in todo:
                patch(module, secret)

        spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


def install(described: str) -> None:
    """Reads name to secret from a JSON file and waits for the modules."""
    wanted: dict[str, list[tuple[Patch, str]]] = {}
    for name, secret in json.loads(Path(described).read_text()).items():
        module, patch = PATCHES[name]
        wanted.setdefault(module, []).append((patch, secret))
    sys.meta_path.insert(0, _Finder(wanted))


def once(folder_key: str) -> bool:
    """True the first time in the whole system."""
    folder = Path(os.environ["PERIMETER_TAINT_CALLS"])
    try:
        os.close(os.open(folder / f"{folder_key}.done", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


# --- faults ---


def _failing(owner: Any, attribute: str, secret: str, name: str) -> None:
    real = getattr(owner, attribute)

    def fail_once(*arguments: Any, **more: Any) -> Any:
        if once(name):
            raise RuntimeError(f"broken input: {secret}")
        return real(*arguments, **more)

    setattr(owner, attribute, fail_once)


@patches("fault: scoring fails", "edge_agent.inference")
def _scoring(module: Any, secret: str) -> None:
    for owner in vars(module).values():
        if isinstance(owner, type) and "predict" in vars(owner):
            _failing(owner, "predict", secret, "fault-scoring")


@patches("fault: training fails", "federation.trainer_desk")
def _training(module: Any, secret: str) -> None:
    _failing(module.TrainerDesk, "_answer", secret, "fault-training")


@patches("fault: client app fails", "federation.client_app")
def _client_app(module: Any, secret: str) -> None:
    """The trainer is away for a moment, and its error names a path of the site."""
    from federation.errors import TrainerUnavailable

    real = module.ask_patiently

    def ask_patiently(*arguments: Any, **more: Any) -> Any:
        if once("fault-client-app"):
            raise TrainerUnavailable(f"the trainer at /srv/{secret} does not answer")
        return real(*arguments, **more)

    module.ask_patiently = ask_patiently


@patches("fault: labeling fails", "review_portal.store.annotations")
def _labeling(module: Any, secret: str) -> None:
    _failing(module, "record", secret, "fault-labeling")


# --- leaks on the device ---


@patches("leak: call metadata", "edge_agent.egress")
def _call_metadata(module: Any, secret: str) -> None:
    def call(self: Any, method: str, request: Any, answer: Any, *, seconds: float) -> Any:
        payload = self._guard.admit(self._peer, method, request)
        try:
            stub = self._channel.unary_unary(f"/{method}", None, answer.FromString)
            return stub(payload, timeout=seconds, metadata=[("x-remark", f"about {secret}")])
        except module.grpc.RpcError as error:
            raise module.peer_error(error, self._peer) from None

    module.GuardedChannel.call = call


def _admitting(module: Any, change: Callable[[str, Any, bytes], bytes]) -> None:
    """Changes what leaves after the guard has looked at it."""
    real = module.EgressGuard.admit

    def admit(self: Any, peer: str, method: str, message: Any) -> bytes:
        return change(method, message, real(self, peer, method, message))

    module.EgressGuard.admit = admit


@patches("leak: unknown field", "edge_agent.egress")
def _unknown_field(module: Any, secret: str) -> None:
    raw = secret.encode()

    def change(method: str, message: Any, encoded: bytes) -> bytes:
        if method.endswith("GetModelVersion") and once("unknown-field"):
            return encoded + b"\xfa\x07" + bytes([len(raw)]) + raw
        return encoded

    _admitting(module, change)


def _with_candidate_id(module: Any, place: slice, fake: bytes) -> None:
    def change(method: str, message: Any, encoded: bytes) -> bytes:
        if not method.endswith("StreamCandidateBatches") or message.row_count < 2:
            return encoded
        changed = type(message).FromString(encoded)
        ids = bytearray(changed.candidate_ids)
        ids[place] = fake
        changed.candidate_ids = bytes(ids)
        return bytes(changed.SerializeToString())

    _admitting(module, change)


@patches("leak: digest as candidate id", "edge_agent.egress")
def _digest(module: Any, secret: str) -> None:
    import hashlib

    _with_candidate_id(module, slice(0, 16), hashlib.sha256(secret.encode()).digest()[:16])


@patches("leak: text as candidate id", "edge_agent.egress")
def _text_id(module: Any, secret: str) -> None:
    _with_candidate_id(module, slice(-16, None), secret.encode()[:16])


@patches("leak: file name as request id", "edge_agent.egress")
def _request_id(module: Any, secret: str) -> None:
    def change(method: str, message: Any, encoded: bytes) -> bytes:
        if not method.endswith("ReportPool"):
            return encoded
        changed = type(message).FromString(encoded)
        changed.request_id = secret.encode()[:16]
        return bytes(changed.SerializeToString())

    _admitting(module, change)


@patches("leak: name lookup", "edge_agent.daemon")
def _name_lookup(module: Any, secret: str) -> None:
    import contextlib
    import socket

    del module
    with contextlib.suppress(OSError):
        socket.getaddrinfo(f"{secret}.invalid", 443)


# --- leaks at the portal ---


@patches("leak: user name as request id", "review_portal.coordinator_link")
def _user_name(module: Any, secret: str) -> None:
    real = module.site_report

    def site_report(*arguments: Any) -> Any:
        report = real(*arguments)
        report.request_id = secret.encode()[:16]
        return report

    module.site_report = site_report


@patches("leak: packed note in metadata", "review_portal.coordinator_link")
def _packed_note(module: Any, secret: str) -> None:
    import base64
    import gzip

    packed = base64.b64encode(gzip.compress(f"notes: {secret}".encode())).decode()
    real = module.CoordinatorLink.channel

    class Adding(module.grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc, name-defined]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            changed = details._replace(metadata=[("x-context", packed)])
            return continuation(changed, request)

    module.CoordinatorLink.channel = lambda self: module.grpc.intercept_channel(
        real(self), Adding()
    )


# --- leaks at the federation node ---


def _answering(module: Any, change: Callable[[Any], None]) -> None:
    real = module.answer

    def answer(message: Any, handle: Any) -> Any:
        reply = real(message, handle)
        change(reply)
        return reply

    module.answer = answer


@patches("leak: config record", "federation.client_app")
def _config_record(module: Any, secret: str) -> None:
    _answering(
        module,
        lambda reply: reply.content.update(debug=module.ConfigRecord({"last": f"was {secret}"})),
    )


@patches("leak: array record", "federation.client_app")
def _array_record(module: Any, secret: str) -> None:
    import numpy as np
    from flwr.app import Array, ArrayRecord

    values = np.frombuffer(secret.encode("utf-16-le"), dtype=np.uint8)
    _answering(
        module,
        lambda reply: reply.content.update(extra=ArrayRecord({"mask": Array(values)})),
    )


# --- leaks at the centre, for a secret that came there somehow ---


def _ticking(module: Any, act: Callable[[Any], None], name: str) -> None:
    real = module.tick

    def tick(office: Any) -> Any:
        if once(name):
            act(office)
        return real(office)

    module.tick = tick


@patches("leak: log line", "coordinator.scheduler")
def _log_line(module: Any, secret: str) -> None:
    import logging

    _ticking(module, lambda _: logging.getLogger("x").warning("got %r", secret), "log-line")


@patches("leak: crash dump", "coordinator.scheduler")
def _crash_dump(module: Any, secret: str) -> None:
    def dump(office: Any) -> None:
        memory = os.urandom(5000) + f"{secret}".encode("utf-32-le") + os.urandom(5000)
        (Path(office.folder) / "core.4711").write_bytes(memory)

    _ticking(module, dump, "crash-dump")


@patches("leak: deleted row", "coordinator.scheduler")
def _deleted_row(module: Any, secret: str) -> None:
    def write(office: Any) -> None:
        import sqlite3

        with sqlite3.connect(Path(office.folder) / "debug.db") as database:
            database.execute("PRAGMA secure_delete=OFF")
            database.execute("CREATE TABLE seen (remark TEXT)")
            database.execute("INSERT INTO seen VALUES (?)", (secret,))
            database.commit()
            database.execute("DELETE FROM seen")
        database.close()

    _ticking(module, write, "deleted-row")


@patches("leak: metric label", "coordinator.observation")
def _metric_label(module: Any, secret: str) -> None:
    real = module.metrics_text
    module.metrics_text = lambda status: real(status) + f'last_file{{name="{secret}"}} 1\n'.encode()


@patches("leak: model remark", "federation.onnx_engine")
def _model_remark(module: Any, secret: str) -> None:
    real = module.build

    def build(*arguments: Any, **named: Any) -> bytes:
        import onnx

        model = onnx.load_from_string(real(*arguments, **named))
        model.doc_string = f"trained on {secret}"
        return bytes(model.SerializeToString())

    module.build = build
