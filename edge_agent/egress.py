"""The one door to the coordinator: every message is checked, re-encoded, compared, recorded, sent.

No other module opens a channel to the coordinator. What passes here is what the ledger holds.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from edge_agent.egress_ledger import EgressLedger
from edge_agent.egress_rules import check_message
from edge_agent.errors import EgressRefused, PeerError, PeerRefused, PeerUnavailable
from edge_agent.padding import padded

_MESSAGE_BYTES_MAX = 16 << 20
_REASON_KEY = "perimeter-reason"
_REPEATABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)


def encode_checked(message: Message) -> bytes:
    """Returns the bytes of a message that may leave.

    The bytes are read back and written again; only a message whose every byte is accounted for by
    a known field survives that unchanged.

    Raises:
        EgressRefused: The message breaks its rules.
    """
    check_message(message)
    encoded = message.SerializeToString(deterministic=True)
    again = type(message).FromString(encoded)
    check_message(again)
    if again != message or again.SerializeToString(deterministic=True) != encoded:
        raise EgressRefused(f"{message.DESCRIPTOR.full_name} does not survive re-encoding")
    return encoded


class EgressGuard:
    """Checks and records messages on their way out.

    Args:
        ledger: Where they are recorded.
        clock: Seconds since 1970.
    """

    def __init__(self, ledger: EgressLedger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock

    def admit(self, peer: str, method: str, message: Message) -> bytes:
        """Returns the bytes to send, at their size class, which are in the ledger now.

        Raises:
            EgressRefused: The message may not leave.
            StorageFull: The ledger has no space.
        """
        encoded = encode_checked(padded(message))
        self._ledger.append(peer, method, encoded, at=int(self._clock()))
        return encoded


@dataclass(frozen=True)
class Address:
    """Where a channel leads.

    Attributes:
        peer: `coordinator` or `enrollment`.
        target: `host:port`.
        credentials: TLS settings.
    """

    peer: str
    target: str
    credentials: grpc.ChannelCredentials


class GuardedChannel:
    """A channel to the coordinator whose outgoing messages all pass the guard."""

    def __init__(self, address: Address, guard: EgressGuard) -> None:
        self._peer = address.peer
        self._guard = guard
        self._channel = grpc.secure_channel(
            address.target,
            address.credentials,
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.max_reconnect_backoff_ms", 5_000),
                ("grpc.enable_retries", 0),
            ],
        )
        self.answer_count = 0

    def call(self, method: str, request: Message, answer: type[Message], *, seconds: float) -> Any:
        """Sends one message and returns the answer.

        Raises:
            PeerError: The call failed.
            EgressRefused: The message may not leave.
        """
        payload = self._guard.admit(self._peer, method, request)
        try:
            answered = self._channel.unary_unary(f"/{method}", None, answer.FromString)(
                payload, timeout=seconds
            )
        except grpc.RpcError as error:
            raise peer_error(error, self._peer) from None
        self.answer_count += 1
        return answered

    def begin(self, method: str, request: Message, answer: type[Message], *, seconds: float) -> Any:
        """Sends one message and returns a gRPC future of the answer."""
        payload = self._guard.admit(self._peer, method, request)
        return self._channel.unary_unary(f"/{method}", None, answer.FromString).future(
            payload, timeout=seconds
        )

    def receive(
        self, method: str, request: Message, answer: type[Message], *, seconds: float
    ) -> Iterator[Any]:
        """Sends one message and yields a stream of answers."""
        payload = self._guard.admit(self._peer, method, request)
        try:
            yield from self._channel.unary_stream(f"/{method}", None, answer.FromString)(
                payload, timeout=seconds
            )
        except grpc.RpcError as error:
            raise peer_error(error, self._peer) from None

    def exchange(self, method: str, answer: type[Message], *, seconds: float) -> Exchange:
        """Opens a stream in both directions."""
        return Exchange(
            self._channel.stream_stream(f"/{method}", None, answer.FromString),
            admit=lambda request: self._guard.admit(self._peer, method, request),
            peer=self._peer,
            seconds=seconds,
        )

    def close(self) -> None:
        """Ends the channel and every call on it."""
        self._channel.close()


class Exchange:
    """A stream of messages, each answered before the next is sent."""

    def __init__(
        self,
        stream: Any,
        *,
        admit: Callable[[Message], bytes],
        peer: str,
        seconds: float,
    ) -> None:
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._admit = admit
        self._peer = peer
        self._call = stream(iter(self._outgoing.get, None), timeout=seconds)

    def send(self, request: Message) -> Any:
        """Sends one message and returns its answer.

        Raises:
            PeerError: The stream broke before the answer.
            EgressRefused: The message may not leave.
        """
        self._outgoing.put(self._admit(request))
        try:
            return next(self._call)
        except StopIteration:
            raise PeerUnavailable(
                "the coordinator ended the stream", reason="STREAM_ENDED"
            ) from None
        except grpc.RpcError as error:
            raise peer_error(error, self._peer) from None

    def close(self) -> None:
        """Ends the stream."""
        self._outgoing.put(None)
        self._call.cancel()


def peer_error(error: grpc.RpcError, peer: str) -> PeerError:
    """Turns a gRPC failure into an error of the agent, with the peer's stable reason."""
    code = error.code()
    reason = code.name
    for entry in error.trailing_metadata() or ():
        if entry.key == _REASON_KEY:
            reason = str(entry.value)
    message = f"{peer} answered {reason}: {error.details()}"
    if code in _REPEATABLE:
        return PeerUnavailable(message, reason=reason)
    return PeerRefused(message, reason=reason)
