"""Shows recorded messages field by field."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message
from perimeter.v1 import candidate_pb2, enrollment_pb2, grant_pb2, model_pb2

from review_portal.egress.record import EgressRecord

_FILES = (candidate_pb2, enrollment_pb2, grant_pb2, model_pb2)
_BYTES_SHOWN = 32
FIELDS_SHOWN = 400


def fields_of(record: EgressRecord) -> list[tuple[str, str]]:
    """Returns name and value of each field of a recorded message, at most 400 of them."""
    if not record.payload and record.size_bytes:
        return [("withheld", "this message carried a secret; its SHA-256 is in the record")]
    kind = request_class(record.method)
    if kind is None:
        return [("unknown", f"{record.method} is not a method that this version knows")]
    try:
        message = kind.FromString(record.raw_payload())
    except (DecodeError, ValueError):
        return [("unreadable", "these bytes are no message of this method")]
    return list(_limited(_fields(message, "")))


def request_class(method: str) -> type[Message] | None:
    """Returns the message class that a method takes, or None for an unknown one.

    >>> request_class("perimeter.v1.GrantService/ListGrants").__name__
    'ListGrantsRequest'
    """
    service, _, name = method.removeprefix("perimeter.v1.").partition("/")
    for file in _FILES:
        found = file.DESCRIPTOR.services_by_name.get(service)
        if found is not None and name in found.methods_by_name:
            return message_factory.GetMessageClass(found.methods_by_name[name].input_type)
    return None


def kind_of(method: str) -> str:
    """Returns the short name of a kind of message.

    >>> kind_of("perimeter.v1.GrantService/ListGrants")
    'ListGrants'
    """
    return method.rpartition("/")[2]


def _limited(shown: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for number, entry in enumerate(shown):
        if number == FIELDS_SHOWN:
            yield "…", "more fields are in the export"
            return
        yield entry


def _fields(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        name = prefix + field.name
        if field.message_type is not None:
            for i, entry in enumerate(value):
                yield from _fields(entry, f"{name}[{i}].")
        elif isinstance(value, bytes):
            more = f"… ({len(value)} bytes)" if len(value) > _BYTES_SHOWN else ""
            yield name, value[:_BYTES_SHOWN].hex() + more
        elif field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            yield name, str(value) if known is None else str(known.name)
        else:
            yield name, str(value)
