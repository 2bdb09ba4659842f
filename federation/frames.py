"""Bytes of a message between centre, node and trainer: a JSON header and raw arrays, nothing else.

A frame is: magic, length of the header (uint32), length of the arrays (uint64), header, arrays.
The header is canonical JSON with a `kind`, flat `fields` and the name, dtype and shape of every
array; the arrays follow in that order, little-endian, C order. Nothing in a frame is executable,
and every length is checked before memory is taken.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.errors import FrameInvalid

MAGIC = b"PFT1"
HEADER_BYTES_MAX = 1 << 20
ARRAYS_BYTES_MAX = 1 << 30
ARRAY_COUNT_MAX = 1024
RANK_MAX = 8
PREFIX = struct.Struct("<4sIQ")
_DTYPES: dict[str, np.dtype[Any]] = {
    "<f4": np.dtype("<f4"),
    "<f8": np.dtype("<f8"),
    "<i8": np.dtype("<i8"),
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One message: what it is, its settings, and its arrays by name."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def encode(frame: Frame) -> bytes:
    """Returns the bytes of a frame.

    Raises:
        FrameInvalid: An array has another dtype than float32, float64 or int64, or a limit is hit.

    >>> decode(encode(Frame("train", {"seed": 1}, {"w": np.zeros(2, "<f4")}))).arrays["w"].shape
    (2,)
    """
    described, parts = [], []
    for name in sorted(frame.arrays):
        array = frame.arrays[name]
        dtype = array.dtype.newbyteorder("<").str
        if dtype not in _DTYPES:
            raise FrameInvalid(f"array {name} has dtype {array.dtype}, which may not travel")
        described.append([name, dtype, list(array.shape)])
        parts.append(np.ascontiguousarray(array, dtype=_DTYPES[dtype]).tobytes())
    header = json.dumps(
        {"kind": frame.kind, "fields": dict(frame.fields), "arrays": described},
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    ).encode()
    body = b"".join(parts)
    check_lengths(len(header), len(body))
    return PREFIX.pack(MAGIC, len(header), len(body)) + header + body


def check_lengths(header_length: int, body_length: int) -> None:
    """Raises `FrameInvalid` when an announced length is above its limit."""
    if header_length > HEADER_BYTES_MAX or body_length > ARRAYS_BYTES_MAX:
        raise FrameInvalid(
            f"a message announces {header_length} + {body_length} bytes; at most "
            f"{HEADER_BYTES_MAX} + {ARRAYS_BYTES_MAX} are taken"
        )


def read_prefix(prefix: bytes) -> tuple[int, int]:
    """Returns the lengths of header and arrays that the first 16 bytes announce.

    Raises:
        FrameInvalid: The bytes begin no frame, or announce too much.
    """
    if len(prefix) != PREFIX.size:
        raise FrameInvalid("the message is cut short")
    magic, header_length, body_length = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise FrameInvalid("the bytes are not a message of this version")
    check_lengths(header_length, body_length)
    return header_length, body_length


def decode(raw: bytes) -> Frame:
    """Reads a frame; arrays are read-only views of the bytes.

    Raises:
        FrameInvalid: The bytes are cut, too long, or describe arrays that they do not hold.
    """
    header_length, body_length = read_prefix(raw[: PREFIX.size])
    start = PREFIX.size + header_length
    if len(raw) != start + body_length:
        raise FrameInvalid("the message is cut short or too long")
    try:
        header = json.loads(raw[PREFIX.size : start])
        kind, fields, described = header["kind"], header["fields"], header["arrays"]
        frame = Frame(str(kind), dict(fields), _arrays(raw, start, described))
    except FrameInvalid:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FrameInvalid(f"the message's header cannot be read: {error!r}") from None
    return frame


def _arrays(raw: bytes, offset: int, described: list[Any]) -> dict[str, NDArray[Any]]:
    if len(described) > ARRAY_COUNT_MAX:
        raise FrameInvalid(f"a message has more than {ARRAY_COUNT_MAX} arrays")
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in described:
        sizes = [int(size) for size in shape]
        if dtype not in _DTYPES or len(sizes) > RANK_MAX or min(sizes, default=0) < 0:
            raise FrameInvalid("an array has an unknown dtype or shape")
        count = math.prod(sizes)
        end = offset + count * _DTYPES[dtype].itemsize
        if end > len(raw) or name in arrays:
            raise FrameInvalid("the message does not hold the arrays that it names")
        flat = np.frombuffer(raw, dtype=_DTYPES[dtype], count=count, offset=offset)
        arrays[str(name)] = flat.reshape(sizes)
        offset = end
    if offset != len(raw):
        raise FrameInvalid("the message has bytes after its last array")
    return arrays
