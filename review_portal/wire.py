"""Between wire messages and the portal's own values; everything untrusted is checked here."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Collection

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from perimeter.v1 import grant_pb2, item_pb2
from PIL import Image

from review_portal.core.model import (
    Campaign,
    GrantReason,
    GrantView,
    Kind,
    MaskView,
    NewItem,
    Refusal,
)

KINDS = {
    item_pb2.SAMPLE_KIND_TEXT: Kind.TEXT,
    item_pb2.SAMPLE_KIND_IMAGE: Kind.IMAGE,
    item_pb2.SAMPLE_KIND_SERIES: Kind.SERIES,
    item_pb2.SAMPLE_KIND_RECORD: Kind.RECORD,
}
REASONS = {
    grant_pb2.GRANT_REASON_USEFUL: GrantReason.USEFUL,
    grant_pb2.GRANT_REASON_EXPLORE: GrantReason.EXPLORE,
    grant_pb2.GRANT_REASON_OVERLAP: GrantReason.OVERLAP,
    grant_pb2.GRANT_REASON_CLASS_FLOOR: GrantReason.CLASS_FLOOR,
}
LEVELS = frozenset({"strict", "balanced", "light"})
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
NPY_MAGIC = b"\x93NUMPY"
SPAN_COUNT_MAX = 10_000
PROBABILITY_SLACK = 0.01


def grant_bytes(grant: grant_pb2.Grant) -> bytes:
    """Returns the canonical bytes that a grant's signature covers."""
    return (
        b"perimeter-grant-v1\0"
        + grant.grant_id
        + grant.campaign_id
        + grant.candidate_id
        + struct.pack(
            "<IqIQ",
            grant.model_version,
            grant.expire_time.seconds,
            grant.reason,
            grant.ledger_sequence,
        )
    )


def check_grant(grant: grant_pb2.Grant, public_key: bytes, *, now: float) -> Refusal | None:
    """Returns why a grant does not hold, or None."""
    if any(len(i) != 16 for i in (grant.grant_id, grant.campaign_id, grant.candidate_id)):
        return Refusal("GRANT_MALFORMED", "the ids of a grant have 16 bytes")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(grant.signature, grant_bytes(grant))
    except InvalidSignature:
        return Refusal("GRANT_SIGNATURE", "the coordinator did not sign this grant")
    if grant.expire_time.seconds <= now:
        return Refusal("GRANT_EXPIRED", "the grant is over")
    return None


def check_mask_report(item: item_pb2.Item, policies: Collection[str]) -> Refusal | None:
    """Returns why an item's mask report is not enough to show it, or None."""
    report = item.mask_report
    if not item.HasField("mask_report") or report.policy_version not in policies:
        known = ", ".join(policies)
        return Refusal("MASK_POLICY", f"the mask report must be of policy {known}")
    if len(report.detector_digest) != 32:
        return Refusal("MASK_REPORT", "a mask report names its detectors by 32 bytes")
    textless = item.kind in {item_pb2.SAMPLE_KIND_IMAGE, item_pb2.SAMPLE_KIND_SERIES}
    if report.level not in LEVELS and not (textless and report.level == "none"):
        return Refusal("MASK_LEVEL", f"level {report.level!r} is not enough for this kind")
    if report.level != "none" and not report.verified:
        return Refusal("MASK_UNVERIFIED", "the second pass over the masked content is missing")
    return None


def check_content(kind: Kind, content: bytes, *, bytes_max: int) -> Refusal | None:
    """Returns why content cannot be shown as the kind it says it is, or None."""
    if not content:
        return Refusal("CONTENT_EMPTY", "the item has no content")
    if len(content) > bytes_max:
        return Refusal("CONTENT_TOO_LARGE", f"content has at most {bytes_max} bytes")
    try:
        return _READERS[kind](content)
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        return Refusal("CONTENT_MALFORMED", f"content is no {kind.value}: {type(error).__name__}")


def _read_text(content: bytes) -> Refusal | None:
    text = content.decode("utf-8")
    if "\0" in text:
        return Refusal("CONTENT_MALFORMED", "text holds a null character")
    return None


def _read_image(content: bytes) -> Refusal | None:
    if not content.startswith(PNG_MAGIC):
        return Refusal("CONTENT_MALFORMED", "an image must be PNG")
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.load()
        if image.info.keys() & {"exif", "Comment", "Author", "Title", "Description"}:
            return Refusal("CONTENT_METADATA", "an image must carry no metadata")
    return None


def _read_series(content: bytes) -> Refusal | None:
    read_series(content)
    return None


def read_series(content: bytes) -> tuple[tuple[float, ...], ...]:
    """Returns the steps of a .npy file, each one value per channel.

    Reads the format itself, so that showing a plot needs no array library.

    Raises:
        ValueError: The bytes are no float32[steps, channels] in C order.
    """
    if not content.startswith(NPY_MAGIC) or len(content) < 10:
        raise ValueError("no .npy file")
    wide = content[6] > 1
    start = 12 if wide else 10
    length = int.from_bytes(content[8:start], "little")
    header = content[start : start + length].decode("latin-1")
    shape = _npy_shape(header)
    values = content[start + length :]
    steps, channels = shape
    if len(values) != 4 * steps * channels or not steps or not channels:
        raise ValueError("length and shape differ")
    flat = struct.unpack(f"<{steps * channels}f", values)
    if not all(map(math.isfinite, flat)):
        raise ValueError("values must be finite")
    return tuple(flat[i : i + channels] for i in range(0, len(flat), channels))


def _npy_shape(header: str) -> tuple[int, int]:
    plain = header.replace(" ", "")
    if "'descr':'<f4'" not in plain or "'fortran_order':False" not in plain:
        raise ValueError("a series is float32 in C order")
    inside = plain.partition("'shape':(")[2].partition(")")[0]
    steps, channels, *rest = inside.split(",")
    if any(rest):
        raise ValueError("a series has two dimensions")
    return int(steps), int(channels)


def _read_record(content: bytes) -> Refusal | None:
    fields = json.loads(content.decode("utf-8"))
    if not isinstance(fields, dict) or not fields:
        return Refusal("CONTENT_MALFORMED", "a record is a JSON object with columns")
    if not all(isinstance(v, str | int | float | bool | None) for v in fields.values()):
        return Refusal("CONTENT_MALFORMED", "a record's values are numbers or text")
    return None


_READERS = {
    Kind.TEXT: _read_text,
    Kind.IMAGE: _read_image,
    Kind.SERIES: _read_series,
    Kind.RECORD: _read_record,
}


def read_probabilities(packed: bytes, class_count: int) -> tuple[float, ...] | Refusal:
    """Returns class probabilities, empty when the device sent none."""
    if not packed:
        return ()
    if len(packed) != 4 * class_count:
        return Refusal("PROBABILITIES", f"the campaign has {class_count} classes")
    values = struct.unpack(f"<{class_count}f", packed)
    fine = all(math.isfinite(v) and 0.0 <= v <= 1.0 + PROBABILITY_SLACK for v in values)
    if not fine or abs(sum(values) - 1.0) > PROBABILITY_SLACK:
        return Refusal("PROBABILITIES", "class probabilities lie in [0, 1] and sum to 1")
    return values


def read_item(item: item_pb2.Item, campaign: Campaign) -> NewItem | Refusal:
    """Builds the portal's item from a checked message."""
    kind = KINDS.get(item.kind)
    if kind is not campaign.kind:
        return Refusal("KIND", f"campaign {campaign.name} is about {campaign.kind.value}")
    probabilities = read_probabilities(item.probabilities, len(campaign.classes))
    if isinstance(probabilities, Refusal):
        return probabilities
    spans = item.mask_report.spans
    if len(spans) > SPAN_COUNT_MAX:
        return Refusal("MASK_REPORT", "the mask report has too many spans")
    prototype = item.prototype_class_plus_one - 1
    return NewItem(
        item_id=item.grant.grant_id,
        campaign_id=campaign.campaign_id,
        kind=kind,
        content=item.content,
        mask=MaskView(
            policy_version=item.mask_report.policy_version,
            level=item.mask_report.level,
            verified=item.mask_report.verified,
            spans=tuple((s.start, s.end, s.entity_type[:60]) for s in spans),
        ),
        grant=_grant_view(item.grant),
        probabilities=probabilities,
        model_version=item.model_version,
        prototype_class=prototype if 0 <= prototype < len(campaign.classes) else None,
        margin=min(item.margin, 63),
        language=item.language[:35],
    )


def _grant_view(grant: grant_pb2.Grant) -> GrantView:
    return GrantView(
        grant_id=grant.grant_id,
        candidate_id=grant.candidate_id,
        reason=REASONS.get(grant.reason, GrantReason.USEFUL),
        expire_at=float(grant.expire_time.seconds),
        ledger_sequence=grant.ledger_sequence,
        model_version=grant.model_version,
    )
