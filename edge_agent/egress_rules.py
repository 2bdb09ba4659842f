"""What may leave the device, message by message and field by field. Pure.

A message that has no entry here cannot be sent, and neither can a field: adding one to the wire
does nothing until it is allowed on this page. There is no rule for text, floats or maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography import x509
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from edge_agent.errors import EgressRefused
from edge_agent.padding import is_padding

_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1
_CLASSES_MAX = 4096
_BATCH_ROWS_MAX = 10_000
_CSR_BYTES_MAX = 4096

Rule = Callable[[Any, Message], bool]
"""Says whether a field's value may leave; sees the whole message for lengths that depend on it."""


def exactly(length: int) -> Rule:
    """A bytes field of one length.

    >>> exactly(2)(b"ab", None), exactly(2)(b"abc", None)
    (True, False)
    """
    return lambda value, _: len(value) == length


def column(width: int, largest: int | None = None) -> Rule:
    """A bytes column with `row_count` little-endian values of `width` bytes, 0 to `largest`.

    The bound keeps a text from travelling as a column of its length.
    """

    def fits(value: bytes, batch: Message) -> bool:
        if len(value) != width * int(vars_of(batch, "row_count")):
            return False
        return largest is None or int(np.frombuffer(value, f"<u{width}").max(initial=0)) <= largest

    return fits


def vars_of(message: Message, field: str) -> Any:
    """Returns a field by name; the rules see messages of every kind."""
    return getattr(message, field)


def between(low: int, high: int) -> Rule:
    """A whole number in a range, both ends included."""
    return lambda value, _: low <= value <= high


def class_counts(value: bytes, _: Message) -> bool:
    """A uint32 for each class."""
    return len(value) % 4 == 0 and len(value) <= 4 * _CLASSES_MAX


def bare_csr(value: bytes, _: Message) -> bool:
    """A signing request without any name or extension, since names say who and where."""
    if not 0 < len(value) <= _CSR_BYTES_MAX:
        return False
    try:
        csr = x509.load_der_x509_csr(value)
    except ValueError:
        return False
    return not list(csr.subject) and not list(csr.extensions) and not list(csr.attributes)


def anything(_value: object, _message: Message) -> bool:
    """Booleans, enumerations and messages that have their own rules."""
    return True


@dataclass(frozen=True)
class MessageRules:
    """Rules of one message.

    Attributes:
        fields: Rule by field name.
        repeated_max: Entries that a repeated field may have.
    """

    fields: Mapping[str, Rule]
    repeated_max: int = 0


_ID = exactly(16)
_CANDIDATE_BATCH: dict[str, Rule] = {
    "request_id": _ID,
    "campaign_id": _ID,
    "sequence": between(1, _U64),
    "model_version": between(1, _U32),
    "code_book_version": between(0, _U32),
    "label_schema_digest": exactly(32),
    # Year 2105: a finer unit in this field would be far above.
    "day": between(1, 49_309),
    "row_count": between(1, _BATCH_ROWS_MAX),
    "candidate_ids": column(16),
    "margins": column(1, largest=63),
    "top_probabilities": column(1, largest=63),
    "entropies": column(1, largest=63),
    "divergence_risk": column(1),
    "predicted_classes": column(2, largest=_CLASSES_MAX - 1),
    "runner_up_classes": column(2, largest=_CLASSES_MAX - 1),
    "prototype_classes": column(2, largest=_CLASSES_MAX - 1),
    "cell_ids": column(2),
    "density_cost": column(1, largest=127),
    "replaces_older_versions": anything,
    "padding": is_padding,
    "further_counts": lambda value, batch: not value or column(1)(value, batch),
}

RULES: Mapping[str, MessageRules] = {
    "perimeter.v1.EnrollRequest": MessageRules(
        {"request_id": _ID, "join_secret": exactly(32), "csr_der": bare_csr}
    ),
    "perimeter.v1.RenewCertificateRequest": MessageRules({"request_id": _ID, "csr_der": bare_csr}),
    "perimeter.v1.CandidateBatch": MessageRules(_CANDIDATE_BATCH),
    "perimeter.v1.ReportHistogramRequest": MessageRules(
        {
            "request_id": _ID,
            "campaign_id": _ID,
            "model_version": between(1, _U32),
            "label_schema_digest": exactly(32),
            "day": between(1, 49_309),
            "cell_count": between(1, 4096),
            "epsilon_milli": between(1, 100_000),
            "noised_counts": lambda value, sent: (
                len(value) == 64 * int(vars_of(sent, "cell_count"))
            ),
        }
    ),
    "perimeter.v1.ReportPoolRequest": MessageRules(
        {
            "request_id": _ID,
            "campaign_id": _ID,
            "model_version": between(1, _U32),
            "day": between(1, 49_309),
            "class_counts": class_counts,
            "top_probability_sum": between(0, 1 << 56),
            "top_probability_square_sum": between(0, 1 << 56),
            "complete": anything,
            "padding": is_padding,
        }
    ),
    "perimeter.v1.ListGrantsRequest": MessageRules(
        {
            "after_ledger_sequence": between(0, _U64),
            "page_size": between(1, 1000),
            "wait_seconds": between(0, 30),
        }
    ),
    "perimeter.v1.RecordOutcomesRequest": MessageRules(
        {"request_id": _ID, "outcomes": anything, "padding": is_padding}, repeated_max=1000
    ),
    # An agent knows nothing of decisions: seconds, verdict and class are the portal's to send.
    "perimeter.v1.Outcome": MessageRules({"grant_id": _ID, "state": between(1, 6)}),
    "perimeter.v1.ListCampaignsRequest": MessageRules({}),
    "perimeter.v1.GetModelVersionRequest": MessageRules(
        {"campaign_id": _ID, "installed_version": between(0, _U32)}
    ),
    "perimeter.v1.DownloadBundleRequest": MessageRules(
        {"campaign_id": _ID, "version": between(1, _U32), "offset": between(0, 1 << 40)}
    ),
    "perimeter.v1.ReportInstallRequest": MessageRules(
        {
            "request_id": _ID,
            "campaign_id": _ID,
            "version": between(1, _U32),
            "state": between(1, 3),
            "reason": between(0, 7),
        }
    ),
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
        raise EgressRefused(f"{name} is not a message that may leave this device")
    if len(UnknownFieldSet(message)):
        raise EgressRefused(f"{name} carries a field that is not in its definition")
    for field in message.DESCRIPTOR.fields:
        # Bytes that are absent are checked as empty ones: a column must have its rows.
        rule = rules.fields.get(field.name) if field.type == FieldDescriptor.TYPE_BYTES else None
        if rule is not None and not rule(vars_of(message, field.name), message):
            raise EgressRefused(f"{name}.{field.name} is outside its allowed range")
    for field, value in message.ListFields():
        _check_field(name, rules, field, value, message)


def _check_field(
    name: str, rules: MessageRules, field: FieldDescriptor, value: Any, message: Message
) -> None:
    rule = rules.fields.get(field.name)
    if rule is None:
        raise EgressRefused(f"{name}.{field.name} may not leave this device")
    if not rule(value, message):
        raise EgressRefused(f"{name}.{field.name} is outside its allowed range")
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if len(value) > rules.repeated_max:
            raise EgressRefused(f"{name}.{field.name} has too many entries")
        for entry in value:
            check_message(entry)
