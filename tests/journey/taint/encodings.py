"""The byte forms under which a secret could leave: some fifty for each marker."""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import html
import json
import quopri
import re
import struct
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from model_bundle.features import FeatureSpec, extract

PATTERN_BYTES_MIN = 8
"""Shorter patterns would be found by chance."""
_PART = 11
"""Bytes of a secret that was cut to fit somewhere."""


def encodings_of(value: str) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) for every form of a secret; some may be equal or too short."""
    yield from _characters(value)
    yield from _alphabets(value.encode())
    yield from _escapes(value)
    yield from digests_of(value.encode())
    yield from _tokens(value)
    for shift in range(8):
        yield f"hpack huffman +{shift}", _huffman(value.encode(), shift)
    for word in re.findall(r"\w{8,}", value):
        yield "word", word.encode()
        yield "word utf-16-le", word.encode("utf-16-le")


def patterns_of(value: str) -> dict[bytes, str]:
    """Returns pattern to name of the encoding, without patterns that are too short.

    >>> patterns_of("Żyglof Qwirbensky")["Żyglof Qwirbensky".encode()]
    'utf-8'
    """
    found: dict[bytes, str] = {}
    for name, pattern in encodings_of(value):
        if len(pattern) >= PATTERN_BYTES_MIN:
            found.setdefault(pattern, name)
    return found


def _characters(value: str) -> Iterator[tuple[str, bytes]]:
    yield "utf-8", value.encode()
    if len(value.encode()) >= _PART + 5:
        yield "first bytes", value.encode()[:_PART]
        yield "last bytes", value.encode()[-_PART:]
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le", "latin-1", "cp1251", "shift-jis"):
        try:
            yield codec, value.encode(codec)
        except UnicodeEncodeError:
            continue
    yield "utf-7", value.encode("utf-7")
    yield "punycode", value.encode("punycode")
    yield "reversed", value[::-1].encode()
    yield "reversed bytes", value.encode()[::-1]
    yield "lower case", value.lower().encode()
    yield "upper case", value.upper().encode()
    yield "rot13", codecs.encode(value, "rot13").encode()
    yield "nfd", unicodedata.normalize("NFD", value).encode()
    plain = unicodedata.normalize("NFKD", value)
    bare = "".join(c for c in plain if not unicodedata.combining(c))
    yield "without accents", bare.encode()
    yield "ascii only", bare.encode("ascii", "ignore")
    yield "question marks", value.encode("ascii", "replace") if value.isascii() else b""
    for name, mark in (("underscored", "_"), ("hyphenated", "-"), ("joined", "")):
        joined = re.sub(r"[\s-]+", mark, value)
        yield name, joined.encode()
        yield f"{name} lower case", joined.lower().encode()


def _alphabets(raw: bytes) -> Iterator[tuple[str, bytes]]:
    for shift in range(3):
        yield f"base64 +{shift}", _aligned(base64.b64encode, raw, shift, group=(3, 4))
        yield f"base64url +{shift}", _aligned(base64.urlsafe_b64encode, raw, shift, group=(3, 4))
    for shift in range(5):
        yield f"base32 +{shift}", _aligned(base64.b32encode, raw, shift, group=(5, 8))
    for shift in range(4):
        yield f"base85 +{shift}", _aligned(base64.b85encode, raw, shift, group=(4, 5))
        yield f"ascii85 +{shift}", _aligned(base64.a85encode, raw, shift, group=(4, 5))
    yield "hex", raw.hex().encode()
    yield "hex upper case", raw.hex().upper().encode()
    yield "hex spaced", raw.hex(" ").encode()
    yield "hex colons", raw.hex(":").encode()
    yield "decimal bytes", ", ".join(str(byte) for byte in raw).encode()
    yield "quoted-printable", quopri.encodestring(raw).strip()
    yield "uuencode", binascii.b2a_uu(raw[:45])[1:].rstrip(b"\n `")


def _aligned(encode: object, raw: bytes, shift: int, *, group: tuple[int, int]) -> bytes:
    """The characters that depend on the secret alone when it starts `shift` bytes into a group."""
    bytes_in, characters = group
    assert callable(encode)
    padded = b"\xa5" * shift + raw
    whole = len(padded) // bytes_in * bytes_in
    coded: bytes = encode(padded[:whole])
    return coded[characters if shift else 0 :]


def _escapes(value: str) -> Iterator[tuple[str, bytes]]:
    yield "percent", quote(value).encode()
    yield "percent lower case", quote(value).lower().encode()
    yield "percent all", "".join(f"%{byte:02X}" for byte in value.encode()).encode()
    yield "form", quote(value).replace("%20", "+").encode()
    yield "json", json.dumps(value)[1:-1].encode()
    yield (
        "json upper case",
        re.sub(
            r"\\u([0-9a-f]{4})", lambda m: f"\\u{m.group(1).upper()}", json.dumps(value)[1:-1]
        ).encode(),
    )
    yield "json twice", json.dumps(json.dumps(value))[3:-3].encode()
    yield "python", value.encode("unicode_escape")
    yield "python bytes", repr(value.encode())[2:-1].encode()
    yield (
        "octal",
        "".join(chr(b) if 32 <= b < 127 else f"\\{b:03o}" for b in value.encode()).encode(),
    )
    yield "html", html.escape(value).encode()
    yield "html numbers", "".join(f"&#{ord(c)};" for c in value).encode()
    yield "html hex numbers", "".join(f"&#x{ord(c):x};" for c in value).encode()
    yield "html where needed", value.encode("ascii", "xmlcharrefreplace")


def digests_of(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields unkeyed digests: whoever can guess a value can confirm it by one of these."""
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
        digest = hashlib.new(name, raw).digest()
        yield name, digest
        yield f"{name} cut to 16 bytes", digest[:16]
        yield f"{name} hex", digest.hex().encode()
        yield f"{name} hex cut to 16", digest.hex()[:16].encode()
        yield f"{name} base64", base64.b64encode(digest).rstrip(b"=")
        yield f"{name} base64url", base64.urlsafe_b64encode(digest).rstrip(b"=")


def _tokens(value: str) -> Iterator[tuple[str, bytes]]:
    """The hashed n-grams that a text model sees; a run of them can be looked up word by word."""
    ids = [int(i) for array in extract([value], FeatureSpec("text")).values()
           for i in array.ravel() if array.dtype.kind in "iu" and i > 0]  # fmt: skip
    if len(ids) < 6:
        return
    yield "token ids int32", struct.pack(f"<{len(ids)}i", *ids)
    yield "token ids int64", struct.pack(f"<{len(ids)}q", *ids)
    yield "token ids uint16", struct.pack(f"<{len(ids)}H", *(i & 0xFFFF for i in ids))
    yield "token ids varint", b"".join(_varint(i) for i in ids)
    yield "token ids text", ", ".join(str(i) for i in ids).encode()


def _varint(number: int) -> bytes:
    coded = bytearray()
    while number > 0x7F:
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*coded, number])


def _huffman(raw: bytes, shift: int) -> bytes:
    """HPACK's Huffman code (RFC 7541, appendix B) when the secret starts at bit `shift`."""
    bits, length = 0, shift
    for byte in raw:
        bits = bits << REQUEST_CODES_LENGTH[byte] | REQUEST_CODES[byte]
        length += REQUEST_CODES_LENGTH[byte]
    spare = length % 8
    coded = (bits >> spare).to_bytes(length // 8, "big")
    return coded[1:] if shift else coded
