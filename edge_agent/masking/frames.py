"""Length-prefixed JSON between the daemon and its masking process, and the answers in it."""

import json
from collections.abc import Callable
from typing import Any

from edge_agent.masking.seam import (
    Held,
    HeldReason,
    Level,
    Masked,
    MaskedSpan,
    MaskReport,
)

MAX_FRAME_BYTES = 64 << 20
_PREFIX_BYTES = 4


class FrameError(Exception):
    """Bytes that are no frame."""


def pack_frame(value: Any) -> bytes:
    r"""A JSON value as a frame: four bytes of length, big-endian, then UTF-8.

    >>> pack_frame({"a": 1})[3:]
    b'\x07{"a":1}'
    """
    body = json.dumps(value, separators=(",", ":")).encode()
    return len(body).to_bytes(_PREFIX_BYTES, "big") + body


def read_frame(read: Callable[[int], bytes]) -> Any:
    """Read one frame; `read(n)` returns exactly n bytes, or none at the end.

    Returns:
        The JSON value, or None at the end of the stream.

    Raises:
        FrameError: The bytes are no frame.
    """
    prefix = read(_PREFIX_BYTES)
    if not prefix:
        return None
    size = int.from_bytes(prefix, "big")
    if len(prefix) < _PREFIX_BYTES or size > MAX_FRAME_BYTES:
        raise FrameError("a frame is cut or too large")
    body = read(size)
    if len(body) < size:
        raise FrameError("a frame is cut")
    try:
        return json.loads(body)
    except ValueError as error:
        raise FrameError("a frame holds no JSON") from error


def answer_to_json(answer: Masked | Held) -> dict[str, Any]:
    """An answer as plain JSON values."""
    if isinstance(answer, Held):
        return {"held": answer.reason.value, "detail": answer.detail}
    report = answer.report
    return {
        "text": answer.text,
        "spans": [
            [s.start, s.end, s.raw_start, s.raw_end, s.entity_type, s.score] for s in answer.spans
        ],
        "report": [
            report.policy_version,
            report.detector_digest.hex(),
            report.level.value,
            [list(pair) for pair in report.counts],
            report.verified,
        ],
    }


def answer_from_json(value: Any, raw: str) -> Masked | Held:
    """Read an answer and check that its spans fit the raw text and the masked text.

    Raises:
        FrameError: The value is no answer, or does not belong to this text.
    """
    try:
        if "held" in value:
            return Held(HeldReason(value["held"]), str(value["detail"]))
        version, digest, level, counts, verified = value["report"]
        spans = tuple(
            MaskedSpan(int(a), int(b), int(c), int(d), str(kind), float(score))
            for a, b, c, d, kind, score in value["spans"]
        )
        report = MaskReport(
            policy_version=str(version),
            detector_digest=bytes.fromhex(digest),
            level=Level(level),
            counts=tuple((str(name), int(band)) for name, band in counts),
            verified=verified is True,
        )
        masked = Masked(str(value["text"]), spans, report)
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError("an answer is malformed") from error
    if not report.verified or len(report.detector_digest) != 32 or not _fits(raw, masked):
        raise FrameError("an answer does not belong to its text")
    return masked


def _fits(raw: str, masked: Masked) -> bool:
    """What stands between the spans must be the same in both texts."""
    done = raw_done = 0
    for span in masked.spans:
        if not (done <= span.start < span.end and raw_done <= span.raw_start < span.raw_end):
            return False
        if masked.text[done : span.start] != raw[raw_done : span.raw_start]:
            return False
        done, raw_done = span.end, span.raw_end
    return masked.text[done:] == raw[raw_done:]
