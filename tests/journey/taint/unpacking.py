"""Looks inside what is packed: gzip, zlib, zip, zstd, base64, HTTP/2 frames, SQLite files.

Each layer is yielded as further bytes to search. Limits hold against bombs.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hpack
import pyarrow

DEPTH_MAX = 4
LAYER_BYTES_MAX = 64 * 1024 * 1024
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_DEFLATED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_ZSTD = b"\x28\xb5\x2f\xfd"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SQLITE = b"SQLite format 3\0"


def layers(raw: bytes, place: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yields (place, bytes): the bytes themselves, then whatever is packed inside them."""
    yield place, raw
    if depth >= DEPTH_MAX:
        return
    for name, inner in _unpacked(raw):
        yield from layers(inner, f"{place} > {name}", depth + 1)


def _unpacked(raw: bytes) -> Iterator[tuple[str, bytes]]:
    for match in _DEFLATED.finditer(raw):
        inner = _inflated(raw, match.start())
        if len(inner) >= 8:
            yield f"deflate at {match.start()}", inner
    start = raw.find(_ZSTD)
    while start >= 0:
        inner = _unzstd(raw[start:])
        if inner:
            yield f"zstd at {start}", inner
        start = raw.find(_ZSTD, start + 4)
    if b"PK\x03\x04" in raw:
        yield from _unzipped(raw)
    for match in _BASE64.finditer(raw):
        yield from _decoded(match)


def _inflated(raw: bytes, start: int) -> bytes:
    """What a gzip or zlib stream holds, up to the point where it breaks; empty when it is none."""
    unpacker = zlib.decompressobj(wbits=47)
    inner = bytearray()
    try:
        for begin in range(start, len(raw), 1 << 16):
            inner += unpacker.decompress(raw[begin : begin + (1 << 16)], LAYER_BYTES_MAX)
            if unpacker.eof or len(inner) >= LAYER_BYTES_MAX:
                break
    except zlib.error:
        pass
    return bytes(inner)


def _unzstd(raw: bytes) -> bytes:
    try:
        with pyarrow.CompressedInputStream(pyarrow.BufferReader(raw), "zstd") as stream:
            return bytes(stream.read(LAYER_BYTES_MAX))
    except (OSError, pyarrow.ArrowException):
        return b""


def _unzipped(raw: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for entry in archive.infolist():
                yield f"zip entry {entry.filename}", entry.filename.encode() + entry.comment
                with archive.open(entry) as stream:
                    yield f"zip entry {entry.filename}", stream.read(LAYER_BYTES_MAX)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, OSError):
        return


def _decoded(match: re.Match[bytes]) -> Iterator[tuple[str, bytes]]:
    """A base64 run, decoded; only packed or further encoded content needs it, plain is matched."""
    run = match.group().rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        inner = base64.b64decode(run[: len(run) // 4 * 4], validate=True)
    except binascii.Error:
        return
    if _DEFLATED.match(inner) or inner[:4] in (_ZSTD, b"PK\x03\x04") or _BASE64.search(inner):
        yield f"base64 at {match.start()}", inner


def sqlite_values(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields every value of every row, so that no page boundary can cut a secret in two.

    The file itself is searched as bytes besides: deleted rows and the WAL live there only.
    """
    with path.open("rb") as stream:
        if stream.read(16) != _SQLITE:
            return
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            if (source := path.with_name(path.name + suffix)).exists():
                shutil.copy(source, Path(folder) / f"copy.db{suffix}")
        with closing(sqlite3.connect(Path(folder) / "copy.db")) as database:
            database.text_factory = bytes
            names = database.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
            for (name,) in names:
                table = name.decode()
                rows = database.execute(f'SELECT * FROM "{table}"')
                for number, row in enumerate(rows):
                    joined = b"\0".join(_as_bytes(value) for value in row)
                    yield f"{path.name} table {table} row {number}", joined


def _as_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode()


def http2_parts(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields decoded headers and the joined data of each HTTP/2 stream of one direction.

    Frames cut a message wherever they like and header values are Huffman coded, so that the raw
    bytes of a connection do not show all that they carry. A direction that is no HTTP/2 yields
    nothing; it is searched as it is.
    """
    place = len(_PREFACE) if stream.startswith(_PREFACE) else 0
    if not place and not _looks_like_settings(stream):
        return
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 1 << 20
    data: dict[int, bytearray] = {}
    block = bytearray()
    while place + 9 <= len(stream):
        length = int.from_bytes(stream[place : place + 3], "big")
        kind, flags = stream[place + 3], stream[place + 4]
        number = int.from_bytes(stream[place + 5 : place + 9], "big") & 0x7FFFFFFF
        payload = stream[place + 9 : place + 9 + length]
        place += 9 + length
        if kind == 0:
            data.setdefault(number, bytearray()).extend(_unpadded(payload, flags))
        elif kind in (1, 9):
            part = _unpadded(payload, flags) if kind == 1 else payload
            block += part[5:] if kind == 1 and flags & 0x20 else part
            if flags & 0x04:
                headers = decoder.decode(bytes(block), raw=True)
                block.clear()
                joined = b"\n".join(b": ".join(pair[:2]) for pair in headers)
                yield f"headers of stream {number}", joined
    for number, joined in data.items():
        yield f"data of stream {number}", bytes(joined)


def grpc_calls(stream: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields (method, message) for every whole message that one direction carried.

    The method is `package.Service/Method`; empty in the answering direction, which names none.
    """
    methods: dict[str, str] = {}
    for place, joined in http2_parts(stream):
        number = place.rpartition(" ")[2]
        if place.startswith("headers of"):
            found = re.search(rb"^:path: /(.+)$", joined, re.MULTILINE)
            methods.setdefault(number, found.group(1).decode() if found else "")
            continue
        start = 0
        while start + 5 <= len(joined):
            length = int.from_bytes(joined[start + 1 : start + 5], "big")
            message = joined[start + 5 : start + 5 + length]
            if len(message) == length:
                yield methods.get(number, ""), message
            start += 5 + length


def _looks_like_settings(stream: bytes) -> bool:
    """True when a direction begins with a SETTINGS frame, as a server's must."""
    return len(stream) >= 9 and stream[3] == 4 and stream[5:9] == bytes(4)


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & 0x08 and payload else payload
