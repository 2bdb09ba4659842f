"""Shows recorded messages field by field, for the site lead."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import message_factory
from google.protobuf.message import Message
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, model_pb2

from edge_agent.egress_ledger import EgressRecord

_FILES = (candidate_pb2, enrollment_pb2, grant_pb2, model_pb2)
_BYTES_SHOWN = 32


def fields_of(record: EgressRecord) -> list[tuple[str, str]]:
    """Returns name and value of each field of a recorded message."""
    if not record.payload and record.size_bytes:
        return [("withheld", "this message carried a secret; its SHA-256 is in the record")]
    message = request_class(record.method).FromString(record.raw_payload())
    return list(_fields(message, ""))


def request_class(method: str) -> type[Message]:
    """Returns the message class that a method takes.

    >>> request_class("perimeter.v1.GrantService/ListGrants").__name__
    'ListGrantsRequest'
    """
    service, _, name = method.removeprefix("perimeter.v1.").partition("/")
    for file in _FILES:
        found = file.DESCRIPTOR.services_by_name.get(service)
        if found is not None:
            return message_factory.GetMessageClass(found.methods_by_name[name].input_type)
    raise KeyError(method)


def _fields(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        name = prefix + field.name
        if field.message_type is not None:
            for i, entry in enumerate(value):
                yield from _fields(entry, f"{name}[{i}].")
        elif isinstance(value, bytes):
            more = f"… ({len(value)} bytes)" if len(value) > _BYTES_SHOWN else ""
            yield name, value[:_BYTES_SHOWN].hex() + more
        else:
            yield name, str(value)
