"""Content of each kind as other tools hold it, and back to the bytes of an item."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from review_portal.core.model import Kind
from review_portal.interchange.row_errors import RowProblem

CONTENT_BYTES_MAX = 8 * 1024 * 1024
"""Largest content of an item."""
TEXT_CHARACTERS_MAX = 1_000_000
"""Longest text of an item."""
PIXELS_MAX = 50_000_000
"""Largest image: width times height."""
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND"}


def text_content(value: object) -> bytes:
    """Returns UTF-8 of a text.

    Raises:
        RowProblem: It is no text, is empty or too long, or holds half of a surrogate pair.
    """
    if not isinstance(value, str) or not value.strip():
        raise RowProblem("the row has no text", "give the text under its usual key, not empty")
    if len(value) > TEXT_CHARACTERS_MAX:
        raise RowProblem(
            f"the text has {len(value)} characters; the limit is {TEXT_CHARACTERS_MAX}",
            "split it into shorter items",
        )
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise RowProblem(
            "the text holds half of a surrogate pair", "save the file as valid UTF-8"
        ) from None


def png_size(content: bytes) -> tuple[int, int]:
    """Returns (width, height) from the header of a PNG.

    Raises:
        RowProblem: The bytes are no PNG.
    """
    if content[:8] != _PNG_MAGIC or content[12:16] != b"IHDR" or len(content) < 33:
        raise RowProblem("the image is not a PNG", "convert it to PNG")
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)


def data_uri(content: bytes) -> str:
    """Returns a PNG as a data URI, which needs no server to be shown.

    >>> data_uri(b"x")
    'data:image/png;base64,eA=='
    """
    return "data:image/png;base64," + base64.b64encode(content).decode()


def image_content(value: object, folder: Path) -> bytes:
    """Returns the PNG of a data URI or of a file inside a folder.

    Raises:
        RowProblem: It is neither, lies outside the folder, or is no readable image.
    """
    if not isinstance(value, str) or not value:
        raise RowProblem("the row has no image", "give a data URI or a file name")
    if value.startswith("data:"):
        _, _, encoded = value.partition(";base64,")
        try:
            return plain_png(base64.b64decode(encoded, validate=True))
        except binascii.Error:
            raise RowProblem("the image is not valid base64", "export the row again") from None
    return plain_png(file_inside(value, folder))


def file_inside(name: str, folder: Path) -> bytes:
    """Reads a file that must lie inside a folder, links followed.

    Raises:
        RowProblem: It lies elsewhere, is missing or too large.
    """
    if "://" in name or "\0" in name:
        raise RowProblem(f"{name[:80]!r} is no local file", "download it beside the import file")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise RowProblem(f"{name[:80]!r} lies outside the folder of the import", "move it inside")
    try:
        if path.stat().st_size > 4 * CONTENT_BYTES_MAX:
            raise RowProblem(f"{name[:80]!r} is larger than 32 MiB", "make it smaller")
        return path.read_bytes()
    except OSError as error:
        raise RowProblem(
            f"{name[:80]!r} cannot be read: {error.strerror}", "check the path"
        ) from None


def plain_png(raw: bytes) -> bytes:
    """Returns an image as PNG, 8-bit gray or RGB, without metadata; such a PNG stays as it is.

    Raises:
        RowProblem: Pillow cannot read it, or it is too large.
    """
    if _is_plain(raw):
        width, height = png_size(raw)
        _check_pixels(width * height)
        return raw
    from PIL import Image, UnidentifiedImageError

    broken = (UnidentifiedImageError, Image.DecompressionBombError)
    try:
        with Image.open(io.BytesIO(raw)) as image:
            _check_pixels(image.width * image.height)
            gray = image.mode in ("1", "L", "I", "I;16", "F")
            drawn = image.convert("L" if gray else "RGB")
    except (*broken, OSError, ValueError, SyntaxError) as error:
        raise RowProblem(
            f"the image cannot be read: {type(error).__name__}", "convert it to PNG"
        ) from None
    written = io.BytesIO()
    drawn.info.clear()
    drawn.save(written, "PNG")
    return written.getvalue()


def _check_pixels(count: int) -> None:
    if not 0 < count <= PIXELS_MAX:
        raise RowProblem(
            f"the image has {count} pixels; the limit is {PIXELS_MAX}", "scale it down"
        )


def _is_plain(raw: bytes) -> bool:
    """True for a PNG of 8-bit gray or RGB that holds nothing but header and pixels."""
    if raw[:8] != _PNG_MAGIC or len(raw) < 33 or raw[24] != 8 or raw[25] not in (0, 2):
        return False
    place = 8
    while place + 12 <= len(raw):
        (length,) = struct.unpack(">I", raw[place : place + 4])
        if raw[place + 4 : place + 8] not in _PLAIN_CHUNKS:
            return False
        place += 12 + length
    return place == len(raw)


def series_array(content: bytes) -> NDArray[np.float32]:
    """Returns float32[steps, channels] of an item's content.

    Raises:
        RowProblem: The bytes are no such array.
    """
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise RowProblem("the series is no .npy array", "save it with numpy.save") from None
    return _checked_series(array)


def series_content(rows: object) -> bytes:
    """Returns .npy bytes of a list of steps, each a list of channel values.

    Raises:
        RowProblem: The rows differ in length or hold something other than finite numbers.
    """
    try:
        array = np.asarray(rows, dtype=np.float64)
    except (ValueError, TypeError):
        raise RowProblem(
            "the series is not a table of numbers", "give one list of channel values for each step"
        ) from None
    written = io.BytesIO()
    np.save(written, _checked_series(array), allow_pickle=False)
    return written.getvalue()


def _checked_series(array: NDArray[np.generic]) -> NDArray[np.float32]:
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise RowProblem(
            f"the series has the shape {array.shape}", "give steps × channels with numbers"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype="<f4")
    if not np.isfinite(values).all():
        raise RowProblem("the series holds values that are not finite", "fill or cut the gaps")
    return values


def record_fields(content: bytes) -> dict[str, object]:
    """Returns the columns of a record's content.

    Raises:
        RowProblem: The bytes are no JSON object.
    """
    try:
        fields = json.loads(content)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise RowProblem("the record is not a JSON object", "give column names with their values")
    return fields


def record_content(fields: object) -> bytes:
    """Returns canonical JSON of a record: keys sorted, no spaces.

    Raises:
        RowProblem: It is no mapping of names to numbers, texts or null.
    """
    if not isinstance(fields, Mapping) or not fields:
        raise RowProblem("the row has no record", "give column names with their values")
    for name, value in fields.items():
        plain = value is None or isinstance(value, str | int | float)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise RowProblem(
                f"column {name!r} holds neither a number nor a text", "flatten or drop the column"
            )
    canonical = json.dumps(
        dict(fields), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return text_content(canonical)


def content_from(value: object, kind: Kind, folder: Path) -> bytes:
    """Returns the content of a plain value: a text, an image reference, steps, or columns.

    Records may also come as the JSON text of an object.

    Raises:
        RowProblem: The value does not fit the kind, or its content is too large.
    """
    if kind is Kind.TEXT:
        content = text_content(value)
    elif kind is Kind.IMAGE:
        content = image_content(value, folder)
    elif kind is Kind.SERIES:
        content = series_content(value)
    else:
        fields = (
            record_fields(value.encode("utf-8", "replace")) if isinstance(value, str) else value
        )
        content = record_content(fields)
    if len(content) > CONTENT_BYTES_MAX:
        raise RowProblem(
            f"the content has {len(content)} bytes; the limit is {CONTENT_BYTES_MAX}", "shrink it"
        )
    return content


def value_of(content: bytes, kind: Kind) -> str | Sequence[object] | dict[str, object]:
    """Returns content as a JSON-ready value: the reverse of `content_from`.

    >>> value_of(b"hello", Kind.TEXT)
    'hello'
    """
    if kind is Kind.TEXT:
        return content.decode()
    if kind is Kind.IMAGE:
        return data_uri(content)
    if kind is Kind.SERIES:
        steps: list[object] = series_array(content).tolist()
        return steps
    return record_fields(content)
