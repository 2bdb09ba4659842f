"""What may leave through the portal, message by message and field by field. Pure.

A message or a field without an entry here cannot be sent; there is no rule for text, floats or
maps. The device has a page of its own: it sends other messages, and the same ones with less in
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cryptography import x509
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from perimeter.v1 import grant_pb2

from review_portal.egress.padding import is_padding
from review_portal.errors import EgressRefused

_CLASSES_MAX = 4096
_CSR_BYTES_MAX = 4096
_OUTCOMES_MAX = 1000
_U32 = (1 << 32) - 1
_DAY_MAX = 49_309

Rule = Callable[[Any, Message], bool]
"""Says whether a field's value may leave; sees the whole message."""


def exactly(length: int) -> Rule:
    """A bytes field of one length.

    >>> exactly(2)(b"ab", None), exactly(2)(b"abc", None)
    (True, False)
    """
    return lambda value, _: len(value) == length


def between(low: int, high: int) -> Rule:
    """A whole number in a range, both ends included."""
    return lambda value, _: low <= value <= high


def class_counts(value: bytes, _: Message) -> bool:
    """A uint32 for each class."""
    return len(value) % 4 == 0 and len(value) <= 4 * _CLASSES_MAX


def class_of_label(value: int, outcome: Message) -> bool:
    """A class index plus one, of a label only."""
    is_label = getattr(outcome, "state", None) == grant_pb2.OUTCOME_STATE_LABELED
    return is_label and 0 < value <= _CLASSES_MAX


def bare_csr(value: bytes, _: Message) -> bool:
    """A signing request without any name or extension, since names say who and where."""
    if not 0 < len(value) <= _CSR_BYTES_MAX:
        return False
    try:
        csr = x509.load_der_x509_csr(value)
    except ValueError:
        return False
    return not list(csr.subject) and not list(csr.extensions) and not list(csr.attributes)


def entries(value: Any, _: Message) -> bool:
    """A list of messages, each with rules of its own."""
    return 0 < len(value) <= _OUTCOMES_MAX


_ID = exactly(16)
RULES: Mapping[str, Mapping[str, Rule]] = {
    "perimeter.v1.EnrollRequest": {
        "request_id": _ID,
        "join_secret": exactly(32),
        "csr_der": bare_csr,
    },
    "perimeter.v1.RenewCertificateRequest": {"request_id": _ID, "csr_der": bare_csr},
    "perimeter.v1.ListCampaignsRequest": {},
    "perimeter.v1.RecordOutcomesRequest": {
        "request_id": _ID,
        "outcomes": entries,
        "padding": is_padding,
    },
    "perimeter.v1.Outcome": {
        "grant_id": _ID,
        "state": between(1, 6),
        "suggestion": between(1, 2),
        "decision_seconds": between(0, 3600),
        "class_index_plus_one": class_of_label,
    },
    "perimeter.v1.ReportSiteRequest": {
        "request_id": _ID,
        "campaign_id": _ID,
        "day": between(1, _DAY_MAX),
        "label_counts": class_counts,
        "label_count": between(0, _U32),
        "expert_capacity_count": between(0, _U32),
        "median_decision_seconds": between(0, 3600),
        "temperature_milli": between(0, _U32),
        "calibration_error_milli": between(0, 1000),
        "padding": is_padding,
    },
}


def check_message(message: Message) -> None:
    """Refuses a message that says anything beyond its rules.

    Raises:
        EgressRefused: An unknown message or field, or a value outside its rule. The text names the
            field and never its value.
    """
    name = message.DESCRIPTOR.full_name
    rules = RULES.get(name)
    if rules is None:
        raise EgressRefused(f"{name} is not a message that may leave this portal")
    if len(UnknownFieldSet(message)):
        raise EgressRefused(f"{name} carries a field that is not in its definition")
    for field, value in message.ListFields():
        rule = rules.get(field.name)
        if rule is None:
            raise EgressRefused(f"{name}.{field.name} may not leave this portal")
        if not rule(value, message):
            raise EgressRefused(f"{name}.{field.name} is outside its allowed range")
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for entry in value:
                check_message(entry)


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
