"""The portal's one way out: every message is checked, re-encoded, compared, recorded, then sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from review_portal.egress.archive import EgressArchive
from review_portal.egress.padding import padded
from review_portal.egress.record import Outgoing
from review_portal.egress.rules import encode_checked


class EgressGuard:
    """Checks, records and sends.

    Args:
        archive: Where messages are recorded.
        source: Whose ledger: `portal/<name>`.
        clock: Seconds since 1970.
    """

    def __init__(self, archive: EgressArchive, source: str, clock: Callable[[], float]) -> None:
        self._archive = archive
        self._source = source
        self._clock = clock

    def call(self, channel: grpc.Channel, method: str, request: Message, *, seconds: float) -> Any:
        """Sends one message over a channel and returns the answer.

        Args:
            channel: To the coordinator.
            method: Such as `perimeter.v1.GrantService/RecordOutcomes`.
            request: The message.
            seconds: Deadline.

        Raises:
            EgressRefused: The message may not leave.
            EgressUnwritable: It cannot be recorded, so it was not sent.
            grpc.RpcError: The call failed.
        """
        encoded = encode_checked(padded(request))
        peer = "enrollment" if method.endswith("/Enroll") else "coordinator"
        sent = Outgoing(int(self._clock()), peer, method, encoded)
        self._archive.append(self._source, sent)
        answer = answer_class(request, method)
        return channel.unary_unary(f"/{method}", None, answer.FromString)(encoded, timeout=seconds)


def answer_class(request: Message, method: str) -> type[Message]:
    """Returns the message class that a method answers with.

    Raises:
        ValueError: The method takes another message.

    >>> from perimeter.v1 import model_pb2
    >>> asked = model_pb2.ListCampaignsRequest()
    >>> answer_class(asked, "perimeter.v1.ModelService/ListCampaigns").__name__
    'ListCampaignsResponse'
    """
    service, _, name = method.removeprefix("perimeter.v1.").partition("/")
    known = request.DESCRIPTOR.file.services_by_name[service].methods_by_name[name]
    if known.input_type.full_name != request.DESCRIPTOR.full_name:
        raise ValueError(f"{method} takes {known.input_type.name}")
    found: type[Message] = message_factory.GetMessageClass(cast("Descriptor", known.output_type))
    return found
