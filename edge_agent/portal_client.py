"""Delivery of masked items, and answers to unmaskings, to the own site's portal over mutual TLS.

The channel accepts one name only: that of a portal of the device's own site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import grpc
from perimeter.v1 import item_pb2, item_pb2_grpc

from edge_agent.egress import peer_error
from edge_agent.errors import PeerUnavailable
from edge_agent.identity import Identity

_MESSAGE_BYTES_MAX = 16 << 20


class PortalClient:
    """The portal's intake.

    Args:
        identity: Names the device and its site.
        target: `host:port` of the intake; empty when the device has no portal yet.
        call_seconds: Deadline of a delivery.
    """

    def __init__(self, identity: Identity, target: str, *, call_seconds: float = 20) -> None:
        self._target = target
        self._seconds = call_seconds
        self.answer_count = 0
        self._channel = self._opened(identity)

    def _opened(self, identity: Identity) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(
            identity.authority_pem, identity.key_pem, identity.certificate_pem
        )
        return grpc.secure_channel(
            self._target or "localhost:1",
            credentials,
            options=[
                ("grpc.ssl_target_name_override", identity.portal_host),
                ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
                ("grpc.max_reconnect_backoff_ms", 5_000),
                ("grpc.enable_retries", 0),
            ],
        )

    def rebuild(self, identity: Identity) -> None:
        """Opens a channel with a renewed certificate and ends the old one."""
        old, self._channel = self._channel, self._opened(identity)
        old.close()

    def close(self) -> None:
        """Ends the channel."""
        self._channel.close()

    @property
    def is_configured(self) -> bool:
        """Whether the device has a portal."""
        return bool(self._target)

    def record_egress(self, lines: Sequence[bytes]) -> tuple[int, bytes]:
        """Hands over lines of the egress ledger; without lines it only asks.

        Returns:
            Position and digest (32 bytes) of the newest record that the portal holds.

        Raises:
            PeerError: The portal cannot be reached, or refused the lines.
        """
        answer = self._call("RecordEgress", item_pb2.RecordEgressRequest(lines=lines))
        return int(answer.last_sequence), bytes(answer.last_digest)

    def unmaskings(self) -> list[item_pb2.Unmasking]:
        """Returns what people at the portal were allowed to see behind a placeholder.

        Raises:
            PeerError: The portal cannot be reached, or refused.
        """
        answer = self._call("ListUnmaskings", item_pb2.ListUnmaskingsRequest())
        return list(answer.unmaskings)

    def answer_unmasking(self, request: item_pb2.AnswerUnmaskingRequest) -> bool:
        """Answers one of them; False when nobody waits for it any more.

        Raises:
            PeerError: The portal cannot be reached, or refused.
        """
        return bool(self._call("AnswerUnmasking", request).taken)

    def deliver(self, item: item_pb2.Item) -> bool:
        """Delivers an item; True when the portal had it before.

        The request id comes from the grant, so that every repeat is the same request.

        Raises:
            PeerError: The portal cannot be reached, or refused the item.
        """
        request_id = hashlib.sha256(b"perimeter-item\0" + item.grant.grant_id).digest()[:16]
        request = item_pb2.DeliverItemRequest(request_id=request_id, item=item)
        return bool(self._call("DeliverItem", request).duplicate)

    def _call(self, name: str, request: Any) -> Any:
        if not self._target:
            raise PeerUnavailable(
                "no portal is configured; set `portal` to its host:port", reason="NO_PORTAL"
            )
        stub = item_pb2_grpc.IntakeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        try:
            answer = getattr(stub, name)(request, timeout=self._seconds)
        except grpc.RpcError as error:
            raise peer_error(error, "portal") from None
        self.answer_count += 1
        return answer
